"""Resource locks on a real broker: acquired, waited for, handed over, whichever process dies in between."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from opstream_journal import Connection, Journal, JournalUnavailable, VersionConflict
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.kv import HOLDS_STREAM, KeyValueBucket
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, RecordedEvent
from opstream_schemas.operation.resource_lock import Claim, LockBusy, LockOwned, LockReplaced, OperationStage
from opstream_schemas.operation.state import Operation
from tests.support.broker.server import Broker, Cluster
from tests.support.journal.journals import KIND, extend, folded, linked, opened
from tests.support.runner.stage import RunnerStage, SubjectSpy
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

HOLD = subjects.lock_key("action.book.upload-start", "42")
END = Canceled(reason="enough")


class Desk:
    """Operations that want one lock."""

    def __init__(self, stage: RunnerStage, holds: ResourceLocks) -> None:
        self.stage = stage
        self.holds = holds

    async def ask(self, *ids: str) -> list[Operation]:
        """Request operations, in this order."""
        return [folded(None, *await self.stage.request(one, hold=HOLD)) for one in ids]

    async def end(self, operation: Operation) -> Operation:
        """Record the end of an operation, and nothing else."""
        return await extend(self.stage.journal, operation, END)

    async def take(self, operation: Operation) -> bool:
        """Acquire; return True if it owns the lock now."""
        return isinstance(await self.holds.acquire(HOLD, claim(operation)), LockOwned)

    async def wait(self, operation: Operation) -> bool:
        """Enqueue; return True if it owns the lock now."""
        answer = await self.holds.enqueue(HOLD, operation, claim(operation), is_watchful=True)
        return isinstance(answer, LockOwned)

    async def holder(self) -> str:
        """Return the id of the owner."""
        found = await self.holds.owner(HOLD)
        return found.operation_id if found else ""

    async def keys(self) -> list[str]:
        """Return everything in the bucket."""
        cells = KeyValueBucket(self.stage.link, lambda low, high: low)
        await cells.start()
        return sorted(await cells.read_all(">"))


def claim(operation: Operation, *, replaces: bool = False) -> Claim:
    """Of an operation whose request is its only event, or was the first of the stream's."""
    return Claim(operation_id=operation.id, sequence=operation.stream_sequence, kind=str(KIND), replaces=replaces)


async def made(link: Connection, journal: Journal) -> ResourceLocks:
    """The locks on a connection."""
    holds = ResourceLocks(link, journal)
    await holds.start()
    return holds


@pytest.fixture
async def desk(link: Connection, journal: Journal) -> Desk:
    return Desk(RunnerStage(link, journal), await made(link, journal))


@pytest.fixture
async def wakes(desk: Desk) -> SubjectSpy:
    """The wake-ups for a lock, as they are sent."""
    return await desk.stage.spy("fire.*.*.*.hold")


def woken(spy: SubjectSpy) -> list[str]:
    """Who was woken, in order."""
    return [subject.split(".")[3] for subject, _ in spy.seen]


async def test_the_first_holds_and_the_second_learns_who(desk: Desk) -> None:
    """A lock has one owner, which may acquire it again."""
    one, two = await desk.ask("op-1", "op-2")

    assert await desk.take(one)
    answer = await desk.holds.acquire(HOLD, claim(two))
    assert isinstance(answer, LockBusy)
    assert (answer.owner.operation_id, answer.stage) == ("op-1", OperationStage.REQUESTED)
    assert await desk.take(one)


async def test_other_resources_do_not_mind(desk: Desk) -> None:
    """Each resource has a lock of its own."""
    one, two = await desk.ask("op-1", "op-2")
    other = subjects.lock_key("action.book.upload-start", "43")

    assert await desk.take(one)
    assert isinstance(await desk.holds.acquire(other, claim(two)), LockOwned)


async def test_an_ended_holder_holds_nothing(desk: Desk) -> None:
    """The journal decides: the lock of an operation that has ended needs no release."""
    one, two = await desk.ask("op-1", "op-2")
    await desk.take(one)
    await desk.end(one)

    assert await desk.take(two)


async def test_those_who_wait_go_in_the_order_of_their_requests(desk: Desk, wakes: SubjectSpy) -> None:
    """The waiter with the lowest sequence is next, whenever it came into the queue: it is woken and dequeued."""
    one, two, three, four = await desk.ask("op-1", "op-2", "op-3", "op-4")
    await desk.take(one)
    for late in (four, two, three):
        assert not await desk.wait(late)
    order = []
    for holder in (one, two, three, four):
        order.append(await desk.holder())
        await desk.holds.release(await desk.end(holder))

    assert order == ["op-1", "op-2", "op-3", "op-4"]
    assert await desk.holder() == ""
    assert woken(wakes) == ["op-2", "op-3", "op-4"]


