"""The clocks of services, as their latest events show them: each has the service's time and the broker's."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Final

from opstream_journal import Connection
from opstream_journal.jetstream import rpc
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import decode_event

_EVENTS: Final = 60
"""Events that are read, from the journal's end back."""
_ENOUGH: Final = 3
"""Events of one process by which its clock is called slow: a single one may have waited for the broker."""


async def service_clocks(connection: Connection, last: int) -> dict[str, timedelta]:
    """Return how much the clock of each process that recorded lately is ahead of the broker's, by the event's source.

    An event is stored after it was made, so its time is a little before the broker's: up to how long an append takes.

    Args:
        connection: to the broker.
        last: the last sequence of the journal.

    Raises:
        JournalError: the broker did not answer, or refused.
    """
    leads: defaultdict[str, list[timedelta]] = defaultdict(list)
    for sequence in range(last, max(0, last - _EVENTS), -1):
        message = await rpc.get_at(connection, subjects.OPERATIONS_STREAM, sequence)
        if message is None or not message.subject.startswith("operations."):
            continue
        try:
            event = decode_event(message.data, message.seq)
        except InvalidEvent:
            continue
        leads[event.source].append(event.time - datetime.fromisoformat(message.time))
    found = {}
    for source, some in leads.items():
        lead = max(some)
        if lead > timedelta(0) or len(some) >= _ENOUGH:
            found[source] = lead
    return found
