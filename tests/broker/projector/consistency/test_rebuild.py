"""Rebuilding the view on a real broker: wrong entries are rewritten, and right ones are not touched."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg

from opstream_journal import NEW_OPERATION, Connection, Journal, SnapshotStore, SnapshotWrite
from opstream_journal.jetstream.scans.stream_scan import stream_bounds
from opstream_journal.stores.snapshots import VIEW_STREAM, RawSnapshot, RawSnapshots, encode_snapshot
from opstream_projector.consistency import view_scan
from opstream_projector.consistency.journal_fold import FoldedOperation, JournalFold
from opstream_projector.consistency.view_scan import ViewScan
from opstream_schemas import subjects
from opstream_schemas.events import Succeeded, encode_event
from opstream_schemas.operation.state import Operation
from tests.support.broker.server import Broker, Cluster
from tests.support.journal.journals import KIND, extend, first, folded, following, linked, opened
from tests.support.projector.consistency import ProgressSteps, begun, lose, overwrite, publish, rebuilt, verified
from tests.support.projector.projection import (
    LIFE,
    RESULT,
    assert_is_fold,
    is_gone,
    projector,
    running,
    settled,
    utc_now,
    view_writes,
)
from tests.support.schemas.histories import request, started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

OPEN = ("open-1", "open-2", "open-3")
ENDED = ("ended-1", "ended-2", "ended-3")
ALL = (*OPEN, *ENDED)


async def project(link: Connection, journal: Journal) -> None:
    """Run a projector until the view is up to date."""
    async with running(projector(link, journal)):
        await settled(link)


@pytest.fixture
async def operations(link: Connection, journal: Journal) -> dict[str, Operation]:
    """Some operations, open and ended, and a correct view."""
    found = {one: await begun(journal, one, *(LIFE if one in ENDED else LIFE[:2])) for one in ALL}
    await project(link, journal)
    return found


async def test_a_correct_view(
    link: Connection, journal: Journal, view: SnapshotStore, operations: dict[str, Operation]
) -> None:
    """Nothing is written, and the progress shows how much was read."""
    writes = await view_writes(link)
    steps = ProgressSteps()
    done = await rebuilt(link, journal, steps=steps)
    assert (done.rewritten, done.missing, done.removed) == (0, 0, 0)
    assert (done.fold.events, done.fold.operations) == (21, 6)
    assert steps.begun == [("events", 21), ("entries", 6)]
    assert max(steps.shown) == 21
    assert await view_writes(link) == writes
    await assert_is_fold(view, journal, list(operations))


async def test_an_empty_view(
    link: Connection, journal: Journal, view: SnapshotStore, operations: dict[str, Operation]
) -> None:
    """Every entry is written again, with a TTL (docs/adr/0016)."""
    await lose(link)
    done = await rebuilt(link, journal)
    assert (done.rewritten, done.missing, done.removed) == (0, 6, 0)
    await assert_is_fold(view, journal, list(operations))
    for one in ALL:
        message = await link.nc.jetstream().get_last_msg(
            VIEW_STREAM, subjects.bucket_subject(subjects.VIEW_BUCKET, one)
        )
        assert message.headers is not None
        assert round(int(message.headers["Nats-TTL"]) / 86_400, 2) == (1 if one in ENDED else 2)


def _forged(operation: Operation, **changes: Any) -> bytes:
    return encode_snapshot(msgspec.structs.replace(operation, **changes))


@pytest.mark.parametrize("operation_id", ["open-1", "ended-1"])
@pytest.mark.parametrize(
    ("changes", "is_ahead"),
    [
        pytest.param({"message": "never said"}, False, id="other content"),
        pytest.param({"position": 2, "stream_sequence": 2}, False, id="set back"),
        pytest.param({"position": 77, "stream_sequence": 9_999}, True, id="ahead of the journal"),
        pytest.param({"position": 77}, True, id="ahead by its position"),
        pytest.param({"stream_sequence": 20, "position": 9}, True, id="ahead, but not of the fold"),
        pytest.param({"fold_version": 99}, False, id="another fold's"),
        pytest.param({"fold_version": 99, "stream_sequence": 9_999}, True, id="another fold's, ahead"),
        pytest.param({"id": "another-operation"}, False, id="of another operation"),
    ],
)
async def test_a_forged_entry(
    link: Connection,
    journal: Journal,
    view: SnapshotStore,
    operations: dict[str, Operation],
    operation_id: str,
    changes: dict[str, Any],
    is_ahead: bool,
) -> None:
    """It is replaced, even if the fold evicts open operations; one that claims more than the journal has only by
    force, after it was kept. Nothing else is touched."""
    forged = _forged(operations[operation_id], **changes)
    await overwrite(link, operation_id, forged)
    writes = await view_writes(link)
    if is_ahead:
        done = await rebuilt(link, journal, max_states=1)
        assert (done.rewritten, done.missing, done.removed) == (0, 0, 0)
        assert [(kept.operation_id, bytes(kept.snapshot)) for kept in done.kept] == [(operation_id, forged)]
        assert await view_writes(link) == writes
    done = await rebuilt(link, journal, max_states=1, is_forced=is_ahead)
    assert (done.rewritten, done.missing, done.removed) == (1, 0, 0)
    assert await view_writes(link) == writes + 1
    await assert_is_fold(view, journal, ALL)


async def test_entries_that_are_no_snapshots(
    link: Connection, journal: Journal, view: SnapshotStore, operations: dict[str, Operation]
) -> None:
    """Entries that can't be decoded are replaced."""
    for operation_id, data in zip(operations, (b"", b"{}", b"\xff\x00", b"null", b'{"id":"open-1"}'), strict=False):
        await overwrite(link, operation_id, data)
    done = await rebuilt(link, journal)
    assert (done.rewritten, done.missing, done.removed) == (5, 0, 0)
    await assert_is_fold(view, journal, ALL)