async def test_nothing_stays_behind(desk: Desk) -> None:
    """Without owners and waiters the bucket is empty, even of markers of removed keys."""
    one, two = await desk.ask("op-1", "op-2")
    await desk.take(one)
    await desk.wait(two)
    for holder in (one, two):
        await desk.holds.release(await desk.end(holder))

    async def is_empty() -> bool:
        everything = subjects.bucket_subject(subjects.HOLDS_BUCKET, ">")
        return await rpc.get_last(desk.stage.link, HOLDS_STREAM, everything) is None

    await eventually(is_empty)


async def test_who_comes_later_does_not_get_ahead(desk: Desk, wakes: SubjectSpy) -> None:
    """A later one that finds the lock free while others wait hands it over to the first of them."""
    one, two, three = await desk.ask("op-1", "op-2", "op-3")
    await desk.take(one)
    await desk.wait(two)
    await desk.end(one)

    assert not await desk.take(three)
    assert await desk.holder() == "op-2"
    assert woken(wakes) == ["op-2"]


async def test_an_end_between_look_and_queue_is_seen(desk: Desk) -> None:
    """No lost wake-up: the owner ends and is released between a read and the enqueueing; the waiter reads once more."""
    one, two = await desk.ask("op-1", "op-2")
    await desk.take(one)
    assert not await desk.take(two)
    await desk.holds.release(await desk.end(one))

    assert await desk.wait(two)


async def test_who_ended_while_waiting_is_passed_over(desk: Desk, wakes: SubjectSpy) -> None:
    """A canceled waiter gets nothing, even if it is still in the queue."""
    one, two, three = await desk.ask("op-1", "op-2", "op-3")
    await desk.take(one)
    await desk.wait(two)
    await desk.wait(three)
    await desk.end(two)
    await desk.holds.release(await desk.end(one))

    assert await desk.holder() == "op-3"
    assert woken(wakes) == ["op-3"]
    assert await desk.keys() == [f"h.{HOLD}"]


async def test_who_ended_leaves_the_queue(desk: Desk) -> None:
    """The release of a waiter removes its key, and leaves the owner alone."""
    one, two = await desk.ask("op-1", "op-2")
    await desk.take(one)
    await desk.wait(two)
    await desk.holds.release(await desk.end(two))

    assert await desk.keys() == [f"h.{HOLD}"]
    assert await desk.holder() == "op-1"


async def test_the_release_of_an_open_one_does_nothing(desk: Desk) -> None:
    """Between two attempts an operation keeps its lock, whichever process calls `release`."""
    (one,) = await desk.ask("op-1")
    await desk.take(one)
    await desk.holds.release(one)
    await desk.holds.release(await extend(desk.stage.journal, one, started()))

    assert await desk.holder() == "op-1"


async def test_who_ended_while_it_entered_the_queue_does_not_stay_in_it(desk: Desk) -> None:
    """Its release came before its key: entering looks at the operation once more, and says that there is news."""
    one, two = await desk.ask("op-1", "op-2")
    await desk.take(one)
    await desk.holds.release(await desk.end(two))

    with pytest.raises(VersionConflict):
        await desk.wait(two)
    assert await desk.keys() == [f"h.{HOLD}"]


