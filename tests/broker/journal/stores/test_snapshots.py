"""The view: guarded snapshots that go away in time, and what is found where something else lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from opstream_journal import Connection, EventTooLarge, Journal, JournalUnavailable, SnapshotStore, SnapshotWrite
from opstream_journal.stores.snapshots import NO_ENTRY, SnapshotReader
from opstream_schemas import subjects
from opstream_schemas.events import Progressed, Succeeded
from opstream_schemas.operation.state import Operation, Status
from tests.support.broker.server import Broker
from tests.support.journal.journals import begin, extend
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
async def operation(journal: Journal) -> Operation:
    return await begin(journal, "op-1")


def subject(operation_id: str) -> str:
    return subjects.bucket_subject(subjects.VIEW_BUCKET, operation_id)


async def test_no_entry(view: SnapshotStore) -> None:
    """An operation without snapshot has no entry, read either way."""
    assert (await view.get("op-1"), await view.get_newest("op-1")) == (NO_ENTRY, NO_ENTRY)


async def test_a_snapshot_comes_back_as_it_was(view: SnapshotStore, journal: Journal) -> None:
    """What is read from the view equals what was put, in every state of an operation."""
    operation = await begin(journal, "op-1")
    revision = await view.put(operation, 0)
    for data in (started(), Progressed(percent=50, message="half"), Succeeded(result=msgspec.Raw(b'{"a":[1,2.5]}'))):
        assert revision is not None
        assert (await view.get("op-1")).operation == operation
        operation = await extend(journal, operation, data)
        revision = await view.put(operation, revision)
    entry = await view.get("op-1")
    assert (entry.revision, entry.operation) == (revision, operation)
    assert await view.get_newest("op-1") == entry


async def test_writes_are_guarded(view: SnapshotStore, operation: Operation) -> None:
    """A write for another revision than the present one changes nothing and says so."""
    revision = await view.put(operation, 0)
    assert revision is not None
    later = msgspec.structs.replace(operation, position=9)
    assert await view.put(later, 0) is None
    assert await view.put(later, revision + 1) is None
    assert (await view.get("op-1")).operation == operation
    assert await view.put(later, revision) == revision + 1
    assert (await view.get("op-1")).operation == later


async def test_racing_writes(view: SnapshotStore, operation: Operation) -> None:
    """Of many writes for one revision, one is stored."""
    for _ in range(20):
        entry = await view.get_newest("op-1")
        revisions = await asyncio.gather(*(view.put(operation, entry.revision) for _ in range(8)))
        assert sum(revision is not None for revision in revisions) == 1


async def test_a_snapshot_expires(view: SnapshotStore, operation: Operation) -> None:
    """A snapshot with a TTL is gone after it, as if it had never been, and a new one can be made."""
    revision = await view.put(operation, 0, ttl=1.9)
    assert (await view.get("op-1")).operation == operation
    await eventually(lambda: _is_gone(view), within=5)
    assert await view.get_newest("op-1") == NO_ENTRY
    assert await view.put(operation, revision or 0) is None
    assert await view.put(operation, 0) is not None
    assert (await view.get("op-1")).operation == operation


async def _is_gone(view: SnapshotStore) -> bool:
    return await view.get("op-1") == NO_ENTRY


@pytest.fixture
async def operations(journal: Journal) -> list[Operation]:
    return [await begin(journal, f"op-{number}") for number in range(300)]


async def present(link: Connection) -> int:
    """How many snapshots there are."""
    info = await link.nc.jetstream().stream_info(subjects.bucket_stream(subjects.VIEW_BUCKET))
    return info.state.messages


async def test_written_together(view: SnapshotStore, operations: list[Operation]) -> None:
    """Many snapshots are stored in one go, each with its revision and its TTL, in the place of what was there."""
    first = await view.put(operations[0], 0)
    assert first is not None
    writes = [
        SnapshotWrite(operations[0], first),
        *(SnapshotWrite(one, 0) for one in operations[1:-1]),
        SnapshotWrite(operations[-1], 0, 1.0),
    ]
    revisions = await view.put_batch(writes)
    assert revisions is not None
    assert len(revisions) == len(operations)
    for operation, revision in zip(operations[:-1], revisions, strict=False):
        entry = await view.get(operation.id)
        assert (entry.revision, entry.operation) == (revision, operation)
    await eventually(lambda: is_without(view, operations[-1].id), within=5)


async def is_without(view: SnapshotStore, operation_id: str) -> bool:
    """Whether there is no entry."""
    return await view.get(operation_id) == NO_ENTRY


async def test_written_together_or_not_at_all(
    view: SnapshotStore, link: Connection, operations: list[Operation]
) -> None:
    """If another writer was first with one of them, or one is too large for the broker, none is stored."""
    assert await view.put(operations[7], 0) is not None
    assert await view.put_batch([SnapshotWrite(one, 0) for one in operations]) is None
    large = msgspec.structs.replace(operations[5], result=msgspec.Raw(b'"' + b"x" * link.nc.max_payload + b'"'))
    assert await view.put_batch([SnapshotWrite(one, 0) for one in (*operations[:5], large, operations[6])]) is None
    assert await present(link) == 1
    assert await view.put_batch([SnapshotWrite(operations[0], 0)]) is not None


async def test_a_view_that_takes_no_batches(view: SnapshotStore, link: Connection, operations: list[Operation]) -> None:
    """Where an older version has made the view, nothing is stored together, and each by itself as ever."""
    js = link.nc.jetstream()
    config = (await js.stream_info(subjects.bucket_stream(subjects.VIEW_BUCKET))).config
    config.allow_atomic = False
    await js.update_stream(config)
    assert await view.put_batch([SnapshotWrite(one, 0) for one in operations]) is None
    assert await present(link) == 0
    assert await view.put(operations[0], 0) is not None


async def test_written_together_without_a_broker(
    broker: Broker, view: SnapshotStore, operations: list[Operation]
) -> None:
    """A batch whose broker is gone is an error, never a conflict."""
    broker.kill()
    with pytest.raises(JournalUnavailable):
        await view.put_batch([SnapshotWrite(one, 0) for one in operations])


@pytest.mark.parametrize("ttl", [0.0, 0.4, -5.0])
async def test_a_ttl_below_a_second(view: SnapshotStore, operation: Operation, ttl: float) -> None:
    """A TTL that the broker would refuse is the shortest that it takes."""
    assert await view.put(operation, 0, ttl=ttl) == 1


async def test_a_ttl_is_of_one_write(view: SnapshotStore, operation: Operation) -> None:
    """A snapshot that was replaced by one without TTL stays."""
    revision = await view.put(operation, 0, ttl=1)
    assert revision is not None
    kept = await view.put(operation, revision)
    marker = msgspec.structs.replace(operation, id="op-2")
    await view.put(marker, 0, ttl=1)
    await eventually(lambda: _has_no(view, "op-2"), within=5)
    assert (await view.get("op-1")).revision == kept


async def _has_no(view: SnapshotStore, operation_id: str) -> bool:
    return await view.get(operation_id) == NO_ENTRY


async def test_a_snapshot_of_another_fold(view: SnapshotStore, operation: Operation) -> None:
    """A snapshot that another version of the fold wrote is not trusted, but can be replaced."""
    revision = await view.put(msgspec.structs.replace(operation, fold_version=999), 0)
    entry = await view.get("op-1")
    assert (entry.revision, entry.operation) == (revision, None)
    assert await view.put(operation, entry.revision) is not None


async def test_a_snapshot_of_a_release_without_steps(view: SnapshotStore, operation: Operation) -> None:
    """What that release has skipped may be steps, so its snapshot is not trusted while the operation is open."""
    await view.put(msgspec.structs.replace(operation, skipped=2), 0)
    assert (await view.get("op-1")).operation is None
    ended = msgspec.structs.replace(operation, id="op-2", skipped=2, status=Status.SUCCEEDED)
    await view.put(ended, 0)
    assert (await view.get("op-2")).operation == ended


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"{}", b"[" * 100_000, b'{"id":1}'])
async def test_garbage(view: SnapshotStore, link: Connection, operation: Operation, garbage: bytes) -> None:
    """Bytes that are no snapshot are an entry without operation, which the next write replaces."""
    ack = await link.nc.jetstream().publish(subject("op-1"), garbage)
    entry = await view.get("op-1")
    assert (entry.revision, entry.operation) == (ack.seq, None)
    assert await view.get_newest("op-1") == entry
    assert await view.put(operation, entry.revision) is not None


async def test_a_deleted_key(view: SnapshotStore, link: Connection, operation: Operation) -> None:
    """A key that another client deleted can be written again."""
    await view.put(operation, 0)
    bucket = await link.nc.jetstream().key_value(subjects.VIEW_BUCKET)
    await bucket.delete("op-1")
    assert (await view.get("op-1")).operation is None
    newest = await view.get_newest("op-1")
    assert await view.put(operation, newest.revision) is not None
    assert (await view.get("op-1")).operation == operation


async def test_other_clients_read_it(view: SnapshotStore, link: Connection, operation: Operation) -> None:
    """The bucket is an ordinary key-value bucket."""
    await view.put(operation, 0)
    bucket = await link.nc.jetstream().key_value(subjects.VIEW_BUCKET)
    entry = await bucket.get("op-1")
    assert msgspec.json.decode(entry.value or b"", type=Operation) == operation


async def test_too_large_a_snapshot(view: SnapshotStore, link: Connection, operation: Operation) -> None:
    """A snapshot beyond what the broker takes is refused here, and costs no connection."""
    huge = msgspec.structs.replace(operation, message="x" * link.nc.max_payload)
    with pytest.raises(EventTooLarge):
        await view.put(huge, 0)
    assert await view.put(operation, 0) is not None


async def test_without_a_broker(broker: Broker, view: SnapshotStore, link: Connection, operation: Operation) -> None:
    """Without a broker everything says so at once."""
    broker.kill()
    await eventually(lambda: not link.is_connected)
    for question in (view.get("op-1"), view.get_newest("op-1"), view.put(operation, 0)):
        with pytest.raises(JournalUnavailable):
            await asyncio.wait_for(question, 0.2)
    broker.start()


@pytest.fixture
async def many(link: Connection) -> AsyncIterator[SnapshotReader]:
    reader = SnapshotReader(link)
    await reader.start()
    yield reader
    await reader.stop()


async def test_many_at_once(view: SnapshotStore, operation: Operation, many: SnapshotReader) -> None:
    """Each snapshot that is there is found, however many are asked for, and none that is not."""
    names = [f"op-{number}" for number in range(600)]
    stored = [msgspec.structs.replace(operation, id=name) for name in names if not name.endswith("7")]
    revisions = [await view.put(one, 0) for one in stored]
    found = await many.get(names)
    assert {name: entry.operation for name, entry in found.items()} == {one.id: one for one in stored}
    assert [found[one.id].revision for one in stored] == revisions
    assert await many.get([]) == {}
    assert await many.get(["op-7"]) == {}


async def test_many_large_ones(view: SnapshotStore, operation: Operation, many: SnapshotReader) -> None:
    """What does not fit into one answer comes with the next ones."""
    large = msgspec.structs.replace(operation, message="x" * 250_000)
    names = [f"op-{number}" for number in range(50)]
    for name in names:
        await view.put(msgspec.structs.replace(large, id=name), 0)
    found = await many.get(names)
    assert sorted(found) == sorted(names)
    assert {entry.operation.message for entry in found.values() if entry.operation} == {large.message}


async def test_many_of_another_fold(link: Connection, many: SnapshotReader) -> None:
    """A snapshot of another fold version is there, without an operation."""
    await link.nc.jetstream().publish(subject("op-1"), b"{}")
    assert (await many.get(["op-1"]))["op-1"].operation is None


async def test_many_without_a_broker(broker: Broker, link: Connection, many: SnapshotReader) -> None:
    """The error is raised at once."""
    broker.kill()
    await eventually(lambda: not link.is_connected)
    with pytest.raises(JournalUnavailable):
        await many.get(["op-1"])
