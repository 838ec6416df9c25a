"""Logs an outage as a person wants to read it: when it begins, now and then while it lasts, and when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

REMINDER_INTERVAL: Final = 30.0
"""Seconds between two lines about an outage that goes on."""


class OutageLog:
    """What one thing that may fail for a while writes to the log.

    The first failure is a warning. Further ones are lines at DEBUG, and are counted: a warning every
    `REMINDER_INTERVAL` has their number. The first success after a failure is a line at INFO.

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

    @property
    def is_failing(self) -> bool:
        """Return True from a failure to the next success."""
        return self._began is not None

    def failed(self, reason: object) -> None:
        """Note a failure. An exception without a text is shown by its type."""
        reason = _text_of(reason)
        now = self._clock()
        if self._began is None:
            self._began = now
        elif now - self._logged < REMINDER_INTERVAL:
            self._unlogged += 1
            self._logger.debug("%s: %s", self._what, reason)
            return
        more = f" ({self._unlogged:,} more times since the last such line)" if self._unlogged else ""
        self._logger.warning("%s: %s%s", self._what, reason, more)
        self._logged = now
        self._unlogged = 0

    def forget(self) -> None:
        """Forget the outage, whose end will not be seen. Nothing is logged."""
        self._began = None
        self._unlogged = 0

    def recovered(self) -> None:
        """Note a success. After a success nothing happens."""
        if self._began is None:
            return
        self._logger.info("%s, after %.3g s", self._over, self._clock() - self._began)
        self._began = None
        self._unlogged = 0


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


def _text_of(reason: object) -> str:
    return str(reason) or (type(reason).__name__ if isinstance(reason, Exception) else "")
