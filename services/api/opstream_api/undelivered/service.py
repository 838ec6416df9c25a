"""Starts what one process needs for what did not reach others, on a connection that is up."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import NamedTuple

from opstream_api.access.denials.access_recorder import AccessRecorder
from opstream_journal import Connection
from opstream_journal.stores.webhook_deliveries import DeliveryRecords

from .dead_letter_desk import DeadLetterDesk
from .delivery_desk import DeliveryDesk


class Undelivered(NamedTuple):
    """What one process has for what did not reach others."""

    deliveries: DeliveryDesk
    dead_letters: DeadLetterDesk


async def open_undelivered(
    stack: AsyncExitStack, connection: Connection, recorder: AccessRecorder | None
) -> Undelivered:
    """Return the desks; what they need is started, and ends with the stack.

    Args:
        stack: ends what was started.
        connection: the connection.
        recorder: gets each act; None for no record.
    """
    records = DeliveryRecords(connection)
    await records.start()
    stack.push_async_callback(records.stop)
    return Undelivered(DeliveryDesk(records, recorder), DeadLetterDesk(connection, recorder))
