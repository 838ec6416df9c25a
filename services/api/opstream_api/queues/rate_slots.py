"""The slots that operations have reserved in the rate of their action: until when each waits.

A runner that puts an operation aside schedules a wake-up, whose subject has the slot. A slot that was found does not
change before it comes, so each operation costs one read of the broker until then, however often it is polled.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from opstream_journal import Connection
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_schemas import subjects
from opstream_schemas.operation.rate_limit import parse_slot
from opstream_schemas.operation.state import Operation

_MOST_CACHED: Final = 10_000


class RateSlots:
    """Finds the reserved slots of operations.

    Args:
        connection: the connection to the broker.
        now: returns the time with a time zone.
    """

    def __init__(self, connection: Connection, now: Callable[[], datetime]) -> None:
        self._now = now
        self._reader = BatchReader(connection)
        self._cached: dict[str, datetime] = {}

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def slot_of(self, operation: Operation) -> datetime | None:
        """Return the slot of an operation that has not come yet; None if it waits for none.

        Raises:
            JournalError: the broker did not respond, or refused.
        """
        now = self._now()
        known = self._cached.get(operation.id)
        if known is not None and now < known:
            return known
        timers = subjects.timer_subject(operation.kind, operation.id, "*")
        found = await self._reader.read(subjects.TIMERS_STREAM, {"multi_last": [timers]})
        slots = [parse_slot(subjects.parse_timer_subject(one.subject)[1])[1] for one in found]
        slot = datetime.fromtimestamp(max(slots, default=0.0), UTC)
        self._cached.pop(operation.id, None)
        if slot <= now:
            return None
        if len(self._cached) >= _MOST_CACHED:
            del self._cached[next(iter(self._cached))]
        self._cached[operation.id] = slot
        return slot
