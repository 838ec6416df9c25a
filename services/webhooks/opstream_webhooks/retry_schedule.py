"""When a delivery that failed is tried again. Pure. Caller: `courier.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

DELAYS: Final = (5.0, 30.0, 180.0, 900.0, 3_600.0, 7_200.0, 14_400.0, 25_200.0, 28_800.0)
"""Seconds after each failed attempt: ten attempts within about 22 hours, most of them early, as most failures are
short."""
GONE: Final = 410
"""The status with which a receiver says that it wants this delivery no more (Standard Webhooks)."""
MAX_RETRY_AFTER: Final = 21_600.0
"""Seconds of a `Retry-After` that are granted at most."""
DELIVERY_LIFETIME: Final = timedelta(hours=26)
"""After the delivery came up; nothing is tried later, whatever receivers ask for."""
MAX_OUTCOME_AGE: Final = timedelta(hours=24)
"""Outcomes that were recorded longer ago are not delivered, if no webhooks service ran meanwhile."""

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
    asked: float | None = None,
) -> datetime | None:
    """When to try again; None if this was the last time.

    Args:
        attempt: number of the one that failed, from 1.
        now: the time.
        begun: when the delivery came up.
        jitter: a random number of [0, 1), so that deliveries that failed together do not come back together.
        delays: see `DELAYS`.
        status: that the receiver answered with; 0 for none.
        asked: seconds that its `Retry-After` asks for.
    """
    if status == GONE or attempt > len(delays):
        return None
    delay = delays[attempt - 1] * (1 - _JITTER + 2 * _JITTER * jitter())
    if asked is not None:
        delay = max(delay, min(asked, MAX_RETRY_AFTER))
    at = now + timedelta(seconds=delay)
    return at if at - begun <= DELIVERY_LIFETIME else None


def redelivery_delay(deliveries: int) -> float:
    """Seconds until a message is taken again of which the broker stored nothing: its receiver may have been called.

    Args:
        deliveries: how often the broker has given it out.
    """
    return _FIRST_DELAY * (1 << min(deliveries - 1, _MAX_DOUBLINGS))


def parse_retry_after(value: str, now: datetime) -> float | None:
    """The seconds that a `Retry-After` asks for (RFC 9110, a number or a date); None for what is neither."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the second for a year or zone of twenty digits
        return None
    if at.tzinfo is None:
        return None
    return max(0.0, (at - now) / timedelta(seconds=1))
