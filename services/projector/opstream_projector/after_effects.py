"""After-effect: an operation that ended passes on what it held, and waits no more (docs/adr/0013).

Runners do the same as soon as they have recorded an outcome; here it is made sure, for operations that were canceled or
ran out of time as well, and for runners that died at that very moment. Plugged in by `main.py`.
"""

from __future__ import annotations

from opstream_journal.stores.resource_locks import Holds
from opstream_schemas.operation.fold import Operation


class Releases:
    """Releases holds.

    Args:
        holds: started.
    """

    def __init__(self, holds: Holds) -> None:
        self._holds = holds

    async def settle(self, operation: Operation) -> None:
        """Release what an operation held that has ended.

        Raises:
            JournalError: the broker did not answer; to be called again.
        """
        if operation.hold and operation.is_terminal:
            await self._holds.release(operation)
