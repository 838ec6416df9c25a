"""Which reports of progress are worth an event. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PROGRESS_STEP: Final = 1.0
"""Percent that a report must be ahead of the last recorded one."""
PROGRESS_INTERVAL: Final = 10.0
"""Seconds after which a report is recorded whatever it says."""


class ProgressThrottle:
    """Allows a report that is a percent ahead of the last allowed one, or 10 seconds later.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._percent: float | None = None
        self._at = 0.0

    def allow(self, percent: float) -> bool:
        """Return True if this report is to be recorded. The next one is then compared with it."""
        now = self._clock()
        if self._percent is not None and percent - self._percent < PROGRESS_STEP and now - self._at < PROGRESS_INTERVAL:
            return False
        self._percent, self._at = percent, now
        return True