async def test_entries_of_unknown_operations(
    link: Connection, journal: Journal, view: SnapshotStore, operations: dict[str, Operation]
) -> None:
    """What is no snapshot is removed. A snapshot of an operation that the journal never had may be the only copy of
    what it has lost, so it is removed only by force, after it was kept. All others stay."""
    orphan = msgspec.structs.replace(operations["ended-1"], id="orphan")
    await overwrite(link, "orphan", encode_snapshot(orphan))
    await overwrite(link, "rubbish", b"rubbish")
    done = await rebuilt(link, journal)
    assert (done.rewritten, done.missing, done.removed) == (0, 0, 1)
    assert [(kept.operation_id, kept.journal_position) for kept in done.kept] == [("orphan", 0)]
    assert (await view.get_newest("orphan")).operation == orphan
    assert (await rebuilt(link, journal, is_forced=True)).removed == 1
    assert await is_gone(view, "orphan")
    assert await is_gone(view, "rubbish")
    await assert_is_fold(view, journal, ALL)


async def test_a_removal_keeps_newer_entries(
    link: Connection, operations: dict[str, Operation], view: SnapshotStore
) -> None:
    """A removal names the revision that was read, and does not touch a newer entry."""
    snapshots = RawSnapshots(link)
    await snapshots.start()
    seen = (await view.get_newest("ended-1")).revision
    newer = await view.put(operations["ended-1"], seen)
    await snapshots.remove("ended-1", seen)
    assert (await view.get_newest("ended-1")).revision == newer
    await snapshots.stop()


