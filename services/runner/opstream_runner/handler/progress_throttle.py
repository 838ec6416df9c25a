"""Which of a handler's progress reports are worth an event. Caller: `attempt.py`. Pure, but for the clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PROGRESS_STEP: Final = 1.0
"""Percent."""
PROGRESS_INTERVAL: Final = 10.0
"""Seconds."""


class ProgressThrottle:
    """Lets a report pass if it is a percent further than the last one that passed, or 10 seconds later.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._percent: float | None = None
        self._at = 0.0

    def allow(self, percent: float) -> bool:
        """Whether this report is recorded; the next one is compared with it then."""
        now = self._clock()
        if self._percent is not None and percent - self._percent < PROGRESS_STEP and now - self._at < PROGRESS_INTERVAL:
            return False
        self._percent, self._at = percent, now
        return True
