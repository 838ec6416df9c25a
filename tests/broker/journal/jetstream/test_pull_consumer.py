"""Pulling with explicit demand: exactly what was wanted, nothing kept back, and again after every kind of trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from opstream_journal import Connection, ConsumerGone, DeliveredMessage, PullConsumer
from opstream_journal.jetstream import rpc
from opstream_schemas import subjects
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, linked
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

STREAM = subjects.OPERATIONS_STREAM
CONSUMER = "pulled"


async def make_consumer(link: Connection, *, ack_wait: float = 30.0) -> None:
    config = ConsumerConfig(
        durable_name=CONSUMER,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=ack_wait,
        max_deliver=-1,
        max_ack_pending=10_000,
    )
    await link.nc.jetstream().add_consumer(STREAM, config)


async def feed(link: Connection, count: int, *, start: int = 0) -> None:
    """Store `count` messages whose bodies are their numbers."""
    js = link.nc.jetstream()
    for number in range(start, start + count):
        await js.publish(subjects.event_subject(f"op-{number}", KIND, "requested"), str(number).encode())


async def pending(link: Connection) -> tuple[int, int]:
    """Return how many messages are delivered and not acknowledged, and how many are not delivered yet."""
    info = await link.nc.jetstream().consumer_info(STREAM, CONSUMER)
    return info.num_ack_pending or 0, info.num_pending or 0


async def take(consumer: PullConsumer, count: int, *, within: float = 5.0) -> list[DeliveredMessage]:
    async with asyncio.timeout(within):
        return [await consumer.next() for _ in range(count)]


def bodies(messages: list[DeliveredMessage]) -> list[int]:
    return [int(message.data) for message in messages]


@pytest.fixture
async def consumer(link: Connection) -> AsyncIterator[PullConsumer]:
    """A pull consumer without demand so far."""
    await make_consumer(link)
    consumer = PullConsumer(link, STREAM, CONSUMER, clock=time.monotonic)
    await consumer.start()
    yield consumer
    await consumer.stop()


async def test_demand_is_respected(consumer: PullConsumer, link: Connection) -> None:
    """The broker hands out as many messages as were wanted, and not one more, whatever happens to those."""
    await feed(link, 50)
    wanted = 0
    for more in (1, 4, 2, 10, 3):
        consumer.add_demand(more)
        wanted += more
        for message in await take(consumer, more):
            await message.ack()
        await eventually(lambda wanted=wanted: _is_at(link, 0, 50 - wanted))
        assert consumer.next_nowait() is None


async def _is_at(link: Connection, unacknowledged: int, undelivered: int) -> bool:
    return await pending(link) == (unacknowledged, undelivered)


async def test_demand_without_acks(consumer: PullConsumer, link: Connection) -> None:
    """Messages that `next` has not returned yet count: the broker delivers nothing beyond the demand."""
    await feed(link, 20)
    consumer.add_demand(7)
    await eventually(lambda: _is_at(link, 7, 13))
    await link.nc.flush()
    assert await pending(link) == (7, 13)


async def test_nothing_without_demand(consumer: PullConsumer, link: Connection) -> None:
    """Without demand nothing is delivered."""
    await feed(link, 3)
    assert consumer.next_nowait() is None
    assert await pending(link) == (0, 3)


async def test_messages_say_what_they_are(consumer: PullConsumer, link: Connection) -> None:
    """A message has its subject, its stream sequence and the number of its delivery."""
    await feed(link, 2)
    consumer.add_demand(2)
    messages = await take(consumer, 2)
    assert [(m.subject, m.sequence, m.deliveries, m.data) for m in messages] == [
        ("operations.op-0.book.upload-start.requested", 1, 1, b"0"),
        ("operations.op-1.book.upload-start.requested", 2, 1, b"1"),
    ]


async def test_waiting_for_what_is_stored_later(consumer: PullConsumer, link: Connection) -> None:
    """Demand outlives the pull with which it was asked for: a later message comes at once."""
    consumer.add_demand(3)
    waiting = asyncio.create_task(take(consumer, 3))
    await eventually(lambda: _has_waiting(link))
    await feed(link, 3)
    assert bodies(await waiting) == [0, 1, 2]


async def _has_waiting(link: Connection) -> bool:
    return bool((await link.nc.jetstream().consumer_info(STREAM, CONSUMER)).num_waiting)


async def test_pulls_that_expire(link: Connection) -> None:
    """Pulls that expire at the broker, served in part or not at all, are asked again, and the demand stays exact."""
    await make_consumer(link)
    consumer = PullConsumer(link, STREAM, CONSUMER, clock=time.monotonic, expires=1.0, heartbeat=0.25)
    pulled: list[int] = []

    async def note(request: Msg) -> None:
        pulled.append(msgspec.json.decode(request.data)["batch"])

    await link.nc.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}", cb=note)
    await consumer.start()
    await feed(link, 2)
    consumer.add_demand(5)
    assert bodies(await take(consumer, 2)) == [0, 1]
    await eventually(lambda: len(pulled) == 4, within=9)
    assert pulled == [5, 3, 3, 3]
    await eventually(lambda: _waits_for(consumer, 3))
    await feed(link, 10, start=2)
    assert bodies(await take(consumer, 3)) == [2, 3, 4]
    await link.nc.flush()

    async def is_exact() -> bool:  # the broker counts what it has not delivered a moment later
        return await pending(link) == (5, 7)

    await eventually(is_exact)
    await consumer.stop()


def _waits_for(consumer: PullConsumer, count: int) -> bool:
    return consumer._outstanding == count


async def test_nak_with_delay(consumer: PullConsumer, link: Connection) -> None:
    """A message that was given back with a delay comes again after it, counted as a second delivery."""
    await feed(link, 1)
    consumer.add_demand(2)
    (message,) = await take(consumer, 1)
    began = time.monotonic()
    await message.nak(0.5)
    (again,) = await take(consumer, 1)
    assert 0.45 < time.monotonic() - began < 1.5
    assert (again.sequence, again.deliveries) == (message.sequence, 2)


async def test_nak_without_delay(consumer: PullConsumer, link: Connection) -> None:
    """A message that was given back at once comes again at once."""
    await feed(link, 1)
    consumer.add_demand(2)
    (message,) = await take(consumer, 1)
    await message.nak()
    (again,) = await take(consumer, 1, within=0.5)
    assert again.deliveries == 2


async def test_in_progress_keeps_a_message(link: Connection) -> None:
    """A message stays with a process that extends its lease, and is delivered again after a silence of ack_wait."""
    await make_consumer(link, ack_wait=1.2)
    consumer = PullConsumer(link, STREAM, CONSUMER, clock=time.monotonic)
    await consumer.start()
    await feed(link, 1)
    consumer.add_demand(2)
    (message,) = await take(consumer, 1)
    for _ in range(20):
        await asyncio.sleep(0.1)  # the signs of life are what is tested, and far more frequent than they need to be
        await message.in_progress()
    assert consumer.next_nowait() is None
    (again,) = await take(consumer, 1, within=5)
    assert (again.sequence, again.deliveries) == (message.sequence, 2)
    await consumer.stop()


async def test_acks(consumer: PullConsumer, link: Connection) -> None:
    """Both kinds of ack end a message for good; the confirmed one has done so when it returns."""
    await feed(link, 2)
    consumer.add_demand(2)
    one, two = await take(consumer, 2)
    await one.ack_confirmed()
    assert (await pending(link))[0] == 1
    await two.ack()
    await eventually(lambda: _is_at(link, 0, 0))


async def test_stop_gives_back(broker: Broker, consumer: PullConsumer, link: Connection) -> None:
    """What was delivered but not taken when a pull consumer stops is delivered to another one at once."""
    await feed(link, 5)
    consumer.add_demand(5)
    (taken,) = await take(consumer, 1)
    await eventually(lambda: _is_at(link, 5, 0))
    async with linked(broker.url) as other:
        successor = PullConsumer(other, STREAM, CONSUMER, clock=time.monotonic)
        await successor.start()
        successor.add_demand(5)
        began = time.monotonic()
        await consumer.stop()
        given_back = await take(successor, 4, within=1)
        assert time.monotonic() - began < 1
        assert (bodies([taken]), sorted(bodies(given_back))) == ([0], [1, 2, 3, 4])
        assert {message.deliveries for message in given_back} == {2}
        await successor.stop()


async def test_stop_leaves_no_pull_behind(broker: Broker, consumer: PullConsumer, link: Connection) -> None:
    """What is stored after a pull consumer has stopped goes to another one, and is not lost."""
    consumer.add_demand(50)
    await eventually(lambda: _has_waiting(link))
    await consumer.stop()
    async with linked(broker.url) as other:
        successor = PullConsumer(other, STREAM, CONSUMER, clock=time.monotonic)
        await successor.start()
        successor.add_demand(20)
        await feed(link, 20)
        messages = await take(successor, 20, within=2)
        assert (bodies(messages), {m.deliveries for m in messages}) == (list(range(20)), {1})
        await successor.stop()


async def test_stop_while_messages_arrive(broker: Broker, link: Connection) -> None:
    """Pullers that stop in the middle of a stream of messages lose none and keep none."""
    await make_consumer(link)
    await feed(link, 300)
    seen: list[int] = []
    async with linked(broker.url) as other:
        for _ in range(20):
            consumer = PullConsumer(other, STREAM, CONSUMER, clock=time.monotonic)
            await consumer.start()
            consumer.add_demand(40)
            for message in await take(consumer, 5):
                seen.append(int(message.data))
                await message.ack()
            await consumer.stop()
        assert other._reconnect_callbacks == []
        consumer = PullConsumer(other, STREAM, CONSUMER, clock=time.monotonic)
        await consumer.start()
        consumer.add_demand(200)
        for message in await take(consumer, 200):
            seen.append(int(message.data))
            await message.ack()
        await consumer.stop()
    assert sorted(seen) == list(range(300))
    await eventually(lambda: _is_at(link, 0, 0))


async def test_stop_with_a_broker_that_hangs(broker: Broker, consumer: PullConsumer, link: Connection) -> None:
    """Stopping ends in bounded time and without an error when the broker answers nothing."""
    await feed(link, 2)
    consumer.add_demand(2)
    await eventually(lambda: _is_at(link, 2, 0))
    broker.pause()
    began = time.monotonic()
    await consumer.stop()
    assert time.monotonic() - began < 2.5
    broker.resume()
    successor = PullConsumer(link, STREAM, CONSUMER, clock=time.monotonic)
    await successor.start()
    successor.add_demand(2)
    assert sorted(bodies(await take(successor, 2, within=1))) == [0, 1]
    await successor.stop()


async def test_stop_without_a_broker(broker: Broker, consumer: PullConsumer, link: Connection) -> None:
    """Stopping ends at once and without an error when the broker is gone."""
    await feed(link, 2)
    consumer.add_demand(2)
    await eventually(lambda: _is_at(link, 2, 0))
    broker.kill()
    await eventually(lambda: not link.is_connected)
    began = time.monotonic()
    await consumer.stop()
    await consumer.stop()
    assert time.monotonic() - began < 0.5
    broker.start()


async def test_a_deleted_consumer(consumer: PullConsumer, link: Connection) -> None:
    """When the consumer is deleted, messages that were delivered before are still returned, then every call raises."""
    await feed(link, 1)
    consumer.add_demand(3)
    await eventually(lambda: _is_at(link, 1, 0))
    await link.nc.jetstream().delete_consumer(STREAM, CONSUMER)
    assert bodies(await take(consumer, 1)) == [0]
    for _ in range(2):
        with pytest.raises(ConsumerGone):
            await asyncio.wait_for(consumer.next(), 5)
    with pytest.raises(ConsumerGone):
        consumer.next_nowait()
    await consumer.stop()


async def test_the_lines_of_a_deleted_consumer(
    consumer: PullConsumer, link: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The error alone says that a consumer is gone: no line says that it can't be pulled from, or can be again."""
    caplog.set_level("INFO")
    consumer.add_demand(3)
    await eventually(lambda: _is_at(link, 0, 0))
    await link.nc.jetstream().delete_consumer(STREAM, CONSUMER)
    with pytest.raises(ConsumerGone, match="was deleted: restart this process, which makes it again"):
        await asyncio.wait_for(consumer.next(), 5)
    assert consumer.is_gone
    await consumer.stop()
    assert "pulled" not in caplog.text


