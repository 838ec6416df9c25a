"""The projector in the test's process, and comparisons of the view with the journal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import nats.errors
from nats.js.api import AckPolicy, ConsumerConfig

from opstream_journal import Connection, Journal, JournalUnavailable, SnapshotStore
from opstream_journal.runtime.service import ServiceLoop
from opstream_projector.projection.projector import Projector
from opstream_schemas import subjects
from opstream_schemas.events import EventData, Progressed, Succeeded
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation
from tests.support.journal.journals import begin, extend
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

RESULT: Final = Succeeded(result=msgspec.Raw(b'{"ok":true}'))
LIFE: Final[tuple[EventData, ...]] = (started(), Progressed(percent=50.0), RESULT)
"""The events after the request of an operation that succeeds."""


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def projector(link: Connection, journal: Journal, view: SnapshotStore | None = None, **options: Any) -> Projector:
    """A replica on a connection of the test."""
    return Projector(link, journal, view or SnapshotStore(link), now=utc_now, monotonic=time.monotonic, **options)


@contextlib.asynccontextmanager
async def running(*loops: ServiceLoop) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run loops of a service. What one of them raises is raised at the end."""
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def settled(link: Connection, consumer: str = subjects.PROJECTOR_CONSUMER, within: float = 20.0) -> None:
    """Wait until the consumer has delivered the whole journal, and all is acknowledged."""
    js = link.nc.jetstream()

    async def is_settled() -> bool:
        try:
            info = await js.consumer_info(subjects.OPERATIONS_STREAM, consumer)
            last = (await js.stream_info(subjects.OPERATIONS_STREAM)).state.last_seq
        except (nats.errors.Error, TimeoutError):
            return False  # there is no leader now
        # For a moment a new leader of the consumer counts nothing as pending; its ack floor is right.
        floor = info.ack_floor.stream_seq if info.ack_floor else 0
        return floor >= last and (info.num_pending, info.num_ack_pending) == (0, 0)

    await eventually(is_settled, within=within, poll=0.05)


async def view_writes(link: Connection) -> int:
    """Return how many snapshots were ever stored."""
    info = await link.nc.jetstream().stream_info(subjects.bucket_stream(subjects.VIEW_BUCKET))
    return info.state.last_seq


async def quick_consumer(link: Connection, name: str, *, ack_wait: float = 1.0) -> str:
    """Create a durable consumer of the whole journal that redelivers soon."""
    config = ConsumerConfig(durable_name=name, ack_policy=AckPolicy.EXPLICIT, ack_wait=ack_wait)
    await link.nc.jetstream().add_consumer(subjects.OPERATIONS_STREAM, config)
    return name


async def live(journal: Journal, operation_id: str, *datas: EventData) -> Operation:
    """Store a complete operation."""
    return await extend(journal, await begin(journal, operation_id), *datas)


async def assert_is_fold(view: SnapshotStore, journal: Journal, operation_ids: Sequence[str]) -> None:
    """Check that each snapshot is the fold of its events, byte for byte. It waits for leaders, not for snapshots."""
    for operation_id in operation_ids:

        async def both(operation_id: str = operation_id) -> tuple[bytes, bytes] | None:
            try:
                stored = (await view.get_newest(operation_id)).operation
                wanted = fold_for_reader(None, await journal.events(operation_id))
            except JournalUnavailable:
                return None  # an election is in progress
            return msgspec.json.encode(stored), msgspec.json.encode(wanted)

        found = await eventually(both, within=30)
        assert found is not None
        assert found[0] == found[1]


async def reaches(view: SnapshotStore, operation_id: str, position: int) -> bool:
    """Return True if the snapshot is at least at this position."""
    operation = (await view.get_newest(operation_id)).operation
    return operation is not None and operation.position >= position


async def is_gone(view: SnapshotStore, operation_id: str) -> bool:
    """Return True if the view has no entry of the operation."""
    return (await view.get_newest(operation_id)).revision == 0
