"""Fills a journal with whole operations: publishes many events at once, without waiting for each."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import uuid_utils

from bench.harness import broker_state, http_client
from bench.harness.requests import make_request
from bench.throughput.load import BODY
from opstream_journal import Connection
from opstream_schemas import subjects
from opstream_schemas.events import Event, EventData, Started, Succeeded, digest, encode_event
from opstream_schemas.names import Kind

KIND: Final = Kind("bench", "noop")
EVENTS: Final = 3
"""Of each operation: requested, started, succeeded."""

_BATCH: Final = 500
"""Operations whose events are sent between two reads of the stream's state."""
_STALL: Final = 30.0
_POLL: Final = 0.005


class JournalFill(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    nats_url: str
    operations: int


class JournalFillResult(msgspec.Struct, frozen=True):
    """The figures."""

    seconds: float


async def run(fill: JournalFill) -> JournalFillResult:
    """Run the task."""
    async with broker_state.connected(fill.nats_url) as connection:
        began = time.perf_counter()
        stored = (await broker_state.stream_state(connection, subjects.OPERATIONS_STREAM)).messages
        left = fill.operations
        while left:
            count = min(left, _BATCH)
            # Events of several operations are interleaved, as in a system with many clients.
            histories = [_operation_events() for _ in range(count)]
            for number in range(EVENTS):
                for history in histories:
                    await connection.nc.publish(*history[number])
            left -= count
            stored += count * EVENTS
            await _wait_stored(connection, stored)
        return JournalFillResult(time.perf_counter() - began)


def _operation_events() -> list[tuple[str, bytes]]:
    now = datetime.now(UTC)
    operation_id = str(uuid_utils.uuid7())
    datas: tuple[EventData, ...] = (
        make_request(KIND, BODY, now),
        Started(attempt=1, runner="bench-1", token=uuid_utils.uuid4().hex, ticket=1, lease=30.0),
        Succeeded(result=msgspec.Raw(b'{"ok":true}')),
    )
    found = []
    previous = ""
    for number, data in enumerate(datas):
        event = Event(
            id=str(uuid_utils.uuid7()),
            source="opstream/bench",
            operation_id=operation_id,
            time=now + timedelta(milliseconds=number),
            position=number + 1,
            previous_hash=previous,
            data=data,
        )
        payload = encode_event(event)
        previous = digest(payload)
        found.append((subjects.event_subject(operation_id, KIND, data.name), payload))
    return found


async def _wait_stored(connection: Connection, messages: int) -> None:
    until = time.monotonic() + _STALL
    while (await broker_state.stream_state(connection, subjects.OPERATIONS_STREAM)).messages < messages:
        if time.monotonic() > until:
            raise http_client.LoadFailed(f"the broker did not store {messages:,} messages")
        await asyncio.sleep(_POLL)


if __name__ == "__main__":
    http_client.run_task(run, JournalFill)
