"""What is wrong around a process: named conditions for its probes and its log, and counters of what it has mended.

A condition is something that an operator must know of, such as a full disk or a wrong clock. Whatever part of a process
finds one reports it here. `/readyz` shows all of them, and a blocking one turns it to 503. The log has one line when a
condition begins and one when it ends, however often it is reported between the two; a blocking one is repeated every
`REMINDER_INTERVAL`, since the process does not do its job meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from opstream_journal.outage_log import REMINDER_INTERVAL, Beginnings

logger = logging.getLogger(__name__)

MAX_BEGINNINGS: Final = 2
"""Beginnings of a condition in `REMINDER_INTERVAL` that are logged: the second may have another cause and next step."""


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One thing that is wrong now."""

    name: str
    """In PascalCase, the same in all versions: `ClockSkew`."""
    message: str
    """What is wrong, in words."""
    next_step: str
    """What the operator should do."""
    is_blocking: bool = False
    """True if this process can't do its job meanwhile."""


class Conditions:
    """The conditions of one process, and its counters. Nothing here waits or does I/O.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: dict[str, float] = {}
        """When each was logged last."""
        self._beginnings: dict[str, Beginnings] = {}
        self._announced: set[str] = set()
        """Those that hold as far as the log says."""
        self._current: dict[str, Condition] = {}
        self._counters: dict[str, int] = {}
        self._doubt_callbacks: list[Callable[[], None]] = []

    @property
    def is_blocked(self) -> bool:
        """Return True if a condition keeps this process from doing its job."""
        return any(condition.is_blocking for condition in self._current.values())

    @property
    def current(self) -> list[Condition]:
        """The conditions that hold now, in the order in which they began."""
        return list(self._current.values())

    @property
    def counters(self) -> Mapping[str, int]:
        """What the process has mended since its start."""
        return self._counters

    def report(
        self, name: str, message: str, next_step: str, *, is_blocking: bool = False, level: int = logging.WARNING
    ) -> None:
        """Report a condition. It is logged, at `level`, if it begins now; later reports replace its text only.

        A blocking one is logged again after `REMINDER_INTERVAL`. If it comes and goes, `MAX_BEGINNINGS` in that
        time are logged; each of an error is.
        """
        now = self._clock()
        is_old = now - self._logged.get(name, now) >= REMINDER_INTERVAL
        if name not in self._current:
            is_due = (
                self._beginnings.setdefault(name, Beginnings(MAX_BEGINNINGS)).note(now)
                or is_old
                or level >= logging.ERROR
            )
        else:
            is_due = is_old and (is_blocking or name not in self._announced)
        if is_due:
            self._logged[name] = now
            self._announced.add(name)
            logger.log(level, "%s: %s; next step: %s", name, message, next_step)
        self._current[name] = Condition(name=name, message=message, next_step=next_step, is_blocking=is_blocking)

    def resolve(self, name: str) -> None:
        """Remove a condition that no longer holds, if it was reported. Its end is logged."""
        if self._current.pop(name, None) is not None:
            logger.log(logging.INFO if name in self._announced else logging.DEBUG, "%s: this is over", name)
            self._announced.discard(name)

    def on_doubt(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time that the journal may have less than it had, though the connection was not lost."""
        self._doubt_callbacks.append(callback)

    def doubt_journal(self) -> None:
        """Report that the journal's stream is there again after it was missing, or was made again, or set back."""
        for callback in self._doubt_callbacks:
            callback()

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter, which begins at 0 with the process. Its name is in camelCase: `rescheduled`."""
        self._counters[name] = self._counters.get(name, 0) + number

    def members(self) -> dict[str, object]:
        """Return the members that the JSON of `/readyz` has besides its status; none while all is well."""
        found: dict[str, object] = {}
        if self._current:
            found["conditions"] = self.current
        if self._counters:
            found["counters"] = dict(self._counters)
        return found
