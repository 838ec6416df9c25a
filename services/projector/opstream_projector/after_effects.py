"""What follows from an operation's new state, besides its snapshot: timers, locks, and the end of waits.

Terminal events come from runners, the API and deadlines; the projector sees all of them. It acknowledges an event only
after the event's after-effects, so none is lost, and each may run more than once.
"""

from __future__ import annotations

from typing import Protocol

from opstream_journal import Connection
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.timers import send_wake_up
from opstream_schemas.operation.dispatch_decision import CANCEL_REASON, SIGNAL_REASON
from opstream_schemas.operation.state import Operation


class AfterEffect(Protocol):
    """An action that follows from an operation's state."""

    async def apply(self, operation: Operation) -> None:
        """Do what the state requires, unless it is done already.

        It is called for every operation with new events, so it must cost nothing for operations that it does not
        concern.

        Raises:
            JournalError: the broker did not answer, or refused; the projector calls it again.
        """
        ...


class LockReleaser:
    """Releases the lock of an operation that has ended, and removes it from the lock's queue (docs/adr/0013).

    Runners do the same after each outcome. This covers operations that were canceled or exceeded their deadline, and
    runners that died before the release.

    Args:
        locks: started.
    """

    def __init__(self, locks: ResourceLocks) -> None:
        self._locks = locks

    async def apply(self, operation: Operation) -> None:
        """Release the lock, if its action uses one and the operation has ended, or waits without it.

        Raises:
            JournalError: the broker did not answer, or refused; call it again.
        """
        if operation.hold and operation.has_let_go:
            await self._locks.let_go(operation)
        if operation.hold and operation.is_terminal:
            await self._locks.release(operation)


class Waker:
    """Wakes an operation whose wait is over before its time.

    It has got the signal that it waited for (docs/adr/0071), or was canceled and has to clean up (docs/adr/0077). A
    wake-up too many does nothing: it carries the number of the wait, which the attempt that begins has ended.

    Args:
        connection: the connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def apply(self, operation: Operation) -> None:
        """Send the wake-up, if the operation waits and need not wait any more.

        Raises:
            JournalError: the broker did not answer, or refused; call it again.
        """
        waiting = operation.waiting
        if waiting is None or not (operation.is_cut_short or operation.has_its_signal):
            return
        reason = CANCEL_REASON if operation.is_cut_short else SIGNAL_REASON
        await send_wake_up(self._connection, operation.kind, operation.id, reason, armed_by=waiting.sequence)
        crash_point(CrashPoint.PROJECTOR_WOKEN)
