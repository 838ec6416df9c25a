"""Reads the journal and its archive: every selected event once, in order, and reports the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from nats.js.client import JetStreamContext

from opstream.history.event_reader import EventReader, HistoryQuery, StoredEvent
from opstream.terminal.console import CommandError
from opstream_journal import Connection, Journal, NotProvisioned
from opstream_journal.jetstream.scans.stream_scan import stream_bounds
from opstream_journal.provisioning.archive import ArchiveSizing
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.timers import schedule_wake_up
from opstream_schemas.event_filter import EventFilter, EventTypeFilter
from opstream_schemas.events import RecordedEvent
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.journal.populated_journal import KINDS, populate
from tests.support.schemas.histories import History, request
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

NOW = datetime(2026, 3, 14, tzinfo=UTC)


class Reading:
    """An event reader, and what it has read and reported."""

    def __init__(self, connection: Connection, query: HistoryQuery) -> None:
        self.reported: list[str] = []
        self.reader = EventReader(connection, query, self.reported.append)
        self.found: list[StoredEvent] = []

    @property
    def sequences(self) -> list[int]:
        """The sequences of the events, in order."""
        return [one.message.sequence for one in self.found]

    async def run(self) -> Reading:
        """Read to the end."""
        async for batch in self.reader.batches():
            self.found += batch
        return self


async def read(link: Connection, **query: object) -> Reading:
    """Read to the end."""
    return await Reading(link, HistoryQuery(**query)).run()  # type: ignore[arg-type]


@pytest.fixture
async def events(link: Connection, journal: Journal) -> list[RecordedEvent]:
    """Twelve operations, with timers between them that have fired."""
    events = await populate(journal, 6)
    past = datetime.now(UTC) - timedelta(seconds=5)
    for number in range(3):
        await schedule_wake_up(link, KINDS[0], f"op-{number}", "retry", at=past, armed_by=1)
    js = link.nc.jetstream()

    async def has_fired() -> bool:
        return (await js.stream_info("OPERATIONS")).state.messages == len(events) + 3

    await eventually(has_fired, within=10)
    return events + await populate(journal, 6, begin=6)


async def test_the_whole(link: Connection, events: list[RecordedEvent]) -> None:
    """It reads every event once, in order, byte for byte, and skips timers without reporting them."""
    whole = await read(link)
    assert [(one.message.sequence, one.message.data) for one in whole.found] == [
        (event.sequence, event.stored) for event in events
    ]
    assert (whole.reader.problem, whole.reported, whole.reader.next_sequence) == ("", [], len(events) + 4)


@pytest.mark.parametrize(
    "selection", [EventFilter(), EventFilter(resource="book"), EventFilter(types=(EventTypeFilter("failed"),))]
)
async def test_resuming_at_any_point(link: Connection, events: list[RecordedEvent], selection: EventFilter) -> None:
    """The events before a sequence and those from it on are together all events: none is lost or read twice."""
    whole = (await read(link, event_filter=selection)).sequences
    assert whole
    for first in range(1, events[-1].sequence + 2):
        rest = await read(link, event_filter=selection, first=first)
        assert [one for one in whole if one < first] + rest.sequences == whole
        assert (rest.reader.problem, rest.reader.next_sequence) == ("", events[-1].sequence + 1)


async def test_a_time_divides_the_events(link: Connection, events: list[RecordedEvent]) -> None:
    """The events stored before a time and those stored since are together all events, and the second part is what
    follows after the end of the first."""
    whole = await read(link)
    for one in whole.found[::4]:
        at = one.message.stored_at
        before, since = await read(link, until=at), await read(link, since=at)
        assert before.sequences + since.sequences == whole.sequences
        assert (before.reader.problem, since.reader.problem) == ("", "")
        rest = await read(link, first=before.reader.next_sequence)
        assert rest.sequences == since.sequences


@pytest.mark.parametrize(
    "selection",
    [
        EventFilter(operation_id="op-3"),
        EventFilter(operation_id="unknown"),
        EventFilter(resource="book"),
        EventFilter(resource="book", action="upload-finish"),
        EventFilter(action="import"),
        EventFilter(types=(EventTypeFilter("succeeded"), EventTypeFilter("failed"))),
        EventFilter(types=(EventTypeFilter.parse("opstream.action.failed.v1"), EventTypeFilter("canceled"))),
        EventFilter(types=(EventTypeFilter.parse("opstream.action.failed.v2"),)),
        EventFilter(operation_id="op-1", resource="book", types=(EventTypeFilter("started"),)),
    ],
)
async def test_filters(link: Connection, events: list[RecordedEvent], selection: EventFilter) -> None:
    """The broker's filters select the same events as a comparison of each."""

    def is_wanted(event: RecordedEvent) -> bool:
        kind, name = KINDS[int(event.operation_id[3:]) % 3], event.type.split(".")[2]
        return (
            selection.operation_id in {"", event.operation_id}
            and selection.resource in {"*", kind.resource}
            and selection.action in {"*", kind.action}
            and (
                not selection.types
                or any(name == one.name and one.full_type in {"", event.type} for one in selection.types)
            )
        )

    found = await read(link, event_filter=selection)
    assert found.sequences == [event.sequence for event in events if is_wanted(event)]


@pytest.fixture
async def bare(broker: Broker) -> AsyncIterator[tuple[Connection, JetStreamContext]]:
    """A broker whose streams accept any message and allow deletes, unlike ours."""
    async with linked(broker.url) as link:
        js = link.nc.jetstream()
        await js.add_stream(name="OPERATIONS", subjects=["operations.>", "wake.>"])
        await js.add_stream(name="ARCHIVE", subjects=["archive.>"])
        yield link, js


