"""Delays between attempts: their bounds, their growth, and the deadline."""

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
def test_a_delay_has_bounds(failed: int, limit: list[float], factor: float) -> None:
    """No delay is above the maximum, or below half of the first one."""
    backoff, most = limit
    assert (
        backoff * MIN_JITTER_FACTOR <= backoff_delay(failed, backoff=backoff, backoff_max=most, factor=factor) <= most
    )


@given(failed=counts, limit=limits)
def test_delays_grow(failed: int, limit: list[float]) -> None:
    """Without jitter each delay is twice the previous one, or the maximum."""
    backoff, most = limit
    before, after = (backoff_delay(n, backoff=backoff, backoff_max=most, factor=1.0) for n in (failed, failed + 1))
    assert after == min(most, 2 * before)


@given(failed=counts, limit=limits, factor=factors, floor=seconds)
def test_the_floor(failed: int, limit: list[float], factor: float, floor: float) -> None:
    """A delay is at least the one that the author asked for, which makes no delay shorter."""
    backoff, most = limit
    plain = backoff_delay(failed, backoff=backoff, backoff_max=most, factor=factor)
    assert backoff_delay(failed, backoff=backoff, backoff_max=most, factor=factor, floor=floor) == max(plain, floor)


def test_the_defaults() -> None:
    """By default the delays are 1, 2, 4 … up to 60 seconds, or down to half of these."""
    pauses = [backoff_delay(n, backoff=1.0, backoff_max=60.0, factor=1.0) for n in range(1, 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff_delay(1, backoff=1.0, backoff_max=60.0, factor=MIN_JITTER_FACTOR) == 0.5


@given(wait=seconds | st.just(0.0), left=st.integers(-1_000_000, 1_000_000))
def test_never_beyond_the_deadline(wait: float, left: int) -> None:
    """The next attempt is due after the delay, or at the deadline if that is earlier."""
    deadline = NOW + timedelta(seconds=left)
    at = retry_time(NOW, wait, deadline)
    assert at <= deadline
    assert at == deadline or (at - NOW).total_seconds() == pytest.approx(wait, abs=1e-6)
