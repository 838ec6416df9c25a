"""Polls of operations that usually end within moments: such a poll waits for the end (ADR 0045).

A client that has submitted a short operation would otherwise see it open, and come back after `Retry-After`, a second
later. The wait is brief, and ends with the operation. A poll is never answered with less than what the journal had
when it came: without an end the status is read after the wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final

from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation

from .status import StatusReader
from .watch import WatchRegistry

MOST: Final = 0.25
"""Seconds. What usually takes longer is not waited for."""

_TIMES_AS_LONG: Final = 4
"""An operation that has taken so many times as long as usual waits for something, and a poll does not wait with it."""
_WEIGHT: Final = 1 / 8
"""Of the operation that ended last in what is usual."""
_MAX_KINDS: Final = 1_000


class UsualTimes:
    """How long operations of each action take from their submit to their end: a moving average. Pure."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[Kind, float] = OrderedDict()

    @property
    def is_empty(self) -> bool:
        """Return True if nothing is known."""
        return not self._seconds

    def add(self, kind: Kind, seconds: float) -> None:
        """Learn from an operation that has ended, so many seconds after its submit."""
        took = max(0.0, seconds)
        before = self._seconds.pop(kind, took)
        self._seconds[kind] = before + _WEIGHT * (took - before)
        while len(self._seconds) > _MAX_KINDS:
            self._seconds.popitem(last=False)

    def forget(self) -> None:
        """Forget everything."""
        self._seconds.clear()

    def wait_of(self, operation: Operation, now: datetime) -> float:
        """Return the seconds for which a poll of an open operation should wait for its end; 0 for not at all."""
        usual = self._seconds.get(operation.kind)
        if usual is None or usual > MOST:
            return 0.0
        if operation.goes_on_at is not None and operation.goes_on_at > now:
            return 0.0
        age = max(0.0, (now - operation.due_at).total_seconds())
        return max(0.0, min(_TIMES_AS_LONG * usual - age, MOST))


class BriefWaits:
    """Answers polls.

    Args:
        status: reads operations.
        watches: wait for ends.
        now: returns the time with a time zone.
    """

    def __init__(self, *, status: StatusReader, watches: WatchRegistry, now: Callable[[], datetime]) -> None:
        self._status = status
        self._watches = watches
        self._now = now
        self._usual_times = UsualTimes()

    def add_end(self, operation_id: str) -> None:
        """Learn from an operation of which the end was just heard. Call it before the end is folded.

        The time is taken by the clocks of APIs only. A runner's may be off by more than a short operation takes.
        """
        known = self._status.known_state(operation_id)
        if known is not None and not known.is_terminal:
            self._usual_times.add(known.kind, (self._now() - known.due_at).total_seconds())

    def forget(self) -> None:
        """Wait for nothing until ends are heard of again: the journal's follower is away."""
        self._usual_times.forget()

    async def read(self, operation_id: str) -> Operation:
        """Return the state of an operation: at its end, if that comes within moments.

        Raises:
            ApiError: as `StatusReader.read`.
        """
        known = self._status.known_state(operation_id)
        if self._usual_times.is_empty or (known is not None and (known.is_terminal or not self._wait_of(known))):
            return await self._status.read(operation_id)
        async with self._watches.watch(operation_id) as watch:  # first, so that no end is missed after the read
            if known is None:
                known = await self._status.read(operation_id)
                if known.is_terminal or not self._wait_of(known):
                    return known
            await watch.wait_for_end(known, self._wait_of(known))
        return await self._status.read(operation_id)

    def _wait_of(self, operation: Operation) -> float:
        return self._usual_times.wait_of(operation, self._now())
