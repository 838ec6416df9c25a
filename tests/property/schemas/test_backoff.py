"""Pauses between attempts: their bounds, their growth, and the deadline that none goes beyond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.operation.backoff import MIN_JITTER_FACTOR, backoff_delay, retry_time

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)

counts = st.integers(1, 100_000)
seconds = st.floats(1e-6, 1e12)
limits = st.tuples(seconds, seconds).map(sorted)
factors = st.floats(MIN_JITTER_FACTOR, 1.0)


@given(failed=counts, limit=limits, factor=factors)
def test_a_pause_has_bounds(failed: int, limit: list[float], factor: float) -> None:
    """No pause is longer than the longest, nor shorter than half of the first."""
    backoff, most = limit
    assert (
        backoff * MIN_JITTER_FACTOR <= backoff_delay(failed, backoff=backoff, backoff_max=most, factor=factor) <= most
    )


@given(failed=counts, limit=limits)
def test_pauses_grow(failed: int, limit: list[float]) -> None:
    """Without jitter each pause is twice the one before, or the longest."""
    backoff, most = limit
    before, after = (backoff_delay(n, backoff=backoff, backoff_max=most, factor=1.0) for n in (failed, failed + 1))
    assert after == min(most, 2 * before)


@given(failed=counts, limit=limits, factor=factors, floor=seconds)
def test_the_floor(failed: int, limit: list[float], factor: float, floor: float) -> None:
    """What the author asked for is waited at least, and makes no pause shorter."""
    backoff, most = limit
    plain = backoff_delay(failed, backoff=backoff, backoff_max=most, factor=factor)
    assert backoff_delay(failed, backoff=backoff, backoff_max=most, factor=factor, floor=floor) == max(plain, floor)


def test_the_defaults() -> None:
    """An action that says nothing waits 1, 2, 4 … up to 60 seconds, or half of that."""
    pauses = [backoff_delay(n, backoff=1.0, backoff_max=60.0, factor=1.0) for n in range(1, 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff_delay(1, backoff=1.0, backoff_max=60.0, factor=MIN_JITTER_FACTOR) == 0.5


@given(wait=seconds | st.just(0.0), left=st.integers(-1_000_000, 1_000_000))
def test_never_beyond_the_deadline(wait: float, left: int) -> None:
    """The next attempt is due after the pause, or at the deadline if that comes first, however long the pause."""
    deadline = NOW + timedelta(seconds=left)
    at = retry_time(NOW, wait, deadline)
    assert at <= deadline
    assert at == deadline or (at - NOW).total_seconds() == pytest.approx(wait, abs=1e-6)
