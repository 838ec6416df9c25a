"""Places in the queues for exclusive resources, as the status monitor shows them. Called by `status.py`.

A queue is read whole to know one place in it, and each of those that wait asks about once a second. So all who ask at
the same time share one read, and a long queue is remembered for a moment: what it costs grows with its length, and not
with the square of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_schemas.operation.state import Operation

_LONG_QUEUE: Final = 100
"""Those that wait in a queue which is remembered; a shorter one is read in milliseconds."""
_CACHE_SECONDS_PER_WAITER: Final = 0.001
"""Seconds that it is remembered, for each that waits in it."""
_MAX_CACHE_SECONDS: Final = 10.0


class QueuePositions:
    """Where operations stand in their queues.

    Args:
        holds: the queues.
        clock: monotonic seconds.
    """

    def __init__(self, holds: ResourceLocks, clock: Callable[[], float]) -> None:
        self._holds = holds
        self._clock = clock
        self._cached: dict[str, tuple[float, Mapping[str, int]]] = {}
        """By hold, in the order in which they were read: until when, and the places."""
        self._reads: dict[str, asyncio.Task[Mapping[str, int]]] = {}

    async def position_of(self, operation: Operation) -> int:
        """The place of an operation: 1 for the next, 0 if it does not wait; of a long queue as it was a moment ago.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        hold = operation.hold
        until, places = self._cached.get(hold, (0.0, None))
        if places is None or self._clock() >= until:
            places = await asyncio.shield(self._reads.get(hold) or self._start_read(hold))
        return places.get(operation.id, 0)

    def _start_read(self, hold: str) -> asyncio.Task[Mapping[str, int]]:
        def forget(ended: asyncio.Task[Mapping[str, int]]) -> None:
            del self._reads[hold]
            if not ended.cancelled():
                ended.exception()  # perhaps nobody waits for it any more

        task = self._reads[hold] = asyncio.create_task(self._read(hold), name=f"places {hold}")
        task.add_done_callback(forget)
        return task

    async def _read(self, hold: str) -> Mapping[str, int]:
        places = await self._holds.queue_positions(hold)
        now = self._clock()
        self._cached = {one: known for one, known in self._cached.items() if known[0] > now}
        if len(places) >= _LONG_QUEUE:
            self._cached[hold] = (now + min(_CACHE_SECONDS_PER_WAITER * len(places), _MAX_CACHE_SECONDS), places)
        return places