def payloads() -> list[bytes]:
    """The requests of five operations."""
    return [History(f"op-{number}").append(request()).payloads[0] for number in range(5)]


async def test_messages_that_are_not_events(bare: tuple[Connection, JetStreamContext]) -> None:
    """Corrupt and foreign messages are skipped, reported with their sequence, and counted. An event of a newer version
    is neither."""
    link, js = bare
    (event, *_) = payloads()
    newer = event.replace(b"requested.v1", b"requested.v2").replace(b'"data":{', b'"data":[1],"x":{')
    subject = "operations.op-0.book.upload-start.requested"
    for payload in (event, b"garbage", event[:-5], newer):
        await js.publish(subject, payload)
    await js.publish("operations.op-9.book.upload-start.requested", event)
    found = await read(link)
    assert [one.message.data for one in found.found] == [event, newer]
    assert [line.partition(":")[0].split(" is ")[0] for line in found.reported] == [
        "sequence 2",
        "sequence 3",
        "sequence 5",
    ]
    assert found.reader.problem == "3 messages skipped (not an event)"


async def test_only_some_problems_are_reported(bare: tuple[Connection, JetStreamContext]) -> None:
    """A stream full of garbage gives a limited number of reports; all messages are counted."""
    link, js = bare
    for _ in range(50):
        await js.publish("operations.op-0.book.upload-start.failed", b"garbage")
    found = await read(link)
    assert len(found.reported) == 21
    assert found.reader.problem == "50 messages skipped (not an event)"


async def test_missing_sequences(bare: tuple[Connection, JetStreamContext]) -> None:
    """A gap after a message is reported, also at the end. Messages before the first one have expired, which is reported
    only to a reader that begins with them."""
    link, js = bare
    for number, payload in enumerate(payloads()):
        await js.publish(f"operations.op-{number}.book.upload-start.requested", payload)
    for sequence in (1, 3, 5):
        await js.delete_msg("OPERATIONS", sequence)
    whole = await read(link)
    assert whole.sequences == [2, 4]
    assert whole.reported == [f"sequence {number} is missing: expired, deleted or lost" for number in (3, 5)]
    assert (whole.reader.problem, whole.reader.next_sequence) == ("2 sequences missing (expired, deleted or lost)", 6)
    from_one = await read(link, first=1)
    assert (from_one.sequences, from_one.reader.missing) == ([2, 4], 3)
    filtered = await read(link, event_filter=EventFilter(resource="book"))
    assert (filtered.sequences, filtered.reader.problem) == ([2, 4], ""), "gaps are not known with a filter"


async def test_a_sequence_after_the_end(bare: tuple[Connection, JetStreamContext]) -> None:
    """A reader that continues after the end has the wrong stream; exactly at the end there are no events yet."""
    link, js = bare
    await js.publish("operations.op-0.book.upload-start.requested", payloads()[0])
    assert (await read(link, first=2)).sequences == []
    with pytest.raises(CommandError, match="OPERATIONS ends at sequence 1, so it can't continue with 3"):
        await read(link, first=3)


async def test_the_archive(bare: tuple[Connection, JetStreamContext]) -> None:
    """It is read as the journal is, although its subjects don't name operations."""
    link, js = bare
    stored = payloads()
    for payload in stored:
        await js.publish("archive.book.upload-start.requested", payload)
    assert [one.message.data for one in (await read(link, is_archive=True)).found] == stored
    one = await read(link, is_archive=True, event_filter=EventFilter(operation_id="op-3", resource="book"))
    assert [found.envelope.subject for found in one.found] == ["op-3"]
    assert (await read(link, is_archive=True, event_filter=EventFilter(action="import"))).sequences == []


async def test_an_archive_of_the_journal(link: Connection, events: list[RecordedEvent]) -> None:
    """The broker's copies are the same bytes in the same order, with any filter."""
    await provision(link, Sizing(), archive=ArchiveSizing())

    async def is_copied() -> bool:
        return (await stream_bounds(link, "ARCHIVE")).messages == len(events)

    await eventually(is_copied, within=20)
    for selection in (
        EventFilter(),
        EventFilter(operation_id="op-4"),
        EventFilter(resource="book", action="upload-start"),
    ):
        journal = await read(link, event_filter=selection)
        archive = await read(link, event_filter=selection, is_archive=True)
        assert [one.message.data for one in archive.found] == [one.message.data for one in journal.found]
        assert archive.reader.problem == ""


async def test_no_stream(broker: Broker) -> None:
    """Without a stream, the error says what to do."""
    async with linked(broker.url) as link:
        with pytest.raises(NotProvisioned, match="run 'opstream provision'"):
            await read(link)
        with pytest.raises(CommandError, match="'opstream provision --archive' makes one"):
            await read(link, is_archive=True)


async def test_following_through_a_kill(broker: Broker, link: Connection, journal: Journal) -> None:
    """A reader that follows gets new events, also after the broker was killed, without loss or repetition."""
    expected = await populate(journal, 3)
    reading = Reading(link, HistoryQuery(is_following=True))
    task = asyncio.create_task(reading.run())
    await eventually(lambda: len(reading.found) == len(expected))
    for round_number in (1, 2):
        broker.kill()
        broker.start()
        expected += await populate(journal, 3, begin=3 * round_number)
        last = expected[-1].sequence
        await eventually(lambda last=last: last in reading.sequences, within=20)
    assert reading.sequences == [event.sequence for event in expected]
    assert reading.reader.problem == ""
    task.cancel()
    await asyncio.wait([task])
