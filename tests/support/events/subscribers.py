"""Subscribers in tests: operations that end at once, and handlers that keep their events.

await ended(journal, "op-1", Succeeded(result=RESULT))
async with running(events_broker(broker)) as events:
    @subscribe(events, "book:*", durable="mailer")
    ...
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from opstream.events import Event, EventsBroker
from opstream_journal import NEW_OPERATION, Connection, ExpectedVersion, Journal
from opstream_journal.jetstream import rpc
from opstream_schemas.events import EventData, Failed, OperationError, Started, Succeeded
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, first, folded, following
from tests.support.schemas.histories import request

STARTED: Final = Started(attempt=1, runner="runner-1", token="token", ticket=1, lease=30.0)
SUCCEEDED: Final = Succeeded(result=msgspec.Raw(b'{"pages":7}'))
FAILED: Final = Failed(error=OperationError(code="OutOfPaper", message="there is no paper"))


class KeptEvents:
    """The events that handlers got."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Condition()

    @property
    def ids(self) -> list[str]:
        """The operation ids, in the order of delivery."""
        return [one.operation_id for one in self.events]

    async def keep(self, event: Event) -> None:
        """Keep an event; a handler calls this."""
        async with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    async def reach(self, count: int, within: float = 15.0) -> list[Event]:
        """Wait until there are `count` events, and return them."""
        try:
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(lambda: len(self.events) >= count)
        except TimeoutError:
            raise AssertionError(f"{len(self.events)} events, not {count}: {self.events}") from None
        return self.events


def events_broker(broker: Broker, **options: Any) -> EventsBroker:
    """An EventsBroker that logs the loss of its connection and waits the whole of each backoff."""
    given = {"logger": None, "on_lost": logging.getLogger(__name__).error, "jitter": lambda: 1.0, **options}
    return EventsBroker(broker.url, **given)


@contextlib.asynccontextmanager
async def running(events: EventsBroker) -> AsyncIterator[EventsBroker]:
    """Start the broker, and stop it at the end."""
    await events.start()
    try:
        yield events
    finally:
        await events.stop()


async def opened(journal: Journal, operation_id: str, kind: Kind = KIND, resource_id: str = "42") -> Operation:
    """Record an operation that runs."""
    data = msgspec.structs.replace(request(), resource=kind.resource, action=kind.action, resource_id=resource_id)
    recorded = await journal.append(kind, first(operation_id, data=data), NEW_OPERATION, budget=10)
    return await more(journal, folded(None, recorded), STARTED, kind)


async def more(journal: Journal, operation: Operation, data: EventData, kind: Kind = KIND) -> Operation:
    """Record one more event; return the operation after it."""
    event = following(operation, data)
    return folded(operation, await journal.append(kind, event, ExpectedVersion(operation.stream_sequence), budget=10))


async def ended(journal: Journal, operation_id: str, data: EventData = SUCCEEDED, kind: Kind = KIND) -> Operation:
    """Record an operation that has ended."""
    return await more(journal, await opened(journal, operation_id, kind), data, kind)


async def inject(link: Connection, subject: str, payload: bytes) -> int:
    """Store bytes that are no event in the journal; return their stream sequence."""
    return await rpc.publish(link, subject, payload, {"Content-Type": "text/plain"})


async def consumer_info(link: Connection, durable: str) -> dict[str, Any]:
    """The state of a durable."""
    answer = await rpc.call(link, f"$JS.API.CONSUMER.INFO.OPERATIONS.{durable}")
    return msgspec.json.decode(answer.data)


async def unsettled(link: Connection, durable: str) -> int:
    """Number of a durable's events that are not delivered or not settled."""
    info = await consumer_info(link, durable)
    return int(info["num_pending"]) + int(info["num_ack_pending"])


async def delete_consumer(link: Connection, durable: str) -> None:
    """Delete a durable, as an operator might."""
    await rpc.call(link, f"$JS.API.CONSUMER.DELETE.OPERATIONS.{durable}")
