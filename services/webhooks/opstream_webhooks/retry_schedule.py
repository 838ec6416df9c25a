"""When a failed delivery is attempted again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

DELAYS: Final = (5.0, 30.0, 180.0, 900.0, 3_600.0, 7_200.0, 14_400.0, 25_200.0, 28_800.0)
"""Seconds after each failed attempt: ten attempts in about 22 hours, most of them early, as most failures are short."""
GONE: Final = 410
"""The status by which a receiver declines further attempts of a delivery (Standard Webhooks)."""
MAX_RETRY_AFTER: Final = 21_600.0
"""Seconds of a `Retry-After` that are honored at most."""
DELIVERY_LIFETIME: Final = timedelta(hours=26)
"""Time from a delivery's creation to its last attempt, whatever receivers ask for."""
MAX_OUTCOME_AGE: Final = timedelta(hours=24)
"""Older outcomes are not delivered, in case no webhooks service ran for longer."""

_JITTER: Final = 0.1
_FIRST_DELAY: Final = 2.0
_MAX_DOUBLINGS: Final = 8


def next_attempt(
    attempt: int,
    *,
    now: datetime,
    begun: datetime,
    jitter: Callable[[], float],
    delays: Sequence[float] = DELAYS,
    status: int = 0,
    requested_delay: float | None = None,
) -> datetime | None:
    """Return the time of the next attempt; None if there is none.

    Args:
        attempt: number of the failed attempt, from 1.
        now: the time.
        begun: when the delivery was created.
        jitter: a random number of [0, 1), so that deliveries that failed together are not retried together.
        delays: see `DELAYS`.
        status: HTTP status of the response; 0 for none.
        requested_delay: seconds in the response's `Retry-After`.
    """
    if status == GONE or attempt > len(delays):
        return None
    delay = delays[attempt - 1] * (1 - _JITTER + 2 * _JITTER * jitter())
    if requested_delay is not None:
        delay = max(delay, min(requested_delay, MAX_RETRY_AFTER))
    at = now + timedelta(seconds=delay)
    return at if at - begun <= DELIVERY_LIFETIME else None


def redelivery_delay(deliveries: int) -> float:
    """Return the seconds until a message is delivered again after the broker failed to store its attempt.

    They grow, because the receiver may have been called each time.

    Args:
        deliveries: how often the broker has delivered the message.
    """
    return _FIRST_DELAY * (1 << min(deliveries - 1, _MAX_DOUBLINGS))


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds of a `Retry-After` (RFC 9110: a number or a date); None if it is neither."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: a year or zone of twenty digits
        return None
    if at.tzinfo is None:
        return None
    return max(0.0, (at - now) / timedelta(seconds=1))
