"""Slots of any rate, for any sequence of requests."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.operation.rate_limit import MAX_AHEAD, Rate, reserve_slot

pytestmark = pytest.mark.unit

rates = st.builds(Rate, st.integers(1, 50), st.sampled_from([1.0, 60.0, 3600.0]))
pauses = st.lists(st.floats(0.0, 5000.0, allow_nan=False) | st.just(0.0), min_size=1, max_size=120)


def slots_of(rate: Rate, moments: list[float]) -> list[float]:
    """The slots of requests at some times."""
    due, since, slots = 0.0, 0.0, []
    for now in moments:
        slot = reserve_slot(rate, due, now, since)
        since = slot.since
        slots.append(slot.starts_at)
        due = slot.theoretical_arrival
    return slots


@given(rates, pauses)
def test_no_window_has_more_than_the_burst_and_what_is_due_in_it(rate: Rate, pauses: list[float]) -> None:
    """Between the i-th and the j-th slot there is the time that all beyond `count` need."""
    slots = slots_of(rate, [1e9 + passed for passed in accumulate(pauses)])

    for i, one in enumerate(slots):
        for j in range(i + rate.count, len(slots)):
            assert slots[j] - one >= (j - i - rate.count + 1) * rate.spacing - 1e-3


@given(rates, pauses)
def test_slots_keep_the_order_and_are_never_in_the_past(rate: Rate, pauses: list[float]) -> None:
    """A later request gets no earlier slot, and no slot is before its request."""
    moments = [1e9 + passed for passed in accumulate(pauses)]
    slots = slots_of(rate, moments)

    assert slots == sorted(slots)
    assert all(slot >= now for slot, now in zip(slots, moments, strict=True))


@given(rates, st.lists(st.floats(0.0, MAX_AHEAD / 2, allow_nan=False), min_size=1, max_size=60))
def test_different_clocks_never_exceed_the_rate(rate: Rate, moments: list[float]) -> None:
    """With clocks that are that near, slots after the burst are `spacing` apart, in the order of reservations."""
    slots = slots_of(rate, [1e9 + moment for moment in moments])

    for i in range(len(slots) - rate.count):
        assert slots[i + rate.count] - min(slots[i : i + rate.count]) >= rate.spacing - 1e-3


@given(rates, st.integers(1, 200))
def test_a_rate_is_used_in_full(rate: Rate, count: int) -> None:
    """Requests at the same time wait no longer than the rate demands."""
    slots = slots_of(rate, [1e9] * count)

    assert slots[-1] - 1e9 <= max(0, count - rate.count) * rate.spacing + 1e-3


@given(rates, pauses, st.floats(MAX_AHEAD + 1, 1e6), st.integers(1, 100))
def test_a_clock_that_was_ahead_delays_by_what_it_took(
    rate: Rate, pauses: list[float], ahead: float, taken: int
) -> None:
    """Whatever a wrong clock reserved, the next slot waits no longer than its slots at the right time would demand."""
    due, since, now = 0.0, 0.0, 1e9
    for passed in pauses:
        slot = reserve_slot(rate, due, now + passed, since)
        due, since = slot.theoretical_arrival, slot.since
    now += max(pauses)
    for _ in range(taken):
        slot = reserve_slot(rate, due, now + ahead, since)
        due, since = slot.theoretical_arrival, slot.since
    slot = reserve_slot(rate, due, now, since)

    assert slot.starts_at - now <= (taken + len(pauses)) * rate.spacing + 1e-2
