"""Positions in the queues for exclusive resources, and who has these, for the status monitor.

One position needs a read of the whole queue, and each waiting operation is polled about once a second. So polls at the
same time share one read, and a long queue is cached for a moment: the cost grows with the length of a queue, not with
its square.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_schemas.operation.state import Operation

_LONG_QUEUE: Final = 100
"""Waiting operations from which on a queue is cached; a shorter one is read in milliseconds."""
_CACHE_SECONDS_PER_WAITER: Final = 0.001
"""Seconds that a queue is cached, for each waiting operation."""
_MAX_CACHE_SECONDS: Final = 10.0
_OWNER_SECONDS: Final = 1.0
"""For how long the owner of a resource is cached, which all operations in its queue share."""


class QueuePositions:
    """Finds the positions of operations in their queues.

    Args:
        locks: the exclusive resources and their queues.
        clock: returns monotonic seconds.
    """

    def __init__(self, locks: ResourceLocks, clock: Callable[[], float]) -> None:
        self._locks = locks
        self._clock = clock
        self._cached: dict[str, tuple[float, Mapping[str, int]]] = {}
        """By resource: the end of caching on the clock, and the position of each operation."""
        self._reads: dict[str, asyncio.Task[Mapping[str, int]]] = {}
        self._owners: dict[str, tuple[float, str]] = {}
        """By resource: the end of caching on the clock, and the operation."""

    async def position_of(self, operation: Operation) -> int:
        """Return the position of an operation: 1 is next, 0 if it does not wait. It may be up to 10 seconds old.

        Raises:
            JournalError: the broker did not respond, or refused.
        """
        lock = operation.hold
        until, positions = self._cached.get(lock, (0.0, None))
        if positions is None or self._clock() >= until:
            positions = await asyncio.shield(self._reads.get(lock) or self._start_read(lock))
        return positions.get(operation.id, 0)

    async def owner_of(self, lock: str) -> str:
        """Return the id of the open operation that has a resource; empty if none has it. It may be a second old.

        Raises:
            JournalError: the broker did not respond, or refused.
        """
        until, owner = self._owners.get(lock, (0.0, ""))
        if self._clock() >= until:
            claim = await self._locks.owner(lock)
            owner, now = "" if claim is None else claim.operation_id, self._clock()
            self._owners = {key: cached for key, cached in self._owners.items() if cached[0] > now}
            self._owners[lock] = (now + _OWNER_SECONDS, owner)
        return owner

    def _start_read(self, lock: str) -> asyncio.Task[Mapping[str, int]]:
        def forget(ended: asyncio.Task[Mapping[str, int]]) -> None:
            del self._reads[lock]
            if not ended.cancelled():
                ended.exception()  # retrieved, so that asyncio does not log it if no caller waits any more

        task = self._reads[lock] = asyncio.create_task(self._read(lock), name=f"queue positions {lock}")
        task.add_done_callback(forget)
        return task

    async def _read(self, lock: str) -> Mapping[str, int]:
        positions = await self._locks.queue_positions(lock)
        now = self._clock()
        self._cached = {key: cached for key, cached in self._cached.items() if cached[0] > now}
        if len(positions) >= _LONG_QUEUE:
            self._cached[lock] = (now + min(_CACHE_SECONDS_PER_WAITER * len(positions), _MAX_CACHE_SECONDS), positions)
        return positions
