"""Group commit on a real broker: what shares a batch, and what becomes of it when something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Final

import pytest

from opstream_journal import (
    NEW_OPERATION,
    BrokerRefused,
    Connection,
    ExpectedVersion,
    Journal,
    JournalUnavailable,
    VersionConflict,
)
from opstream_journal.jetstream.batch_publish import AtomicBatch, BatchMessage
from opstream_journal.jetstream.scans.stream_scan import stream_bounds
from opstream_journal.provisioning.provision import check_provisioned, provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.events import Event, RecordedEvent
from tests.support.broker.proxy import Proxy
from tests.support.broker.server import Broker, Cluster
from tests.support.journal.journals import KIND, begin, first, following, linked, opened
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

MANY: Final = 200


@pytest.fixture
async def measured(journal: Journal) -> Journal:
    """A journal that knows how long the broker takes for a single event."""
    for number in range(5):
        await begin(journal, f"measured-{number}")
    return journal


async def stored(link: Connection) -> list[tuple[str, str, str]]:
    """The operation, event id and batch id (empty for an event by itself) of each event, in stream order."""
    js, found = link.nc.jetstream(), []
    for sequence in range(1, (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last + 1):
        message = await js.get_msg(subjects.OPERATIONS_STREAM, sequence)
        headers = message.headers or {}
        found.append((str(message.subject).split(".")[1], headers["Nats-Msg-Id"], headers.get("Nats-Batch-Id", "")))
    return found


async def has_grown_to(link: Connection, size: int) -> bool:
    """Return True if that many events are stored."""
    with contextlib.suppress(JournalUnavailable):
        return (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last >= size
    return False


async def append_all(
    journal: Journal, events: Sequence[Event], *, budget: float = 20.0
) -> list[RecordedEvent | BaseException]:
    """Append the first events of many operations at the same time."""
    appends = (journal.append(KIND, event, NEW_OPERATION, budget=budget) for event in events)
    return await asyncio.gather(*appends, return_exceptions=True)


async def test_appends_that_come_together_share_batches(measured: Journal, link: Connection) -> None:
    """Of many appends at the same time most are stored in batches; each caller gets its own event's sequence."""
    events = [first(f"op-{number}") for number in range(MANY)]
    recorded = await append_all(measured, events)
    found = await stored(link)
    for event, one in zip(events, recorded, strict=True):
        assert isinstance(one, RecordedEvent)
        assert found[one.sequence - 1][:2] == (event.operation_id, event.id)
    sizes = Counter(batch for _, _, batch in found if batch)
    assert sum(sizes.values()) > MANY / 2
    assert await measured.events("op-7") == [recorded[7]]


async def test_an_append_alone_has_no_batch(measured: Journal, link: Connection) -> None:
    """Appends one after the other are stored as they were before there were batches."""
    operation = await begin(measured, "op-1")
    await measured.append(KIND, following(operation, started()), ExpectedVersion(operation.stream_sequence), budget=5)
    assert {batch for _, _, batch in await stored(link)} == {""}


async def test_a_conflicting_member(measured: Journal, link: Connection) -> None:
    """Members whose operations exist already get their conflict, and the others of their batch are stored."""
    taken = {"op-90", "op-150"}
    for operation_id in taken:
        await begin(measured, operation_id)
    results = await append_all(measured, [first(f"op-{number}") for number in range(MANY)])
    conflicts = {f"op-{number}" for number, one in enumerate(results) if isinstance(one, VersionConflict)}
    assert conflicts == taken
    assert sum(isinstance(one, RecordedEvent) for one in results) == MANY - len(taken)
    assert max(Counter(operation for operation, _, _ in await stored(link)).values()) == 1


async def test_two_processes_batch_the_same_operations(measured: Journal, broker: Broker, link: Connection) -> None:
    """Of two processes that begin the same operations at the same time, one wins each of them."""
    async with linked(broker.url) as other_link:
        other = await opened(other_link)
        await begin(other, "measured-other")
        events = [[first(f"op-{number}") for number in range(MANY)] for _ in range(2)]
        one, two = await asyncio.gather(append_all(measured, events[0]), append_all(other, events[1]))
    winners = [
        isinstance(left, RecordedEvent) + isinstance(right, RecordedEvent) for left, right in zip(one, two, strict=True)
    ]
    assert winners == [1] * MANY
    assert max(Counter(operation for operation, _, _ in await stored(link)).values()) == 1


