"""When a failed delivery is attempted again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_webhooks.retry_schedule import (
    DELAYS,
    DELIVERY_LIFETIME,
    next_attempt,
    parse_retry_after,
    redelivery_delay,
)

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_the_schedule() -> None:
    """There are ten attempts, with growing delays, within a day, and no more."""
    begun, now, gaps = NOW, NOW, []
    for attempt in range(1, 20):
        at = next_attempt(attempt, now=now, begun=begun, jitter=lambda: 0.5)
        if at is None:
            break
        gaps.append((at - now).total_seconds())
        now = at
    assert gaps == list(DELAYS)
    assert timedelta(hours=20) < now - begun < timedelta(hours=24)


@given(st.integers(1, 12), st.floats(0, 1e9), st.floats(0, 1, exclude_max=True), st.floats(0, 30))
def test_a_requested_delay(attempt: int, requested: float, jitter: float, hours: float) -> None:
    """`Retry-After` delays the next attempt by six hours at most, never advances it, and never extends the delivery."""
    now = NOW + timedelta(hours=hours)
    plain = next_attempt(attempt, now=now, begun=NOW, jitter=lambda: jitter)
    later = next_attempt(attempt, now=now, begun=NOW, jitter=lambda: jitter, requested_delay=requested)
    if later is not None:
        assert plain is not None
        assert plain <= later <= max(plain, now + timedelta(hours=6))
        assert later - NOW <= DELIVERY_LIFETIME
    assert next_attempt(attempt, now=now, begun=NOW, jitter=lambda: jitter, status=410) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Tue, 24 Nov 2026 12:01:00 GMT", 60),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0),
        ("Tue, 24 Nov 2026 11:00:00 -0000", None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("9" * 5000, 9999999999),
        ("Tue, 24 Nov 99999999999999999999 11:00:00 GMT", None),
        ("Tue, 24 Nov 2026 11:00:00 +99999999999999999999", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """It is a number of seconds or a date; anything else is ignored."""
    assert parse_retry_after(text, NOW) == seconds


def test_redelivery_delays() -> None:
    """They double, up to 512 s."""
    assert [redelivery_delay(deliveries) for deliveries in (1, 2, 3, 9, 10, 10_000)] == [2, 4, 8, 512, 512, 512]
