"""Writes events to a real journal."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Final

from opstream_journal import NEW_OPERATION, Connection, ExpectedVersion, Journal, VersionConflict, connect
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas.events import Event, EventData, Progressed, RecordedEvent, Requested
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import first_event, fold_for_reader, next_event
from opstream_schemas.operation.state import Operation
from tests.support.schemas.histories import request

KIND: Final = Kind("book", "upload-start")

_numbers = itertools.count(1)


def first(operation_id: str, *, event_id: str = "", data: Requested | None = None) -> Event:
    """The first event of an operation; with a new event id by default."""
    return first_event(operation_id, data or request(), id=event_id or _new_id(), source="test", time=_now())


def following(operation: Operation, data: EventData, *, event_id: str = "") -> Event:
    """The next event of an operation."""
    return next_event(operation, data, id=event_id or _new_id(), source="test", time=_now())


@contextlib.asynccontextmanager
async def linked(*servers: str) -> AsyncIterator[Connection]:
    """A separate connection; logs its loss."""
    link = await connect(servers, "further", connect_timeout=10, on_lost=logging.getLogger(__name__).error)
    try:
        yield link
    finally:
        await link.close()


async def opened(link: Connection, *, max_msg_size: int = Sizing().max_msg_size) -> Journal:
    """A journal on a connection."""
    journal = Journal(link, max_msg_size=max_msg_size, clock=time.monotonic)
    await journal.start()
    return journal


async def begin(journal: Journal, operation_id: str) -> Operation:
    """Store the first event."""
    return folded(None, await journal.append(KIND, first(operation_id), NEW_OPERATION, budget=10))


async def extend(journal: Journal, operation: Operation, *datas: EventData) -> Operation:
    """Store more events, one after another."""
    for data in datas:
        event = await journal.append(
            KIND, following(operation, data), ExpectedVersion(operation.stream_sequence), budget=10
        )
        operation = folded(operation, event)
    return operation


def folded(operation: Operation | None, *events: RecordedEvent) -> Operation:
    """The operation after the events."""
    result = fold_for_reader(operation, events)
    assert result is not None
    return result


def _new_id() -> str:
    return f"event-{next(_numbers)}"


def _now() -> datetime:
    return datetime.now(UTC)


async def race(journals: Sequence[Journal], operation: Operation, *, writers: int, rounds: int) -> Operation:
    """Let writers extend the same state at the same time, in several rounds; return the last state.

    Raises:
        AssertionError: in some round not exactly one writer won, or a loser's error had another expected version.
    """
    for number in range(rounds):
        expected = ExpectedVersion(operation.stream_sequence)
        answers = await asyncio.gather(
            *(
                journals[n % len(journals)].append(
                    KIND, following(operation, Progressed(percent=n)), expected, budget=10
                )
                for n in range(writers)
            ),
            return_exceptions=True,
        )
        winners = [answer for answer in answers if not isinstance(answer, BaseException)]
        losers = [answer.expected for answer in answers if isinstance(answer, VersionConflict)]
        assert (len(winners), losers) == (1, [expected] * (writers - 1)), number
        operation = folded(operation, *winners)
    return operation
