"""Loops over a pull consumer: what they hold, when they are ready, what they release, and how they retry."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from opstream_journal import Connection, ConsumerGone, DeliveredMessage, PullConsumer
from opstream_journal.jetstream.connection import end_task
from opstream_journal.runtime.pull_worker import PullWorker
from opstream_journal.runtime.worker_pool import WorkerPool
from opstream_schemas import subjects
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

STREAM = subjects.OPERATIONS_STREAM
CONSUMER = "worked"


@pytest.fixture
async def consumer(link: Connection) -> PullConsumer:
    """A consumer that is not started yet, with three messages to deliver."""
    js = link.nc.jetstream()
    await js.add_consumer(
        STREAM,
        ConsumerConfig(
            durable_name=CONSUMER, ack_policy=AckPolicy.EXPLICIT, deliver_policy=DeliverPolicy.ALL, ack_wait=30.0
        ),
    )
    for number in range(3):
        await js.publish(subjects.event_subject(f"op-{number}", KIND, "requested"), str(number).encode())
    return PullConsumer(link, STREAM, CONSUMER, clock=time.monotonic)


async def _unacknowledged(link: Connection) -> int:
    return (await link.nc.jetstream().consumer_info(STREAM, CONSUMER)).num_ack_pending or 0


async def _redelivered(link: Connection) -> list[tuple[bytes, int]]:
    """What a successor gets, with the count of its deliveries; it acknowledges all."""
    successor = PullConsumer(link, STREAM, CONSUMER, clock=time.monotonic)
    await successor.start()
    successor.add_demand(3)
    found = []
    while await _outstanding(link):
        async with asyncio.timeout(5.0):
            message = await successor.next()
        await message.ack_confirmed()
        found.append((message.data, message.deliveries))
    await successor.stop()
    return sorted(found)


async def _outstanding(link: Connection) -> int:
    info = await link.nc.jetstream().consumer_info(STREAM, CONSUMER)
    return (info.num_ack_pending or 0) + (info.num_pending or 0)


async def test_the_end_releases_what_is_held(link: Connection, consumer: PullConsumer) -> None:
    """What was neither acknowledged nor released when the loop ends is delivered again at once, and nothing else."""
    worker = PullWorker(link, consumer)
    async with worker.pulling(3):
        messages = [await worker.next() for _ in range(3)]
        await worker.ack(messages[0])
        await worker.release(messages[1], delay=0.1)
    assert await _redelivered(link) == [(b"1", 2), (b"2", 2)]


async def test_ready_while_it_pulls(broker: Broker, link: Connection, consumer: PullConsumer) -> None:
    """A worker is ready from its start to its end, as long as the broker is there."""
    worker = PullWorker(link, consumer)
    assert not worker.is_ready
    async with worker.pulling(1):
        assert worker.is_ready
        broker.kill()
        await eventually(lambda: not worker.is_ready)
        broker.start()
        await eventually(lambda: worker.is_ready)
    assert not worker.is_ready


async def test_a_step_is_retried_with_what_is_left(link: Connection, consumer: PullConsumer) -> None:
    """A step gets what it could not do once more, and the worker is not ready until it has succeeded."""
    worker = PullWorker(link, consumer)
    seen: list[tuple[list[int], bool]] = []

    async def step(work: list[int]) -> list[int]:
        seen.append((work, worker.is_ready))
        return work[1:]

    async with worker.pulling(1):
        assert await worker.retry(step, [1, 2, 3]) == []
        assert seen == [([1, 2, 3], True), ([2, 3], False), ([3], False)]
        assert worker.is_ready


async def test_a_step_that_fails_for_good_is_given_up(link: Connection, consumer: PullConsumer) -> None:
    """After six tries the rest is returned; where a part succeeded and that is final, after the first."""
    worker = PullWorker(link, consumer)
    tries = 0

    async def nothing(work: list[int]) -> list[int]:
        nonlocal tries
        tries += 1
        return work

    async def a_part(work: list[int]) -> list[int]:
        nonlocal tries
        tries += 1
        return work[1:]

    assert await worker.retry(nothing, [1, 2]) == [1, 2]
    assert tries == 6
    tries = 0
    assert await worker.retry(a_part, [1, 2], is_partial_final=True) == [2]
    assert tries == 1


async def test_an_outage_costs_no_try(broker: Broker, link: Connection, consumer: PullConsumer) -> None:
    """While the broker is away a step is not tried at all; it goes on when the broker is back."""
    worker = PullWorker(link, consumer)
    states: list[bool] = []
    broker.kill()
    await eventually(lambda: not link.is_connected)

    async def step(work: list[int]) -> list[int]:
        states.append(link.is_connected)
        return [] if link.is_connected else work

    task = asyncio.create_task(worker.retry(step, [1]))
    await eventually(lambda: states == [False])
    broker.start()
    assert await task == []
    assert states == [False, True]


async def test_what_has_gathered_comes_together(link: Connection, consumer: PullConsumer) -> None:
    """A batch holds what was stored before it and while it lingered, up to its limit, and nothing else is delivered."""
    worker = PullWorker(link, consumer)
    async with worker.pulling(0):
        batch = await worker.gather(0.0, 2)
        assert [message.data for message in batch] == [b"0", b"1"]
        assert await _unacknowledged(link) == 2
        lingering = asyncio.create_task(worker.gather(1.0, 100))
        await eventually(lambda: _has_unacknowledged(link, 3))
        for number in range(3, 9):
            await link.nc.jetstream().publish(subjects.event_subject(f"op-{number}", KIND, "requested"), b"%d" % number)
        assert await _unacknowledged(link) == 3  # nothing is asked for while it lingers
        batch += await lingering
        assert [message.data for message in batch] == [b"%d" % number for number in range(9)]
        for message in batch:
            await worker.ack(message)
    assert await _outstanding(link) == 0


async def _has_unacknowledged(link: Connection, count: int) -> bool:
    return await _unacknowledged(link) == count


async def test_a_batch_without_followers(link: Connection, consumer: PullConsumer) -> None:
    """A batch does not wait for messages that do not come; the next one begins with what was asked for."""
    worker = PullWorker(link, consumer)
    async with worker.pulling(0):
        assert len(await worker.gather(0.0, 100)) == 3
        late = asyncio.create_task(worker.gather(0.0, 100))
        await link.nc.jetstream().publish(subjects.event_subject("op-3", KIND, "requested"), b"3")
        assert [message.data for message in await late] == [b"3"]
        await link.nc.jetstream().publish(subjects.event_subject("op-4", KIND, "requested"), b"4")
        assert [message.data for message in await worker.gather(0.0, 100)] == [b"4"]


async def test_two_that_gather_share_all(link: Connection, consumer: PullConsumer) -> None:
    """Messages that another one has got are not waited for, and each comes once."""
    own = PullWorker(link, consumer)
    other = PullWorker(link, PullConsumer(link, STREAM, CONSUMER, clock=time.monotonic))
    for number in range(3, 60):
        await link.nc.jetstream().publish(subjects.event_subject(f"op-{number}", KIND, "requested"), b"%d" % number)
    found: list[bytes] = []

    async def take(worker: PullWorker) -> None:
        async with worker.pulling(0):
            while True:
                for message in await worker.gather(0.01, 20):
                    found.append(message.data)
                    await worker.ack(message)

    tasks = [asyncio.create_task(take(worker)) for worker in (own, other)]
    await eventually(lambda: len(found) == 60)
    for task in tasks:
        await end_task(task)
    assert sorted(found, key=int) == [b"%d" % number for number in range(60)]
    assert await _outstanding(link) == 0


@contextlib.asynccontextmanager
async def _running(pool: WorkerPool, started: list[DeliveredMessage], work: asyncio.Event) -> AsyncIterator[None]:
    """A pool that acknowledges the first message at once, and each other one in a task, once `work` is set."""

    async def finish(message: DeliveredMessage) -> None:
        started.append(message)
        await work.wait()
        await message.ack()

    async def handle(message: DeliveredMessage) -> bool:
        if message.data == b"0":
            await message.ack()
            return True
        pool.spawn(message, finish(message))
        return False

    task = asyncio.create_task(pool.run(handle))
    try:
        yield
    finally:
        await end_task(task)


async def test_a_pool_keeps_to_its_slots(link: Connection, consumer: PullConsumer) -> None:
    """A message in work occupies a slot until it is acknowledged; one that is done at once does not."""
    pool, started, work = WorkerPool(link, consumer, slots=1), list[DeliveredMessage](), asyncio.Event()
    async with _running(pool, started, work):
        await eventually(lambda: len(started) == 1)
        assert pool.is_ready
        assert await _unacknowledged(link) == 1
        work.set()
        await eventually(lambda: len(started) == 2)
    assert await _outstanding(link) == 0


async def test_a_pool_that_lingers(link: Connection, consumer: PullConsumer) -> None:
    """Messages gather on the broker and come together; once there is no time to linger, each comes as it is stored."""
    seen: list[bytes] = []
    seconds = 0.5
    pool = WorkerPool(link, consumer, slots=50, linger=lambda: seconds)

    async def handle(message: DeliveredMessage) -> bool:
        seen.append(message.data)
        await message.ack()
        return True

    async def publish(number: int) -> None:
        await link.nc.jetstream().publish(subjects.event_subject(f"op-{number}", KIND, "requested"), b"%d" % number)

    task = asyncio.create_task(pool.run(handle))
    await eventually(lambda: len(seen) == 3)
    await eventually(lambda: _has_open_pulls(link, 0))
    for number in range(3, 100):
        await publish(number)
    await eventually(lambda: len(seen) == 100)
    seconds = 0.0
    await publish(100)
    await publish(101)
    await eventually(lambda: len(seen) == 102)
    await eventually(lambda: _has_open_pulls(link, 1))
    await end_task(task)
    assert sorted(seen, key=int) == [b"%d" % number for number in range(102)]
    assert await _outstanding(link) == 0


async def _has_open_pulls(link: Connection, count: int) -> bool:
    return (await link.nc.jetstream().consumer_info(STREAM, CONSUMER)).num_waiting == count


async def test_a_pool_releases_what_does_not_end(link: Connection, consumer: PullConsumer) -> None:
    """Tasks that do not end in time are cancelled, and their messages delivered again."""
    pool, started, work = WorkerPool(link, consumer, slots=3), list[DeliveredMessage](), asyncio.Event()
    async with _running(pool, started, work):
        await eventually(lambda: len(started) == 2)
    assert not pool.is_ready
    assert await _redelivered(link) == [(b"1", 2), (b"2", 2)]


async def test_a_pool_that_fails_twice_says_so_once(
    link: Connection, consumer: PullConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stream that was deleted both a task and the pulls hear: one error is raised, and none goes to the log."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    pool = WorkerPool(link, consumer, slots=2)

    async def fail() -> None:
        raise RuntimeError("the stream is gone")

    async def gone() -> DeliveredMessage:
        assert pool._failure is not None
        while not pool._failure.done():  # noqa: ASYNC110 - a turn of the loop later the pool would have looked
            await asyncio.sleep(0)
        raise ConsumerGone("the stream is gone")

    async def handle(message: DeliveredMessage) -> bool:
        pool.spawn(message, fail())
        monkeypatch.setattr(pool._worker, "next", gone)
        return False

    raised = ""
    try:
        await pool.run(handle)
    except RuntimeError as error:
        raised = str(error)
    pool._failure = None  # its error's traceback has the frame that has the task
    gc.collect()
    assert (raised, unheard) == ("the stream is gone", [])


async def test_a_pool_ends_with_the_failure_of_a_task(link: Connection, consumer: PullConsumer) -> None:
    """What a task raises ends the pool, and the message is delivered again."""
    pool = WorkerPool(link, consumer, slots=1)

    async def fail() -> None:
        raise ValueError("a bug")

    async def handle(message: DeliveredMessage) -> bool:
        pool.spawn(message, fail())
        return False

    with pytest.raises(ValueError, match="a bug"):
        await pool.run(handle)
    assert (await _redelivered(link))[0] == (b"0", 2)


async def test_a_pool_ends_with_its_consumer(link: Connection, consumer: PullConsumer) -> None:
    """A deleted consumer ends the pool with the reason."""
    pool = WorkerPool(link, consumer, slots=1)
    async with asyncio.timeout(10):
        task = asyncio.create_task(_ignoring(pool))
        await eventually(lambda: pool.is_ready)
        await link.nc.jetstream().delete_consumer(STREAM, CONSUMER)
        with pytest.raises(ConsumerGone):
            await task


async def _ignoring(pool: WorkerPool) -> None:
    async def handle(message: DeliveredMessage) -> bool:
        await message.ack()
        return True

    await pool.run(handle)
