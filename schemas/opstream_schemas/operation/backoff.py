"""Exponential backoff with jitter between attempts, limited by the deadline.

Pure: the random factor and the clock are parameters.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

MIN_JITTER_FACTOR: Final = 0.5
"""The smallest jitter factor. It spreads operations that failed together, but halves a delay at most."""
_MAX_DOUBLINGS: Final = 1000
"""So many doublings exceed every `backoff_max`; more would overflow a float."""


def backoff_delay(failed: int, *, backoff: float, backoff_max: float, factor: float, floor: float = 0.0) -> float:
    """Return the seconds between a failed attempt and the next one.

    Args:
        failed: the number of attempts that failed so far, at least 1.
        backoff: seconds after the first failure; doubled after each further one.
        backoff_max: the upper limit of the doubled seconds.
        factor: the jitter, drawn from `MIN_JITTER_FACTOR` to 1.
        floor: the lower limit of the result, in seconds.
    """
    doubled = backoff * 2.0 ** min(failed - 1, _MAX_DOUBLINGS)
    return max(floor, min(backoff_max, doubled) * factor)


def retry_time(now: datetime, seconds: float, deadline: datetime) -> datetime:
    """Return the time `seconds` after `now`, but not after the deadline, at which the operation ends."""
    if seconds >= (deadline - now).total_seconds():
        return deadline
    return now + timedelta(seconds=seconds)