async def test_more_open_operations_than_states(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """However many operations are open, at most `max_states` are kept, and every entry is right all the same."""
    lives = [await begun(journal, f"op-{number}") for number in range(40)]
    lives = [await extend(journal, one, started()) for one in lives]
    for one in lives[::2]:
        await extend(journal, one, RESULT)
    await project(link, journal)
    writes = await view_writes(link)
    assert (await rebuilt(link, journal, max_states=5)).fold.most == 5
    assert await view_writes(link) == writes

    await lose(link)
    done = await rebuilt(link, journal, max_states=5)
    assert (done.rewritten, done.missing, done.removed, done.fold.most) == (0, 40, 0, 5)
    await assert_is_fold(view, journal, [one.id for one in lives])


class SizeVisitor:
    """A visitor that records the sizes of its batches."""

    def __init__(self) -> None:
        self.compared: list[int] = []
        self.checked: list[int] = []

    async def visit_operations(self, batch: Sequence[FoldedOperation], scan: ViewScan) -> None:
        self.compared.append(len(batch))

    async def visit_entries(self, snapshots: Sequence[RawSnapshot], scan: ViewScan) -> None:
        self.checked.append(len(snapshots))


async def test_large_results(link: Connection, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is bounded by its bytes, too, in the journal and in the view."""
    large = Succeeded(result=msgspec.Raw(b'"' + b"x" * 10_000 + b'"'))
    for number in range(20):
        operation = await begun(journal, f"op-{number}", started(), large)
        await overwrite(link, operation.id, _forged(operation, position=99, stream_sequence=999))
    monkeypatch.setattr(view_scan, "_BATCH_BYTES", 50_000)
    visitor, snapshots = SizeVisitor(), RawSnapshots(link)
    await snapshots.start()
    await ViewScan(link, snapshots, JournalFold(), ProgressSteps()).run(visitor)
    await snapshots.stop()
    for sizes in (visitor.compared, visitor.checked):
        assert sum(sizes) == 20
        assert max(sizes) == 5


async def _long_ago(journal: Journal, operation_id: str, *datas: Any) -> None:
    """An operation of an hour ago with a retention of a minute."""
    then = utc_now() - timedelta(hours=1)
    event = msgspec.structs.replace(first(operation_id, data=request(retention=60.0)), time=then)
    operation = folded(None, await journal.append(KIND, event, NEW_OPERATION, budget=5))
    for data in datas:
        expected: Any = operation.stream_sequence
        event = msgspec.structs.replace(following(operation, data), time=then)
        operation = folded(operation, await journal.append(KIND, event, expected, budget=5))


async def test_an_expired_snapshot_is_not_written(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """Nothing is written for an operation that ended long ago, or is open long after its deadline."""
    await _long_ago(journal, "ended", *LIFE)
    await _long_ago(journal, "open", started())
    done = await rebuilt(link, journal)
    assert (done.rewritten, done.missing, done.removed) == (0, 0, 0)
    assert await view_writes(link) == 0
    assert await is_gone(view, "ended")


async def test_expired_events(
    link: Connection, journal: Journal, view: SnapshotStore, operations: dict[str, Operation]
) -> None:
    """An entry whose events have expired stays, and so does one of which only the last event is left."""
    js = link.nc.jetstream()
    config = (await js.stream_info(subjects.OPERATIONS_STREAM)).config
    half = await begun(journal, "half", *LIFE[:1])
    await project(link, journal)
    await js.update_stream(config.evolve(max_age=1.0, duplicate_window=1.0))

    async def is_empty() -> bool:
        found = await stream_bounds(link, subjects.OPERATIONS_STREAM)
        return found.first > half.stream_sequence

    await eventually(is_empty, within=10)
    await js.update_stream(config)
    end = following(half, RESULT)  # it can't be appended: the events before it have expired
    await publish(link, "half", "succeeded", encode_event(end))
    await project(link, journal)
    writes = await view_writes(link)

    done = await rebuilt(link, journal)

    assert (done.rewritten, done.missing, done.removed, done.unfoldable.count) == (0, 0, 0, 0)
    assert await view_writes(link) == writes
    stored = (await view.get_newest("half")).operation
    assert stored is not None
    assert (stored.status, stored.position) == ("Succeeded", 3)
    for one in ALL:
        assert (await view.get_newest(one)).operation == operations[one]


class Overtaken(SnapshotStore):
    """A view in which a projector writes first, right before the first write of each operation."""

    def __init__(self, link: Connection, journal: Journal) -> None:
        super().__init__(link)
        self.journal = journal
        self.seen: set[str] = set()

    async def put(self, operation: Operation, revision: int, *, ttl: float | None = None) -> int | None:
        await self.overtake(operation, revision)
        return await super().put(operation, revision, ttl=ttl)

    async def put_batch(self, writes: Sequence[SnapshotWrite]) -> Sequence[int] | None:
        for one in writes:
            await self.overtake(one.operation, one.revision)
        return await super().put_batch(writes)

    async def overtake(self, operation: Operation, revision: int) -> None:
        if operation.id not in self.seen:
            self.seen.add(operation.id)
            if not operation.is_terminal:
                operation_now = await extend(self.journal, operation, RESULT)
                assert await super().put(operation_now, revision) is not None


async def test_the_newer_entry_wins(
    link: Connection, journal: Journal, view: SnapshotStore, operations: dict[str, Operation]
) -> None:
    """What a projector writes between the read and the write stays."""
    await lose(link)
    done = await rebuilt(link, journal, view=Overtaken(link, journal))
    assert (done.rewritten, done.missing) == (0, len(ENDED))
    await assert_is_fold(view, journal, list(operations))
    assert all([(await view.get_newest(one)).operation.is_terminal for one in OPEN])  # type: ignore[union-attr]


async def test_two_rebuilds_at_once(broker: Broker, link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """Together they write each entry once."""
    ids = [f"op-{number}" for number in range(60)]
    await asyncio.gather(*(begun(journal, one, *LIFE) for one in ids))
    async with linked(broker.url) as other:
        found = await asyncio.gather(rebuilt(link, journal), rebuilt(other, await opened(other)))
    assert sum(done.missing for done in found) == len(ids)
    assert sum(done.rewritten for done in found) == 0
    assert await view_writes(link) == len(ids)
    await assert_is_fold(view, journal, ids)


async def test_while_the_system_works(broker: Broker, link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """With two projectors, writers and repeated rebuilds no snapshot is ever set back, and all are right at the end."""
    ids = [f"op-{number}" for number in range(120)]
    positions: dict[str, list[int]] = {}

    async def note(message: Msg) -> None:
        operation = msgspec.json.decode(message.data, type=Operation)
        positions.setdefault(operation.id, []).append(operation.position)

    # From the stream, which publishes only what it has stored.
    subscription = await link.nc.jetstream().subscribe(
        subjects.bucket_subject(subjects.VIEW_BUCKET, ">"), stream=VIEW_STREAM, cb=note, ordered_consumer=True
    )
    async with linked(broker.url) as other:
        second = await opened(other)
        async with running(projector(link, journal, linger=0.0), projector(other, second, linger=0.0)):

            async def work() -> None:
                for start in range(0, len(ids), 20):
                    await asyncio.gather(*(begun(journal, one, *LIFE) for one in ids[start : start + 20]))

            working = asyncio.create_task(work())
            rebuilds = 0
            while not working.done():
                await rebuilt(other, second, max_states=3)
                rebuilds += 1
            await working
            await settled(link)
    await subscription.unsubscribe()
    assert rebuilds > 1
    assert len(positions) == len(ids)
    assert [found for found in positions.values() if found != sorted(found)] == []
    await assert_is_fold(view, journal, ids)


async def test_the_broker_is_killed_in_between(
    broker: Broker, link: Connection, journal: Journal, view: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the broker to come back, and continues."""
    monkeypatch.setattr(view_scan, "BATCH_SIZE", 10)
    ids = [f"op-{number}" for number in range(200)]
    await asyncio.gather(*(begun(journal, one, *LIFE) for one in ids))
    working = asyncio.create_task(rebuilt(link, journal))

    async def has_begun() -> bool:
        return await view_writes(link) > 20

    await eventually(has_begun, poll=0.0)
    broker.kill()
    broker.start()
    await asyncio.wait_for(working, 30)
    await assert_is_fold(view, journal, ids)


async def test_three_replicas_one_of_them_gone(
    cluster: Cluster, cluster_link: Connection, cluster_journal: Journal
) -> None:
    """On a cluster that has just lost the leader of the view, all entries are rewritten as well."""
    ids = [f"op-{number}" for number in range(20)]
    for one in ids:
        operation = await begun(cluster_journal, one, *LIFE)
    await overwrite(cluster_link, "orphan", encode_snapshot(msgspec.structs.replace(operation, id="orphan")))
    await overwrite(cluster_link, ids[0], b"rubbish")
    leader = await cluster.leader(VIEW_STREAM)
    leader.kill()
    done = await rebuilt(cluster_link, cluster_journal, is_forced=True)
    assert done.removed == 1  # a write whose response came too late counts as another process's
    await assert_is_fold(SnapshotStore(cluster_link), cluster_journal, ids)
    assert (await verified(cluster_link, cluster_journal)).lines == []
