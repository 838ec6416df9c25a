"""Payloads go with their operations, and never before: which stay, which go, and what keeps all of them."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from opstream_journal import NEW_OPERATION, Connection, ExpectedVersion, Journal, JournalUnavailable, SnapshotStore
from opstream_journal.runtime.conditions import Conditions
from opstream_payloads import Payloads
from opstream_payloads.folder_store import FolderStore
from opstream_projector.payload_sweeper import PayloadSweeper
from opstream_schemas.events import EventData, Failed, OperationError, Requested, Started, Succeeded
from opstream_schemas.operation.fold import first_event, fold_for_reader, next_event
from opstream_schemas.operation.state import Operation
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

DAY = timedelta(days=1)
STARTED = Started(attempt=1, runner="r", token="t", ticket=1, lease=30.0)
DONE = Succeeded(result=msgspec.Raw(b"1"))


class Sweep:
    """A sweep over a folder, on a day that the test chooses."""

    def __init__(self, link: Connection, journal: Journal, store: FolderStore) -> None:
        self.conditions = Conditions()
        self.now = datetime.now(UTC) + timedelta(minutes=1)
        self.payloads = Payloads(store, lambda: str(uuid.uuid4()))
        self.sweeper = PayloadSweeper(
            link, journal, store, self.conditions, now=lambda: self.now, monotonic=time.monotonic, share=1.0
        )
        self._store = store

    async def store(self, *operation_ids: str) -> None:
        for one in operation_ids:
            await self.payloads.store_payload(one, b"data")

    def removed(self) -> dict[str, float]:
        """What the metrics say of removed payloads, by the reason."""
        (family,) = self.sweeper.instruments
        return {sample.labels[0]: sample.value for sample in family.samples()}

    async def left(self, later: timedelta) -> list[str]:
        """Sweep some time later; return whose payloads are left."""
        self.now += later
        await self.sweeper.walk()
        pages = [page async for page in self._store.older_than(self.now + DAY)]
        return sorted(one.key.operation_id for page in pages for one in page)


@pytest.fixture
async def sweep(link: Connection, journal: Journal, tmp_path: Path) -> Sweep:
    store = FolderStore(str(tmp_path), "one")
    await store.start()
    sweep = Sweep(link, journal, store)
    await sweep.sweeper._snapshots.start()
    return sweep


async def record(journal: Journal, operation_id: str, *data: EventData, retention: float = 86_400.0) -> Operation:
    """Store the events of an operation, which has no snapshot."""
    now = datetime.now(UTC)
    request = Requested(
        resource=KIND.resource,
        action=KIND.action,
        action_version=1,
        input=msgspec.Raw(b"{}"),
        request_hash="",
        deadline=now + timedelta(days=400),
        retention=retention,
    )
    event = first_event(operation_id, request, id=str(uuid.uuid4()), source="test", time=now)
    events = [await journal.append(KIND, event, NEW_OPERATION, budget=5)]
    for one in data:
        operation = fold_for_reader(None, events)
        assert operation is not None
        event = next_event(operation, one, id=str(uuid.uuid4()), source="test", time=now)
        events.append(await journal.append(KIND, event, ExpectedVersion(events[-1].sequence), budget=5))
    operation = fold_for_reader(None, events)
    assert operation is not None
    return operation


async def test_what_no_operation_has(sweep: Sweep) -> None:
    """What was stored and never named goes after the grace of a day, not before."""
    await sweep.store("never", "nowhere")
    assert await sweep.left(timedelta(hours=23)) == ["never", "nowhere"]
    assert await sweep.left(timedelta(hours=2)) == []
    assert sweep.removed() == {"expired": 0, "unsubmitted": 2}


async def test_retention(sweep: Sweep, journal: Journal) -> None:
    """A payload stays until the retention of its operation's outcome is over, and an hour longer."""
    await record(journal, "open")
    await record(journal, "running", STARTED)
    await record(journal, "ended", STARTED, DONE, retention=3 * 86_400.0)
    await record(journal, "failed", Failed(error=OperationError(code=1, message="")), retention=5 * 86_400.0)
    await sweep.store("open", "running", "ended", "failed")
    assert await sweep.left(3 * DAY) == ["ended", "failed", "open", "running"]
    assert await sweep.left(timedelta(hours=2)) == ["failed", "open", "running"]
    assert await sweep.left(2 * DAY) == ["open", "running"]
    assert sweep.removed() == {"expired": 2, "unsubmitted": 0}
    assert await sweep.left(100 * DAY) == ["open", "running"]


async def test_what_the_view_has_stays(sweep: Sweep, journal: Journal, view: SnapshotStore) -> None:
    """A snapshot keeps the payloads, whatever the journal says: the status can still be read."""
    ended = await record(journal, "ended", STARTED, DONE)
    assert await view.put(ended, 0)
    await sweep.store("ended")
    assert await sweep.left(40 * DAY) == ["ended"]


async def test_what_can_not_be_read_stays(sweep: Sweep, link: Connection) -> None:
    """Events that this version can't fold keep the payloads: they may be of a newer version."""
    await link.nc.jetstream().publish("operations.odd.book.upload-start.requested", b"not an event")
    await sweep.store("odd")
    assert await sweep.left(40 * DAY) == ["odd"]


async def test_a_journal_that_has_lost_events(sweep: Sweep) -> None:
    """While the journal lacks what it had, nothing is removed."""
    await sweep.store("lost")
    sweep.conditions.report("JournalSetback", "the journal has lost events", "restore it")
    assert await sweep.left(2 * DAY) == ["lost"]
    sweep.conditions.resolve("JournalSetback")
    assert await sweep.left(DAY) == []


async def test_a_broker_that_does_not_answer(sweep: Sweep, broker: Broker, link: Connection) -> None:
    """Without an answer of the journal a walk ends, and a later one does its work."""
    await sweep.store("any")
    broker.kill()
    with pytest.raises(JournalUnavailable):
        await sweep.left(2 * DAY)
    broker.start()
    await eventually(lambda: link.is_connected)
    assert await sweep.left(timedelta()) == []


async def test_only_gone_ones_of_a_page(sweep: Sweep, journal: Journal) -> None:
    """Of many payloads those of operations that are gone are removed, and no others."""
    kept = [f"kept-{number}" for number in range(5)]
    for one in kept:
        await record(journal, one)
    await sweep.store(*kept, *kept, *(f"gone-{number}" for number in range(300)))
    assert await sweep.left(2 * DAY) == sorted(kept * 2)