async def test_two_events_of_one_operation_at_the_same_time(measured: Journal, link: Connection) -> None:
    """Several events that expect the same version never share a batch, in which all of them would be stored."""
    operations = [await begin(measured, f"op-{number}") for number in range(MANY // 2)]
    appends = [
        measured.append(KIND, following(one, started()), ExpectedVersion(one.stream_sequence), budget=20)
        for one in operations
        for _ in range(3)
    ]
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert sum(isinstance(one, RecordedEvent) for one in results) == len(operations)
    assert sum(isinstance(one, VersionConflict) for one in results) == 2 * len(operations)
    assert set(Counter(one for one, _, _ in await stored(link) if one.startswith("op-")).values()) == {2}


async def test_lost_answers(broker: Broker, link: Connection) -> None:
    """A batch whose answer is lost is found in the journal: each event is stored once, and each caller knows."""
    async with Proxy(broker.port) as proxy, linked(proxy.url) as far:
        journal = await opened(far)
        await begin(journal, "measured")
        events = [first(f"op-{number}") for number in range(MANY)]
        proxy.mute()
        appends = asyncio.create_task(append_all(journal, events))
        await eventually(functools.partial(has_grown_to, link, 10))  # by events whose answers are lost
        proxy.unmute()
        proxy.cut()
        results = await appends
    assert all(isinstance(one, RecordedEvent) for one in results), results
    assert max(Counter(event_id for _, event_id, _ in await stored(link)).values()) == 1


async def test_a_broker_that_is_killed_between(broker: Broker, measured: Journal, link: Connection) -> None:
    """After a kill in the middle of batches, what was acknowledged is there, and nothing is there twice."""
    acknowledged: list[Event] = []
    is_over = asyncio.Event()

    async def write(writer: int) -> None:
        for number in itertools.count():
            event = first(f"op-{writer}-{number}")
            await measured.append(KIND, event, NEW_OPERATION, budget=30)
            acknowledged.append(event)
            if is_over.is_set():
                return

    writers = asyncio.gather(*(write(writer) for writer in range(MANY)))
    for _ in range(2):
        before = len(acknowledged)
        await eventually(lambda before=before: len(acknowledged) > before + MANY)
        broker.kill()
        broker.start()
    is_over.set()
    await writers  # each writer's last event is stored after the last kill
    found = await stored(link)
    assert {event.id for event in acknowledged} <= {event_id for _, event_id, _ in found}
    assert max(Counter(operation for operation, _, _ in found).values()) == 1


async def test_cancelled_appends_leave_nothing_behind(broker: Broker, measured: Journal, link: Connection) -> None:
    """What is cancelled while others are being stored is not stored later; the others are."""
    broker.pause()
    tasks = [
        asyncio.create_task(measured.append(KIND, first(f"op-{number}"), NEW_OPERATION, budget=20))
        for number in range(2 * MANY)
    ]
    await asyncio.sleep(0)  # they run until they wait
    for task in tasks[MANY:]:
        task.cancel()
    await asyncio.gather(*tasks[MANY:], return_exceptions=True)
    broker.resume()
    assert all(isinstance(one, RecordedEvent) for one in await asyncio.gather(*tasks[:MANY], return_exceptions=True))
    found = {operation for operation, _, _ in await stored(link)}
    assert found.isdisjoint(f"op-{number}" for number in range(MANY, 2 * MANY))


async def test_the_next_batch_begins_early(measured: Journal, link: Connection) -> None:
    """Under load the first event of a batch is on its way before the others; each batch is whole, each event once."""
    numbers = itertools.count()

    async def write() -> None:
        for _ in range(6):
            await measured.append(KIND, first(f"op-{next(numbers)}"), NEW_OPERATION, budget=20)

    await asyncio.gather(*(write() for _ in range(40)))
    found = [(operation, batch) for operation, _, batch in await stored(link) if operation.startswith("op-")]
    assert sorted(operation for operation, _ in found) == sorted(f"op-{number}" for number in range(240))
    runs = [batch for batch, _ in itertools.groupby(batch for _, batch in found if batch)]
    assert len(runs) == len(set(runs)), "the members of a batch are stored together"


@pytest.fixture
def begun(broker: Broker, link: Connection) -> AtomicBatch:
    """A batch of which the broker has the first message."""
    return AtomicBatch(link, batch_message(1))


def batch_message(number: int) -> BatchMessage:
    """A message that the journal's stream takes."""
    return BatchMessage(f"operations.op-{number}.book.upload.requested", b"{}", {"Nats-Msg-Id": f"id-{number}"})


@pytest.mark.usefixtures("measured")
async def test_a_begun_batch_is_stored_at_its_end(begun: AtomicBatch, link: Connection) -> None:
    """Nothing of it is stored before, and all of it then."""
    before = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last
    assert await begun.store([batch_message(2), batch_message(3)]) == range(before + 1, before + 4)
    assert [event_id for _, event_id, _ in (await stored(link))[before:]] == ["id-1", "id-2", "id-3"]


@pytest.mark.usefixtures("measured")
async def test_a_begun_batch_of_one(begun: AtomicBatch, link: Connection) -> None:
    """The end of a batch that has no other message is none itself."""
    before = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last
    assert await begun.store([]) == range(before + 1, before + 2)
    assert (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last == before + 1


@pytest.mark.usefixtures("measured")
async def test_a_begun_batch_that_the_broker_has_forgotten(
    begun: AtomicBatch, broker: Broker, link: Connection
) -> None:
    """A restart forgets what has begun: the end is refused, and nothing is stored."""
    before = (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last
    broker.kill()
    broker.start()
    await eventually(functools.partial(has_grown_to, link, before))
    for rest in ([batch_message(2)], []):
        with pytest.raises(BrokerRefused):
            await begun.store(rest)
    assert (await stream_bounds(link, subjects.OPERATIONS_STREAM)).last == before


async def test_a_stream_that_allows_no_batches(
    measured: Journal, link: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Services of this version work on a journal of an older one, one event at a time, and say what to do about it."""
    js = link.nc.jetstream()
    config = (await js.stream_info(subjects.OPERATIONS_STREAM)).config
    config.allow_atomic = False
    await js.update_stream(config)
    assert await check_provisioned(link) == Sizing().max_msg_size
    with caplog.at_level(logging.WARNING):
        results = await append_all(measured, [first(f"op-{number}") for number in range(MANY)])
    assert all(isinstance(one, RecordedEvent) for one in results)
    assert caplog.text.count("run 'opstream provision --update'") == 1
    report = await provision(link, Sizing(), is_update=True)
    assert report.updated == ("stream OPERATIONS: allow_atomic is False, should be True",)


async def test_a_broker_that_is_away(broker: Broker, measured: Journal) -> None:
    """Without a broker each caller gets the error of an append, in time, and no event is stored later."""
    broker.kill()
    results = await append_all(measured, [first(f"op-{number}") for number in range(MANY)], budget=0.2)
    assert all(isinstance(one, JournalUnavailable) for one in results)


@pytest.fixture
async def cluster_journals(cluster: Cluster, cluster_link: Connection) -> AsyncIterator[list[Journal]]:
    """A journal on each of three servers, measured."""
    async with linked(cluster.urls[0]) as one, linked(cluster.urls[1]) as two, linked(cluster.urls[2]) as three:
        journals = [await opened(link) for link in (one, two, three)]
        for number, journal in enumerate(journals):
            await begin(journal, f"measured-{number}")
        yield journals


async def test_a_change_of_the_leader(
    cluster: Cluster, cluster_link: Connection, cluster_journals: list[Journal]
) -> None:
    """While the leader of three replicas changes, three processes batch the same operations: one wins each."""
    leader = await cluster.leader(subjects.OPERATIONS_STREAM)
    events = [[first(f"op-{number}") for number in range(MANY)] for _ in cluster_journals]
    tasks = [
        asyncio.create_task(append_all(journal, mine, budget=60))
        for journal, mine in zip(cluster_journals, events, strict=True)
    ]
    await cluster_link.nc.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{subjects.OPERATIONS_STREAM}", b"", timeout=5)
    results = await asyncio.gather(*tasks)
    assert await cluster.leader(subjects.OPERATIONS_STREAM) is not leader
    assert [sum(isinstance(one, RecordedEvent) for one in row) for row in zip(*results, strict=True)] == [1] * MANY
    assert max(Counter(operation for operation, _, _ in await stored(cluster_link)).values()) == 1
