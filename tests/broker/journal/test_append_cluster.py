"""The journal on three nodes: appends and reads while replicas race, hang and die."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from opstream_journal import (
    NEW_OPERATION,
    ActionCatalog,
    BrokerRefused,
    Connection,
    ExpectedVersion,
    Journal,
    JournalUnavailable,
    SnapshotStore,
    VersionConflict,
    announce_action,
    retry_until_ready,
)
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.provisioning.provision import check_provisioned
from opstream_journal.provisioning.topology import Sizing
from opstream_journal.stores.action_catalog import find_action
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.events import Canceled, Event, Progressed, RecordedEvent, encode_event
from opstream_schemas.operation.state import Operation
from tests.support.broker.provisioning import provision_started
from tests.support.broker.server import Cluster
from tests.support.journal.journals import KIND, begin, extend, first, folded, following, linked, opened, race
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

STREAM = subjects.OPERATIONS_STREAM


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Three brokers for all tests here; each test leaves them healthy."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
async def cluster(nodes: Cluster) -> AsyncIterator[Cluster]:
    """The cluster, provisioned; afterwards all nodes run again."""
    async with linked(*nodes.urls) as link:
        # The test before has had its servers elect leaders; while one is missing, this is refused.
        await provision_started(link, Sizing(replicas=3), 30)
    yield nodes
    for node in nodes.nodes:
        if node.is_paused:
            node.resume()
        if not node.is_running:
            node.start(wait=False)
    await asyncio.to_thread(nodes.wait_healthy)


@pytest.fixture
async def link(cluster: Cluster) -> AsyncIterator[Connection]:
    """A connection to the node that leads the journal."""
    async with linked((await cluster.leader(STREAM)).url) as link:
        yield link


@pytest.fixture
async def journal(link: Connection) -> Journal:
    return await opened(link)


@pytest.fixture
def op() -> str:
    """An operation id that no other test has used."""
    return f"op-{random.getrandbits(64):x}"


async def stored_events(journal: Journal, operation_id: str) -> list[RecordedEvent]:
    """All events of an operation. A read is refused while there is no leader, and a slow machine may elect one at any
    time."""
    while True:
        try:
            return await journal.events(operation_id)
        except JournalUnavailable:
            await asyncio.sleep(0.05)  # without a connection that comes at once, and nothing else would run


async def stored_ids(journal: Journal, operation_id: str) -> list[str]:
    return [event.id for event in await stored_events(journal, operation_id)]


async def publish_raw(link: Connection, event: Event, expected: int) -> int:
    """The err_code with which the broker refuses one bare publish; 0 if it takes it."""
    headers = {
        "Nats-Msg-Id": event.id,
        "Nats-Expected-Last-Subject-Sequence": str(expected),
        "Nats-Expected-Last-Subject-Sequence-Subject": subjects.operation_filter(event.operation_id),
    }
    subject = subjects.event_subject(event.operation_id, KIND, event.data.name)
    try:
        await rpc.publish(link, subject, encode_event(event), headers, timeout=0.3)
    except BrokerRefused as refused:
        return refused.err_code
    return 0


async def test_the_broker_has_what_services_need(link: Connection) -> None:
    """What `provision` makes in three replicas passes the check of every service."""
    assert await check_provisioned(link) == Sizing().max_msg_size


async def test_the_same_bytes_again_are_a_duplicate(journal: Journal, op: str) -> None:
    """A retry of a stored event is answered as a duplicate by a replicated stream, and stored once."""
    event = first(op)
    once = await journal.append(KIND, event, NEW_OPERATION, budget=10)
    again = await journal.append(KIND, event, NEW_OPERATION, budget=10)
    assert (again, await stored_ids(journal, op)) == (once, [event.id])


async def test_a_conflict_says_both_versions(journal: Journal, op: str) -> None:
    """An append to a state that is not the last raises with both versions."""
    operation = await begin(journal, op)
    newer = await extend(journal, operation, started())
    with pytest.raises(VersionConflict) as conflict:
        await journal.append(
            KIND, following(operation, Canceled()), ExpectedVersion(operation.stream_sequence), budget=10
        )
    assert (conflict.value.expected, conflict.value.actual) == (operation.stream_sequence, newer.stream_sequence)


async def test_racing_writers(cluster: Cluster, op: str) -> None:
    """Of eight writers on three nodes that extend the same state, exactly one wins each of fifty rounds."""
    urls = cluster.urls
    async with linked(urls[0]) as one, linked(urls[1]) as two, linked(urls[2]) as three:
        journals = [await opened(link) for link in (one, two, three)]
        operation = await extend(journals[0], await begin(journals[0], op), started())
        operation = await race(journals, operation, writers=8, rounds=50)
        assert folded(None, *await stored_events(journals[1], op)) == operation


async def test_racing_first_events(cluster: Cluster, op: str) -> None:
    """Of six requests under one id through three nodes, one is stored."""
    urls = cluster.urls
    async with linked(urls[0]) as one, linked(urls[1]) as two, linked(urls[2]) as three:
        journals = [await opened(link) for link in (one, two, three)]
        for round_ in range(20):
            answers = await asyncio.gather(
                *(journals[n % 3].append(KIND, first(f"{op}-{round_}"), NEW_OPERATION, budget=10) for n in range(6)),
                return_exceptions=True,
            )
            assert sorted(type(answer).__name__ for answer in answers) == ["RecordedEvent"] + ["VersionConflict"] * 5
            assert len(await stored_events(journals[0], f"{op}-{round_}")) == 1


async def test_in_flight_is_waited_for(cluster: Cluster, link: Connection, journal: Journal, op: str) -> None:
    """While the followers hang, an event is in flight (10158 for itself, 10164 for another): neither stored nor
    refused. Once they are back it is stored once, and the other is in conflict."""
    operation = await begin(journal, op)
    expected = ExpectedVersion(operation.stream_sequence)
    mine, other = following(operation, started()), following(operation, Canceled())
    followers = await cluster.followers(STREAM)
    for follower in followers:
        follower.pause()
    began = time.monotonic()
    with pytest.raises(JournalUnavailable) as unavailable:
        await journal.append(KIND, mine, expected, budget=0.5)
    assert unavailable.value.maybe_stored
    assert time.monotonic() - began < 0.5 + 0.3
    assert [await publish_raw(link, mine, expected), await publish_raw(link, other, expected)] == [10158, 10164]
    retry = asyncio.create_task(journal.append(KIND, mine, expected, budget=20))
    rival = asyncio.create_task(journal.append(KIND, other, expected, budget=20))
    _, pending = await asyncio.wait([retry, rival], timeout=0.5)
    assert pending == {retry, rival}
    for follower in followers:
        follower.resume()
    event = await retry
    with pytest.raises(VersionConflict) as conflict:
        await rival
    assert (conflict.value.expected, conflict.value.actual) == (expected, event.sequence)
    assert (await stored_ids(journal, op))[1:] == [mine.id]


async def test_given_up_while_followers_hang(cluster: Cluster, journal: Journal, op: str) -> None:
    """What a caller gave up while the followers hung is stored at most once, and the operation goes on."""
    operation = await begin(journal, op)
    mine = following(operation, started())
    followers = await cluster.followers(STREAM)
    for follower in followers:
        follower.pause()
    with pytest.raises(JournalUnavailable):
        await journal.append(KIND, mine, ExpectedVersion(operation.stream_sequence), budget=0.3)
    for follower in followers:
        follower.resume()
    operation = folded(None, *await _settled(journal, op))
    operation = await extend(journal, operation, *([] if operation.attempt else [started()]), Progressed(percent=1))
    ids = await stored_ids(journal, op)
    assert (len(ids), ids.count(mine.id)) == (3, ids[1:2].count(mine.id))


async def _settled(journal: Journal, op: str) -> list[RecordedEvent]:
    """Return the events once none of the operation is in flight any more, which a probe without a conflict shows."""
    while True:
        events = await stored_events(journal, op)
        ahead = ExpectedVersion(events[-1].sequence + 10_000_000)
        try:
            await journal.append(KIND, following(folded(None, *events), Canceled()), ahead, budget=10)
        except VersionConflict as conflict:
            if conflict.actual == events[-1].sequence:
                return events


async def test_the_leader_hangs(cluster: Cluster, op: str) -> None:
    """With a leader that is stopped in its tracks, an append ends within its budget, wherever the client is."""
    leader = await cluster.leader(STREAM)
    elsewhere = next(node for node in cluster.nodes if node is not leader)
    async with linked(leader.url) as near, linked(elsewhere.url) as far:
        journals = [await opened(near), await opened(far)]
        leader.pause()
        for journal in journals:
            began = time.monotonic()
            with pytest.raises(JournalUnavailable):
                await journal.append(KIND, first(op), NEW_OPERATION, budget=1)
            assert time.monotonic() - began < 1 + 0.3
        leader.resume()
        event = await journals[1].append(KIND, first(f"{op}-after"), NEW_OPERATION, budget=20)
        assert [one.sequence for one in await stored_events(journals[1], f"{op}-after")] == [event.sequence]


async def test_reads_while_a_follower_hangs(cluster: Cluster, journal: Journal, op: str) -> None:
    """With one replica that answers nothing, every read is complete, from the leader if need be, in bounded time. It is
    refused at worst, for as long as the cluster elects another leader for its bookkeeping, if that was the one."""
    operation = await extend(journal, await begin(journal, op), started())
    for n in range(20):
        operation = await extend(journal, operation, Progressed(percent=n))
    follower = (await cluster.followers(STREAM))[0]
    follower.pause()

    async def read() -> bool:
        began = time.monotonic()
        try:
            assert folded(None, *await journal.events(op)) == operation
        except JournalUnavailable:
            return False
        finally:
            assert time.monotonic() - began < 2.5
        return True

    for _ in range(4):
        await eventually(read, within=20)
    follower.resume()


async def test_reads_right_after_writes(cluster: Cluster, op: str) -> None:
    """A read through any node is complete up to what was acknowledged before, however far that node is behind."""
    leader = await cluster.leader(STREAM)
    followers = await cluster.followers(STREAM)
    async with linked(leader.url) as writer, linked(followers[0].url) as one, linked(followers[1].url) as two:
        journal, readers = await opened(writer), [await opened(one), await opened(two)]
        operation = await extend(journal, await begin(journal, op), started())
        known = operation
        for n in range(100):
            operation = await extend(journal, operation, Progressed(percent=n))
            for reader in readers:
                assert folded(None, *await reader.events(op)) == operation
            if n % 7 == 0:
                assert folded(known, *await readers[0].events(op, since=known)) == operation
                known = operation


async def test_a_replica_that_is_behind(journal: Journal, op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no replica can give yet is read from the leader."""
    states = [await extend(journal, await begin(journal, op), started())]
    for n in range(9):
        states.append(await extend(journal, states[-1], Progressed(percent=n)))
    read = BatchReader.read
    horizon = states[4].stream_sequence

    async def read_behind(self: BatchReader, stream: str, request: dict[str, object], **options: float) -> object:
        return [one for one in await read(self, stream, request, **options) if one.seq <= horizon]

    monkeypatch.setattr(BatchReader, "read", read_behind)
    assert folded(None, *await journal.events(op)) == states[-1]
    assert folded(states[2], *await journal.events(op, since=states[2])) == states[-1]
    assert folded(states[6], *await journal.events(op, since=states[6])) == states[-1]


