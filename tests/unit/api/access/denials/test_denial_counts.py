"""Denials are counted in bounded memory, and none is lost."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.access.denials.denial_counts import MINUTE, CountedDenials, DenialCounts, DenialKey, DenialRow

pytestmark = pytest.mark.unit

REASONS = ("unknown-key", "no-credentials", "unknown-host")
KEYS = st.builds(
    DenialKey,
    reason=st.sampled_from(REASONS),
    caller=st.sampled_from(["", "ann"]),
    address=st.sampled_from(["", "192.0.2.1", "192.0.2.2", "192.0.2.3"]),
)
DENIALS = st.lists(st.tuples(KEYS, st.floats(0, 600)), max_size=80)
LIMITS = st.integers(0, 20)


def row(at: float, address: str = "192.0.2.1") -> DenialRow:
    return DenialRow(at, address, "GET", "/status/{id}")


def by_reason(taken: list[CountedDenials]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in taken:
        found[one.key.reason] += one.row.count
    return found


@given(DENIALS, LIMITS, st.lists(st.floats(0, 700), max_size=5))
def test_no_denial_is_lost_and_the_memory_is_bounded(
    denials: list[tuple[DenialKey, float]], limit: int, failures: list[float]
) -> None:
    """Whatever comes, and however often it can't be written: the sum of each reason stays, in at most so many rows."""
    counts = DenialCounts(limit)
    for key, at in denials:
        counts.add(key, row(at))
        assert len(counts) <= limit + len(REASONS)
    for before in failures:
        for taken in counts.take(before):
            counts.put_back(taken)
        assert len(counts) <= limit + len(REASONS)
    assert by_reason(counts.take(math.inf)) == Counter(key.reason for key, _ in denials)
    assert len(counts) == 0


@given(DENIALS)
def test_within_the_limit_each_caller_has_its_row(denials: list[tuple[DenialKey, float]]) -> None:
    """One row a caller, reason and minute, with the exact count, the first and the last time."""
    counts = DenialCounts(1_000)
    for key, at in denials:
        counts.add(key, row(at))
    wanted: dict[tuple[int, DenialKey], list[float]] = {}
    for key, at in denials:
        wanted.setdefault((int(at // MINUTE), key), []).append(at)
    taken = counts.take(math.inf)
    assert not any(one.is_others for one in taken)
    found = {(int(one.row.first // MINUTE), one.key): (one.row.count, one.row.first, one.row.last) for one in taken}
    assert found == {at: (len(times), min(times), max(times)) for at, times in wanted.items()}
    assert len(taken) == len(found)


def test_a_minute_that_goes_on_is_not_taken() -> None:
    """Otherwise it would be two records."""
    counts = DenialCounts(10)
    key = DenialKey("unknown-key", address="192.0.2.1")
    counts.add(key, row(59.0))
    counts.add(key, row(61.0))
    (taken,) = counts.take(100.0)
    assert (taken.row.first, len(counts)) == (59.0, 1)
    assert len(counts.take(120.0)) == 1


def test_the_row_of_others_names_no_address() -> None:
    """It is of many callers, so the first one's address would be wrong."""
    counts = DenialCounts(1)
    for number in range(5):
        counts.add(DenialKey("unknown-key", address=f"192.0.2.{number}"), row(float(number), f"192.0.2.{number}"))
    first, others = counts.take(math.inf)
    assert (first.key.address, first.row.count, first.is_others) == ("192.0.2.0", 1, False)
    assert (others.key.address, others.row.address, others.row.count, others.is_others) == ("", "", 4, True)
