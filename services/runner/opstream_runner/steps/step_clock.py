"""The time of steps and waits. A test replaces it, so that nothing waits (`opstream.testing`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec


class StepClock(msgspec.Struct, frozen=True):
    """Tells the time, and lets a plain handler pause."""

    now: Callable[[], datetime]
    """The current time, with time zone."""
    pause: Callable[[float], object]
    """Blocks the calling thread for some seconds."""


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


REAL_CLOCK: Final = StepClock(lambda: datetime.now(UTC), _pause)
"""The clock of this machine."""