async def test_the_leader_is_killed_during_appends(cluster: Cluster, op: str) -> None:
    """Every acknowledged event is there exactly once and in order, every other one at most once."""
    written: dict[str, list[str]] = {f"{op}-{n}": [] for n in range(6)}
    given_up: list[str] = []
    is_over = asyncio.Event()

    async def write(journal: Journal, operation_id: str, budget: float) -> None:
        operation: Operation | None = None
        while not is_over.is_set() or operation is None:
            if operation is None:
                event, expected = first(operation_id), NEW_OPERATION
            else:
                data = started() if operation.attempt == 0 else Progressed(percent=operation.position % 100)
                event, expected = following(operation, data), ExpectedVersion(operation.stream_sequence)
            try:
                recorded = await journal.append(KIND, event, expected, budget=budget)
            except (JournalUnavailable, VersionConflict):
                given_up.append(event.id)
                operation = await _reload(journal, operation_id)
                continue
            written[operation_id].append(recorded.id)
            operation = folded(operation, recorded)

    async with linked(*cluster.urls) as one, linked(*cluster.urls) as two:
        journals = [await opened(one), await opened(two)]
        async with asyncio.TaskGroup() as writers:
            for number, operation_id in enumerate(written):
                budget = 20.0 if number % 2 else 0.2
                writers.create_task(write(journals[number % 2], operation_id, budget))
            await eventually(lambda: min(map(len, written.values())) >= 20)
            (await cluster.leader(STREAM)).kill()
            await cluster.leader(STREAM)
            marks = {operation_id: len(ids) for operation_id, ids in written.items()}
            await eventually(lambda: all(len(written[one]) >= mark + 20 for one, mark in marks.items()), within=20)
            is_over.set()
        for operation_id, acknowledged in written.items():
            events = await stored_events(journals[0], operation_id)
            assert folded(None, *events).position == len(events)
            ids = [event.id for event in events]
            assert [one for one in ids if one in set(acknowledged)] == acknowledged
            assert set(ids) - set(acknowledged) <= set(given_up)
            assert len(set(ids)) == len(ids)


