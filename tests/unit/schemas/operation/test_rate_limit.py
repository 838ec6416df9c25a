"""Rates: their grammar, and the slots that they give."""

from __future__ import annotations

import pytest

from opstream_schemas.operation.rate_limit import Rate, Slot, parse_rate, reserve_slot

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1/s", Rate(1, 1.0)), ("100/m", Rate(100, 60.0)), ("30/h", Rate(30, 3600.0)), ("5/d", Rate(5, 86_400.0))],
)
def test_a_rate_is_a_number_for_each_unit(text: str, expected: Rate) -> None:
    """`100/m` is 100 in 60 seconds."""
    assert parse_rate(text) == expected


@pytest.mark.parametrize(
    "text", ["", "100", "/m", "0/m", "-1/s", "1.5/s", "1/w", "1 /s", "1/s ", "٣/s", "01/s", "1/ss"]
)
def test_any_other_text_is_not_a_rate(text: str) -> None:
    """The message shows the right form."""
    with pytest.raises(ValueError, match="as in '100/m'"):
        parse_rate(text)


def test_a_burst_after_a_quiet_time() -> None:
    """With 3/m three attempts start at once, then one every 20 seconds."""
    rate, due, slots = Rate(3, 60.0), 0.0, []
    for _ in range(6):
        slot = reserve_slot(rate, due, 1000.0)
        slots.append(slot.starts_at)
        due = slot.theoretical_arrival

    assert slots == [1000.0, 1000.0, 1000.0, 1020.0, 1040.0, 1060.0]


def test_a_clock_that_goes_back_gets_later_slots() -> None:
    """A runner whose clock is an hour behind gets the slot after the last one, and no slot is given twice."""
    rate = Rate(1, 60.0)
    first = reserve_slot(rate, 0.0, 10_000.0)
    behind = reserve_slot(rate, first.theoretical_arrival, 6_400.0)

    assert behind == Slot(starts_at=10_060.0, theoretical_arrival=10_120.0)


def test_a_clock_that_was_ahead_is_forgotten() -> None:
    """A runner whose clock is an hour ahead moves the rate for no longer than it is wrong."""
    rate = Rate(1, 60.0)
    ahead = reserve_slot(rate, 0.0, 13_600.0)
    right = reserve_slot(rate, ahead.theoretical_arrival, 10_000.0, ahead.since)

    assert right == Slot(starts_at=10_060.0, theoretical_arrival=10_120.0, since=10_000.0)
