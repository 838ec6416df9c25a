"""The projector's atomic batches on a real broker: conflicts, lost answers, large snapshots and kills in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from opstream_journal import Connection, Journal, JournalUnavailable, SnapshotStore, SnapshotWrite
from opstream_schemas.events import Succeeded
from opstream_schemas.operation.state import Operation
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, begin, extend, first, folded, linked, opened
from tests.support.projector.projection import (
    LIFE,
    RESULT,
    assert_is_fold,
    is_gone,
    live,
    projector,
    quick_consumer,
    running,
    settled,
    view_writes,
)
from tests.support.schemas.histories import request, started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

NAMES = [f"op-{number}" for number in range(24)]


class CountingView(SnapshotStore):
    """Counts what is written, and may do something at a batch."""

    def __init__(self, link: Connection) -> None:
        super().__init__(link)
        self.singles: list[str] = []
        self.batches: list[int] = []
        """The lengths of all batches; of refused ones, too."""
        self.is_deaf = False
        """True to store batches, but to get no answer."""

    async def put(self, operation: Operation, revision: int, *, ttl: float | None = None) -> int | None:
        self.singles.append(operation.id)
        return await super().put(operation, revision, ttl=ttl)

    async def put_batch(self, writes: Sequence[SnapshotWrite]) -> Sequence[int] | None:
        self.batches.append(len(writes))
        revisions = await super().put_batch(writes)
        if self.is_deaf:
            raise JournalUnavailable("no answer", maybe_stored=True)
        return revisions


@pytest.fixture
def counting(link: Connection) -> CountingView:
    return CountingView(link)


async def all_live(journal: Journal) -> None:
    await asyncio.gather(*(live(journal, name, *LIFE) for name in NAMES))


async def test_one_batch(link: Connection, journal: Journal, counting: CountingView) -> None:
    """A backlog of many operations is one batch, and nothing is written twice."""
    await all_live(journal)
    async with running(projector(link, journal, counting)):
        await settled(link)

    await assert_is_fold(counting, journal, NAMES)
    assert (counting.batches, counting.singles) == ([len(NAMES)], [])
    assert await view_writes(link) == len(NAMES)


async def test_open_ones_go_on_from_batch_to_batch(link: Connection, journal: Journal, counting: CountingView) -> None:
    """The second batch expects the revisions of the first."""
    opens = await asyncio.gather(*(begin(journal, name) for name in NAMES))
    async with running(projector(link, journal, counting)):
        await settled(link)
        await asyncio.gather(*(extend(journal, one, started(), RESULT) for one in opens))
        await settled(link)

    await assert_is_fold(counting, journal, NAMES)
    assert counting.batches[0] == len(NAMES)
    assert len(counting.batches) >= 2


async def test_another_replica_wrote_one_of_them(
    link: Connection, journal: Journal, view: SnapshotStore, counting: CountingView
) -> None:
    """The batch is refused whole, and stored when it is planned on what the other one wrote."""
    await all_live(journal)
    half = folded(None, (await journal.events(NAMES[9]))[0])
    assert await view.put(half, 0) is not None
    async with running(projector(link, journal, counting)):
        await settled(link)

    await assert_is_fold(counting, journal, NAMES)
    assert (counting.batches, counting.singles) == ([len(NAMES), len(NAMES)], [])
    assert await view_writes(link) == len(NAMES) + 1


async def test_a_lost_answer(link: Connection, journal: Journal, counting: CountingView) -> None:
    """What was stored nevertheless is found, and not stored again."""
    await all_live(journal)
    counting.is_deaf = True
    async with running(projector(link, journal, counting)):
        await settled(link)

    await assert_is_fold(counting, journal, NAMES)
    assert counting.batches == [len(NAMES)]
    assert await view_writes(link) == len(NAMES)


async def test_a_large_one_among_them(link: Connection, journal: Journal, counting: CountingView) -> None:
    """It is written alone, and the others together."""
    await all_live(journal)
    await live(journal, "large", started(), Succeeded(result=msgspec.Raw(b'"%b"' % (b"x" * 200_000))))
    async with running(projector(link, journal, counting)):
        await settled(link)

    await assert_is_fold(counting, journal, [*NAMES, "large"])
    assert (counting.batches, counting.singles) == ([len(NAMES)], ["large"])


async def test_killed_between_batch_and_acknowledgement(
    broker: Broker, link: Connection, journal: Journal, counting: CountingView
) -> None:
    """Another projector gets the messages, finds the snapshots, and writes none of them again."""
    consumer = await quick_consumer(link, "quick")
    await all_live(journal)

    class Stuck(SnapshotStore):
        is_stored = asyncio.Event()

        async def put_batch(self, writes: Sequence[SnapshotWrite]) -> Sequence[int] | None:
            await super().put_batch(writes)
            self.is_stored.set()
            await asyncio.Event().wait()
            return None

    async with linked(broker.url) as doomed:
        stuck = Stuck(doomed)
        task = asyncio.create_task(projector(doomed, await opened(doomed), stuck, consumer=consumer).run())
        await stuck.is_stored.wait()
        # Without a connection it can't release messages, as if it had been killed.
        doomed.expect_close()
        await doomed.nc.close()
        task.cancel()
        await asyncio.wait([task])

    async with running(projector(link, journal, counting, consumer=consumer)):
        await settled(link, consumer)

    await assert_is_fold(counting, journal, NAMES)
    assert await view_writes(link) == len(NAMES)


async def test_they_expire(link: Connection, journal: Journal, counting: CountingView) -> None:
    """Each snapshot of a batch has its own time to live."""

    async def live_for(name: str, retention: float) -> None:
        event = first(name, data=request(retention=retention))
        operation = folded(None, await journal.append(KIND, event, 0, budget=5))
        await extend(journal, operation, started(), RESULT)

    await asyncio.gather(*(live_for(name, 60.0 if name == NAMES[3] else 5.0) for name in NAMES))
    async with running(projector(link, journal, counting)):
        await settled(link)
        assert counting.batches == [len(NAMES)]
        await eventually(lambda: is_gone(counting, NAMES[4]), within=10)

    assert not await is_gone(counting, NAMES[3])
