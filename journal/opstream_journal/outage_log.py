"""Logs what happens often as a person wants to read it: in few lines.

An outage has a line when it begins, now and then while it lasts, and when it is over. One that comes and goes is
bounded, too: the log has one beginning in half a minute. Messages that can't be read are named one by one,
and then counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

REMINDER_INTERVAL: Final = 30.0
"""Seconds between two lines about an outage that goes on."""
MAX_BEGINNINGS: Final = 1
"""Beginnings of an outage that comes and goes which are logged in `REMINDER_INTERVAL`."""
COUNT_INTERVAL: Final = 60.0
"""Seconds between two lines of a `BoundedLog` that count what was not logged."""
MAX_NAMED: Final = 5
"""Lines of a `BoundedLog` in `COUNT_INTERVAL`."""


class Beginnings:
    """Says which beginnings of something that comes and goes are worth a line. Nothing here logs.

    Args:
        most: beginnings in `REMINDER_INTERVAL` that are.
    """

    def __init__(self, most: int = MAX_BEGINNINGS) -> None:
        self._most = most
        self._last: deque[float] = deque(maxlen=most)

    def note(self, now: float) -> bool:
        """Note that it begins. Return True unless the log has had so many beginnings lately that one more says nothing.

        Args:
            now: monotonic seconds.
        """
        if len(self._last) == self._most and now - self._last[0] < REMINDER_INTERVAL:
            return False
        self._last.append(now)
        return True


class OutageLog:
    """What one thing that may fail for a while writes to the log.

    The first failure is a warning. Further ones are lines at DEBUG, and are counted: a warning every
    `REMINDER_INTERVAL` has their number. The first success after a failure is a line at INFO. If it fails and works in
    turns, one such pair in `REMINDER_INTERVAL` is logged; then it counts as an outage that goes on.

    Args:
        logger: of the module that fails.
        what: what fails, as the beginning of each warning.
        over: what works again, as the beginning of the last line.
        clock: monotonic seconds.
    """

    def __init__(
        self, logger: logging.Logger, what: str, over: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._what = what
        self._over = over
        self._clock = clock
        self._began: float | None = None
        self._logged = 0.0
        self._unlogged = 0
        self._beginnings = Beginnings()
        self._is_announced = False
        """True if the log's last word is that it fails."""

    @property
    def is_failing(self) -> bool:
        """Return True from a failure to the next success."""
        return self._began is not None

    def failed(self, reason: object) -> None:
        """Note a failure. An exception without a text is shown by its type."""
        reason = _text_of(reason)
        now = self._clock()
        is_due = now - self._logged >= REMINDER_INTERVAL
        if self._began is None:
            self._began = now
            is_due = self._beginnings.note(now) or is_due
        if not is_due:
            self._unlogged += 1
            self._logger.debug("%s: %s", self._what, reason)
            return
        more = f" ({self._unlogged:,} more times since the last such line)" if self._unlogged else ""
        self._logger.warning("%s: %s%s", self._what, reason, more)
        self._logged = now
        self._unlogged = 0
        self._is_announced = True

    def forget(self) -> None:
        """Forget the outage, whose end will not be seen. Nothing is logged."""
        self._began = None
        self._unlogged = 0
        self._is_announced = False

    def recovered(self) -> None:
        """Note a success. After a success nothing happens."""
        if self._began is None:
            return
        level = logging.INFO if self._is_announced else logging.DEBUG
        self._logger.log(level, "%s, after %.3g s", self._over, self._clock() - self._began)
        if self._is_announced:
            self._unlogged = 0
        self._began = None
        self._is_announced = False


class SharedOutageLog:
    """What several things that fail together write to the log: the same lines as one of them.

    Without a leader all consumers of a process fail at once. That is one outage, over when none fails any more.

    Args:
        logger, what, over, clock: as for `OutageLog`.
    """

    def __init__(
        self, logger: logging.Logger, what: str, over: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = OutageLog(logger, what, over, clock=clock)
        self._failing: set[str] = set()

    @property
    def is_failing(self) -> bool:
        """Return True while one of them fails."""
        return bool(self._failing)

    def failed(self, name: str, reason: object) -> None:
        """Note a failure of one of them."""
        self._failing.add(name)
        self._log.failed(f"{name}: {_text_of(reason)}")

    def recovered(self, name: str) -> None:
        """Note a success of one of them."""
        if name in self._failing:
            self._failing.discard(name)
            if not self._failing:
                self._log.recovered()

    def forget(self, name: str) -> None:
        """Note that one of them is used no more, which says nothing about the others, or about an end of the outage."""
        if name in self._failing:
            self._failing.discard(name)
            if not self._failing:
                self._log.forget()


class BoundedLog:
    """Lines about messages of others, who can send as many as they like.

    The first `MAX_NAMED` lines of a minute are logged, further ones are at DEBUG; at its end one line has their number.

    Args:
        logger: of the module that finds such messages.
        what: what they are, for the count: `messages under subjects of opstream that are no events`.
        clock: monotonic seconds.
        interval: see `COUNT_INTERVAL`.
    """

    def __init__(
        self,
        logger: logging.Logger,
        what: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        interval: float = COUNT_INTERVAL,
    ) -> None:
        self._logger = logger
        self._what = what
        self._clock = clock
        self._interval = interval
        self._began = float("-inf")
        self._named = 0
        self._unlogged = 0
        self._level = logging.DEBUG
        self._timer: asyncio.TimerHandle | None = None

    def log(self, level: int, text: str, *values: object) -> None:
        """Log a line, or count it. In an event loop the count comes by itself, otherwise with the next line."""
        now = self._clock()
        if now - self._began >= self._interval:
            self._count()
            self._began, self._named = now, 0
        if self._named < MAX_NAMED:
            self._named += 1
            self._logger.log(level, text, *values)
            return
        self._logger.debug(text, *values)
        self._unlogged += 1
        self._level = max(self._level, level)
        if self._timer is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            self._timer = loop.call_later(max(0.0, self._began + self._interval - now), self._count)

    def _count(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unlogged:
            self._logger.log(self._level, "%s: %s more in the last minute", self._what, f"{self._unlogged:,}")
        self._unlogged = 0
        self._level = logging.DEBUG


def _text_of(reason: object) -> str:
    return str(reason) or (type(reason).__name__ if isinstance(reason, Exception) else "")
