"""What follows from an operation's state, beyond the view: deadlines armed, holds released (docs/architecture.md).

Terminal events come from runners, the API and deadlines alike; the projector sees them all. Caller: `projector.py`,
which acknowledges an event only once its after-effects are done, so none is lost, and each may be repeated.
"""

from __future__ import annotations

from typing import Protocol

from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_schemas.operation.state import Operation


class AfterEffect(Protocol):
    """Something to be done about operations."""

    async def apply(self, operation: Operation) -> None:
        """Do what the operation's state asks for; nothing where it is done already. Called for every operation that
        has new events, so it must cost nothing for those that it does not concern.

        Raises:
            JournalError: the broker did not answer; it is called again.
        """
        ...


class LockReleaser:
    """Releases holds.

    Args:
        holds: started.
    """

    def __init__(self, holds: ResourceLocks) -> None:
        self._holds = holds

    async def apply(self, operation: Operation) -> None:
        """Release what an operation held that has ended.

        Raises:
            JournalError: the broker did not answer; to be called again.
        """
        if operation.hold and operation.is_terminal:
            await self._holds.release(operation)
