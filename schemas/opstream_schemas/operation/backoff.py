"""When a failed attempt is followed by the next one: exponential backoff with jitter, up to the deadline.

Pure: chance and the clock are parameters. Caller: the runner.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

MIN_JITTER_FACTOR: Final = 0.5
"""Jitter takes away at most this share of a pause: enough that operations which failed together come back apart, and
no more, so that a pause still means something."""
_MAX_DOUBLINGS: Final = 1000
"""More would be infinite, and so is this many of any pause."""


def backoff_delay(failed: int, *, backoff: float, backoff_max: float, factor: float, floor: float = 0.0) -> float:
    """Seconds between an attempt that failed and the next one.

    Args:
        failed: attempts that have failed so far, from 1 on.
        backoff: seconds after the first; doubled after each further one.
        backoff_max: the most that this becomes.
        factor: the jitter, drawn from `MIN_JITTER_FACTOR` to 1.
        floor: seconds that the pause takes at least, whatever comes of the above.
    """
    doubled = backoff * 2.0 ** min(failed - 1, _MAX_DOUBLINGS)
    return max(floor, min(backoff_max, doubled) * factor)


def retry_time(now: datetime, seconds: float, deadline: datetime) -> datetime:
    """The moment in so many seconds, or the deadline, at which the operation ends, if that comes first."""
    if seconds >= (deadline - now).total_seconds():
        return deadline
    return now + timedelta(seconds=seconds)