async def test_a_stop_in_an_outage_is_not_its_end(
    consumer: PullConsumer, link: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A consumer that stops while its pulls fail does not say that they work again."""
    caplog.set_level("INFO")
    link.pulls.failed(CONSUMER, "503")
    await consumer.stop()
    assert "can't be pulled" in caplog.text
    assert "pulled again" not in caplog.text
    assert not link.pulls.is_failing


async def test_an_ack_without_a_broker(
    broker: Broker, consumer: PullConsumer, link: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that can't be settled, since the broker has gone, comes again: that is no line of its own."""
    caplog.set_level("INFO")
    await feed(link, 1)
    consumer.add_demand(1)
    message = await asyncio.wait_for(consumer.next(), 5)
    broker.stop()
    await eventually(lambda: not link.is_connected)
    for settle in (message.ack, message.nak, message.in_progress):
        await settle()
    assert str(message.sequence) not in [word for one in caplog.records for word in one.getMessage().split()]
    assert "b'" not in caplog.text
    broker.start()


async def test_a_deleted_stream(consumer: PullConsumer, link: Connection) -> None:
    """When the stream is deleted, a restart does not make it again: the error names the command that does."""
    await feed(link, 1)
    consumer.add_demand(3)
    await eventually(lambda: _is_at(link, 1, 0))
    await link.nc.jetstream().delete_stream(STREAM)
    assert bodies(await take(consumer, 1)) == [0]
    with pytest.raises(ConsumerGone, match=f"stream {STREAM} was deleted, .* run 'opstream provision'.* then restart"):
        await asyncio.wait_for(consumer.next(), 10)
    await consumer.stop()


async def test_a_consumer_that_refuses(link: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """A consumer whose limits allow no pull is logged once, and pulled from again: an operator may correct it."""
    limits = {"durable_name": CONSUMER, "ack_policy": "explicit", "max_expires": 1_000_000_000}
    request = msgspec.json.encode({"stream_name": STREAM, "config": limits, "action": "create"})
    await rpc.call(link, f"$JS.API.CONSUMER.CREATE.{STREAM}.{CONSUMER}", request)
    consumer = PullConsumer(link, STREAM, CONSUMER, clock=time.monotonic)
    await consumer.start()
    await feed(link, 1)
    consumer.add_demand(1)

    def refusals() -> list[str]:
        return [one.levelname for one in caplog.records if "Exceeded MaxRequestExpires" in one.getMessage()]

    with caplog.at_level("DEBUG", "opstream_journal.jetstream.connection"):
        await eventually(lambda: len(refusals()) >= 3, within=10)
    assert refusals()[:3] == ["WARNING", "DEBUG", "DEBUG"]
    await consumer.stop()


async def test_a_consumer_that_never_was(link: Connection) -> None:
    """A consumer that does not exist is reported."""
    consumer = PullConsumer(link, STREAM, "nobody", clock=time.monotonic)
    await consumer.start()
    consumer.add_demand(1)
    with pytest.raises(ConsumerGone):
        await asyncio.wait_for(consumer.next(), 5)
    await consumer.stop()


async def test_a_broker_restart(broker: Broker, consumer: PullConsumer, link: Connection) -> None:
    """After a SIGKILL of the broker the same pull consumer goes on, with the same demand, and no message is missed."""
    await feed(link, 12)
    consumer.add_demand(4)
    seen = set(bodies(await take(consumer, 2)))
    broker.kill()
    await asyncio.to_thread(broker.start)
    await eventually(lambda: link.is_connected)
    seen |= set(bodies(await take(consumer, 2, within=2)))
    while len(seen) < 12:
        await link.nc.flush()
        assert consumer.next_nowait() is None
        consumer.add_demand(1)
        seen |= set(bodies(await take(consumer, 1, within=2)))


async def test_a_broker_that_hung(broker: Broker, link: Connection) -> None:
    """After a SIGSTOP that was longer than two heartbeats it goes on, and gets nothing beyond the demand."""
    await make_consumer(link)
    consumer = PullConsumer(link, STREAM, CONSUMER, clock=time.monotonic, expires=2.0, heartbeat=0.1)
    await consumer.start()
    consumer.add_demand(3)
    await eventually(lambda: _has_waiting(link))
    broker.pause()
    asked = link.nc.stats["out_msgs"]
    await eventually(lambda: link.nc.stats["out_msgs"] > asked)
    broker.resume()
    await feed(link, 10)
    assert bodies(await take(consumer, 3)) == [0, 1, 2]
    await link.nc.flush()
    assert (consumer.next_nowait(), await pending(link)) == (None, (3, 7))
    await consumer.stop()


async def test_a_pull_that_got_lost(link: Connection) -> None:
    """When the broker falls silent about a pull and is there all the same, it is asked again."""
    await make_consumer(link)
    consumer = PullConsumer(link, STREAM, CONSUMER, clock=time.monotonic, expires=60.0, heartbeat=0.1)
    await consumer.start()
    consumer._outstanding = 3
    consumer.add_demand(3)
    await feed(link, 3)
    assert bodies(await take(consumer, 3)) == [0, 1, 2]
    await consumer.stop()


async def test_connections_that_break(broker: Broker, consumer: PullConsumer, link: Connection) -> None:
    """However often the connection breaks, every message is handed out once and the demand stays exact."""
    consumer.add_demand(1)
    for number in range(20):
        if number % 4 == 3:
            await link.nc.force_reconnect()
            await eventually(lambda: link.is_connected)
        await feed(link, 1, start=number)
        (message,) = await take(consumer, 1)
        assert int(message.data) == number
        await message.ack_confirmed()
        consumer.add_demand(1)
    assert await pending(link) == (0, 0)


async def test_throughput(consumer: PullConsumer, link: Connection) -> None:
    """Messages go through a small window by the thousand in a second, each once and in order."""
    count = 2_000
    js = link.nc.jetstream()
    for start in range(0, count, 500):
        await asyncio.gather(
            *(js.publish(f"operations.o{n}.a.b.requested", b"%d" % n) for n in range(start, start + 500))
        )
    consumer.add_demand(64)
    began = time.monotonic()
    numbers = []
    for _ in range(count):
        message = await consumer.next()
        numbers.append(message.sequence)
        await message.ack()
        consumer.add_demand(1)
    assert numbers == list(range(1, count + 1))
    assert time.monotonic() - began < 2