async def _reload(journal: Journal, operation_id: str) -> Operation | None:
    events = await stored_events(journal, operation_id)
    return folded(None, *events) if events else None


async def test_a_view_write_that_lost_a_race(link: Connection, journal: Journal, op: str) -> None:
    """Of two snapshots for the same revision one is stored on a replicated bucket too; the other write fails."""
    operation = await begin(journal, op)
    view = SnapshotStore(link)
    for _ in range(20):
        entry = await view.get_newest(op)
        revisions = await asyncio.gather(*(view.put(operation, entry.revision) for _ in range(4)))
        winners = [revision for revision in revisions if revision is not None]
        assert (len(winners), (await view.get_newest(op)).revision) == (1, winners[0])


async def test_announcing_while_followers_hang(cluster: Cluster, link: Connection) -> None:
    """An announcement that the replicas don't confirm is unavailable, not drift; later it is taken."""
    spec = ActionSpec(resource="book", action="hang", summary="", action_version=1, input_schema={}, result_schema={})
    leader = await cluster.leader(subjects.bucket_stream(subjects.ACTIONS_BUCKET))
    others = [node for node in cluster.nodes if node is not leader]
    async with linked(leader.url) as near:
        for node in others:
            node.pause()
        with pytest.raises(JournalUnavailable):
            await announce_action(near, spec)
        with pytest.raises(JournalUnavailable):
            await announce_action(near, spec)
        for node in others:
            node.resume()
        assert await eventually(lambda: _announced(near, spec))
        assert await find_action(near, spec.kind) == spec


async def _announced(link: Connection, spec: ActionSpec) -> bool:
    try:
        return await announce_action(link, spec)
    except JournalUnavailable:
        return False


async def test_catalogs_everywhere_follow(cluster: Cluster) -> None:
    """An announcement through one node is known through the others within a second, though replicas lag behind."""
    urls = cluster.urls
    spec = ActionSpec(resource="book", action="seen", summary="", action_version=1, input_schema={}, result_schema={})
    async with linked(urls[0]) as runner, linked(urls[1]) as one, linked(urls[2]) as two:
        catalogs = [ActionCatalog(one), ActionCatalog(two)]
        for link, catalog in zip((one, two), catalogs, strict=True):
            await retry_until_ready(link, catalog.start, 30)
        for version in range(1, 9):
            announced = msgspec.structs.replace(spec, action_version=version)
            # Servers on a busy machine may elect a leader at any time, and refuse this for as long.
            await retry_until_ready(runner, lambda one=announced: announce_action(runner, one), 30)
            for catalog in catalogs:
                await eventually(lambda c=catalog, a=announced: c.specs.get(a.kind) == a, within=1)
        for catalog in catalogs:
            await catalog.stop()
