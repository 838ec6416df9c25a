"""When a watch reads, and how often: its reads are held at a gate, and answered as the test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from opstream_api.operations import watch as watches
from opstream_api.operations.watch import Watch
from opstream_schemas.operation.state import FOLD_VERSION, Operation, Status
from tests.support.system.wait import eventually

pytestmark = pytest.mark.unit


def state(sequence: int, status: Status = Status.RUNNING) -> Operation:
    """The operation after the event at a stream sequence."""
    now = datetime.now(UTC)
    return Operation(
        id="op-1",
        resource="book",
        action="upload-start",
        action_version=1,
        request_hash="",
        status=status,
        created_at=now,
        deadline=now,
        retention=1.0,
        position=sequence,
        stream_sequence=sequence,
        last_hash="",
        fold_version=FOLD_VERSION,
    )


class HeldReads:
    """Reads the operation: what the leader has when the read begins, once the gate lets it through."""

    def __init__(self) -> None:
        self.leader = state(1)
        self.later: dict[int, Operation] = {}
        """What the leader shows from the n-th read on."""
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def known_end(self, _operation_id: str) -> Operation | None:
        return None

    async def read(self, _operation_id: str) -> Operation:
        self.reads += 1
        self.leader = self.later.get(self.reads, self.leader)
        found = self.leader
        await self.gate.wait()
        return found


class Pauses:
    """A connection, of which only the pauses are used."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def watching(reads: HeldReads, pauses: Pauses) -> AsyncIterator[Watch]:
    watch = Watch(
        "op-1",
        connection=cast("Any", pauses),
        status=cast("Any", reads),
        feed=cast("Any", None),
        jitter=lambda low, high: low,
    )
    try:
        yield watch
    finally:
        await watch.close()


@pytest.fixture(autouse=True)
def _long_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """The periodic read does not save a test."""
    monkeypatch.setattr(watches, "REFRESH_INTERVAL", 3600.0)


async def test_a_read_that_is_asked_for_during_a_read_follows_it() -> None:
    """The follower begins again and asks all watches to read; one of them holds a read that began before the end."""
    reads, pauses = HeldReads(), Pauses()
    async with watching(reads, pauses) as watch:
        reads.gate.clear()
        watch.refresh_within(0.0)
        await eventually(lambda: reads.reads == 1)
        reads.leader = state(2, Status.SUCCEEDED)
        watch.refresh_within(0.5)
        reads.gate.set()
        await eventually(lambda: watch.operation == reads.leader)
        assert reads.reads == 2


async def test_a_leader_that_is_behind_is_read_again() -> None:
    """Another server delivered the end before the leader shows it."""
    reads, pauses = HeldReads(), Pauses()
    async with watching(reads, pauses) as watch:
        watch.update(state(1))
        reads.later[4] = state(3, Status.SUCCEEDED)
        watch.notify("succeeded", 3)
        await eventually(lambda: watch.operation == reads.later[4])
        assert (reads.reads, len(pauses.taken)) == (4, 3)


async def test_what_was_read_is_no_news() -> None:
    """A follower that is behind tells of events that a read has seen: nothing is read for them."""
    reads, pauses = HeldReads(), Pauses()
    async with watching(reads, pauses) as watch:
        watch.followers = 1
        reads.leader = state(5)
        watch.notify("progressed", 4)
        await eventually(lambda: watch.operation == reads.leader)
        watch.notify("progressed", 5)
        assert (reads.reads, pauses.taken, watch._refreshing) == (1, [], None)


async def test_the_first_event_of_a_stream_is_waited_for() -> None:
    """A stream that has read by itself is told of an event: the watch reads until the leader shows that one."""
    reads, pauses = HeldReads(), Pauses()
    async with watching(reads, pauses) as watch:
        watch.followers = 1
        reads.later[2] = state(2)
        watch.notify("progressed", 2)
        await eventually(lambda: watch.operation == reads.later[2])
        assert (reads.reads, len(pauses.taken)) == (2, 1)


async def test_an_event_that_no_leader_shows_is_given_up() -> None:
    """The reads end after half a second, and the next one comes within a second."""
    reads, pauses = HeldReads(), Pauses()
    async with watching(reads, pauses) as watch:
        watch.notify("succeeded", 9)
        await eventually(lambda: pauses.taken and watch._refreshing is None)
        assert 0.4 < sum(pauses.taken) < 0.6
        assert watch._timer is not None
        assert watch._timer.when() - asyncio.get_running_loop().time() <= 1.0