async def test_a_wake_that_was_not_sent_is_sent_by_who_repeats_the_release(
    desk: Desk, wakes: SubjectSpy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process dies between hand-over and wake-up: the projector repeats the release until it is done."""
    one, two = await desk.ask("op-1", "op-2")
    await desk.take(one)
    await desk.wait(two)
    ended = await desk.end(one)
    with monkeypatch.context() as patch:
        patch.setattr(desk.holds, "wake", dies)
        with pytest.raises(JournalUnavailable):
            await desk.holds.release(ended)
    assert woken(wakes) == []
    assert await desk.holder() == "op-2"

    await desk.holds.release(ended)
    assert woken(wakes) == ["op-2"]


async def test_nobody_is_woken_who_has_begun(desk: Desk, wakes: SubjectSpy) -> None:
    """Repeating a release costs no wake once the next one runs."""
    one, two = await desk.ask("op-1", "op-2")
    await desk.take(one)
    await desk.wait(two)
    ended = await desk.end(one)
    await desk.holds.release(ended)
    await extend(desk.stage.journal, two, started())
    await desk.holds.release(ended)

    assert woken(wakes) == ["op-2"]


async def dies(_: Claim) -> None:
    """In place of what would come next."""
    raise JournalUnavailable("the process ends here", maybe_stored=False)


async def test_who_waited_is_told_that_it_was_handed_its_hold(desk: Desk) -> None:
    """One that gets the lock at once may begin under the message that brought it; one that had waited may not."""
    one, two = await desk.ask("op-1", "op-2")

    assert await desk.holds.acquire(HOLD, claim(one)) == LockOwned(is_handed=False)
    await desk.wait(two)
    await desk.holds.release(await desk.end(one))
    assert await desk.holds.acquire(HOLD, claim(two)) == LockOwned(is_handed=True)


async def test_a_key_that_is_not_ours_holds_nothing(desk: Desk) -> None:
    """A foreign value in the key is overwritten by the next claim."""
    (one,) = await desk.ask("op-1")
    strange = Claim(operation_id="op.x", sequence=1, kind="no kind")
    for data in (b"\xff", b"[]", msgspec.json.encode(strange)):
        await rpc.publish(desk.stage.link, subjects.bucket_subject(subjects.HOLDS_BUCKET, f"h.{HOLD}"), data, {})

        assert await desk.holder() == ""
        assert await desk.take(one)


async def test_more_wait_than_fit_into_one_answer(desk: Desk) -> None:
    """A queue of any length is read whole: the first is the first of all."""
    one, first = await desk.ask("op-1", "first")
    await desk.take(one)
    waiting = await desk.stage.request(*(f"w-{number}" for number in range(1200)), hold=HOLD)
    for some in (waiting[at : at + 100] for at in range(0, len(waiting), 100)):  # all at once take a slow disk seconds
        await asyncio.gather(*(desk.holds.enqueue(HOLD, o, claim(o), is_watchful=False) for o in map(fold_one, some)))
    await desk.wait(first)

    assert (await desk.holds.queue_positions(first.hold))[first.id] == 1
    await desk.holds.release(await desk.end(one))
    assert await desk.holder() == "first"
    places = await desk.holds.queue_positions(first.hold)
    assert first.id not in places
    assert places[fold_one(waiting[0]).id] >= 1


def fold_one(event: RecordedEvent) -> Operation:
    """The operation after its request."""
    return folded(None, event)


async def test_two_that_race_are_one_winner(desk: Desk, broker: Broker) -> None:
    """Twenty at once over two connections: one owns the lock, the others learn its name."""
    async with linked(broker.url) as further:
        holds = await made(further, await opened(further))
        operations = await desk.ask(*(f"op-{number}" for number in range(20)))
        answers = await asyncio.gather(
            *((desk.holds, holds)[i % 2].acquire(HOLD, claim(one)) for i, one in enumerate(operations))
        )
    holder = await desk.holder()

    assert [isinstance(one, LockOwned) for one in answers].count(True) == 1
    assert {one.owner.operation_id for one in answers if isinstance(one, LockBusy)} == {holder}


async def test_a_later_request_that_replaces_is_seen_by_who_comes_late(desk: Desk) -> None:
    """Of two that replace, the later was in the queue first: the earlier learns that it is not wanted any more."""
    one, two, three = await desk.ask("op-1", "op-2", "op-3")
    await desk.take(one)
    last, late = claim(three, replaces=True), claim(two, replaces=True)
    await desk.holds.enqueue(HOLD, three, last, is_watchful=True)

    assert await desk.holds.enqueue(HOLD, two, late, is_watchful=True) == LockReplaced(last)
    assert isinstance(await desk.holds.enqueue(HOLD, three, last, is_watchful=True), LockBusy)
    await desk.end(one)
    assert await desk.holds.acquire(HOLD, late) == LockReplaced(last)


async def test_a_cluster_agrees_on_one(cluster: Cluster, cluster_link: Connection, cluster_journal: Journal) -> None:
    """Three connections to three nodes: one winner of each race, and a queue that is whole wherever it is read."""
    stage = RunnerStage(cluster_link, cluster_journal)
    async with contextlib.AsyncExitStack() as stack:
        desks = []
        for node in cluster.nodes:
            link = await stack.enter_async_context(linked(node.url))
            desks.append(Desk(RunnerStage(link, cluster_journal), await made(link, await opened(link))))
        operations = await Desk(stage, desks[0].holds).ask(*(f"op-{number}" for number in range(12)))
        everywhere = [(desks[i % 3], one) for i, one in enumerate(operations)]
        taken = await asyncio.gather(*(desk.take(one) for desk, one in everywhere))
        assert taken.count(True) == 1
        first = operations[taken.index(True)]
        assert {await desk.holder() for desk in desks} == {first.id}
        waiting = [(desk, one) for desk, one in everywhere if one is not first]
        assert not any(await asyncio.gather(*(desk.wait(one) for desk, one in waiting)))
        order = [first]
        for _ in waiting:
            ended = await desks[0].end(order[-1])
            await asyncio.gather(*(desk.holds.release(ended) for desk in desks))
            holder = await desks[1].holder()
            order.append(next(one for one in operations if one.id == holder))

    assert [one.id for one in order[1:]] == [one.id for _, one in waiting]
