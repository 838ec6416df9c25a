"""Fills a journal with operations of several actions with several ends.

await populate(journal, 12)
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opstream_journal import NEW_OPERATION, ExpectedVersion, Journal
from opstream_schemas.events import (
    Canceled,
    CancelRequested,
    EventData,
    Failed,
    Progressed,
    RecordedEvent,
    Requested,
    Succeeded,
)
from opstream_schemas.names import Kind
from tests.support.journal.journals import first, folded, following
from tests.support.schemas.histories import FAILURE, handed_back, request, started

KINDS: Final = (Kind("book", "upload-start"), Kind("book", "upload-finish"), Kind("author", "import"))
HISTORIES: Final[tuple[tuple[EventData, ...], ...]] = (
    (
        started(),
        Progressed(percent=12.5, message="a \u201cquote\u201d"),
        Succeeded(result=msgspec.Raw(b'{"a": [1, 2]}')),
    ),
    (started(), handed_back(counted=True), started(2), Failed(error=FAILURE)),
    (started(), CancelRequested(by="bob", reason="late"), Canceled(by="bob", reason="late")),
    (started(),),
)


async def record(
    journal: Journal, operation_id: str, kind: Kind, *datas: EventData, **asked: Any
) -> list[RecordedEvent]:
    """Store an operation: its request, with members as given, and further events."""
    data: Requested = request(resource=kind.resource, action=kind.action, **asked)
    events = [await journal.append(kind, first(operation_id, data=data), NEW_OPERATION, budget=10)]
    for each in datas:
        operation = folded(None, *events)
        expected = ExpectedVersion(operation.stream_sequence)
        events.append(await journal.append(kind, following(operation, each), expected, budget=10))
    return events


async def populate(journal: Journal, count: int, *, begin: int = 0) -> list[RecordedEvent]:
    """Store operations `op-{begin}` and so on, of each kind and history in turn; return all events in stream order."""
    events: list[RecordedEvent] = []
    for number in range(begin, begin + count):
        identity = {"caller": "ann", "client_id": "shop", "client_address": "192.0.2.7"} if number % 2 else {}
        kind, history = KINDS[number % len(KINDS)], HISTORIES[number % len(HISTORIES)]
        events += await record(journal, f"op-{number}", kind, *history, **identity)
    return events
