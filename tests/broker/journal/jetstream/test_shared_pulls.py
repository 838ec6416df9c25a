"""Several consumers with one demand: the order of turns, nothing beyond the demand, and again after trouble."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from opstream_journal import Connection, ConsumerGone, DeliveredMessage
from opstream_journal.jetstream.shared_pulls import EMPTY_SECONDS, SharedPulls
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_schemas import subjects
from opstream_schemas.names import Kind
from tests.support.broker.server import Broker
from tests.support.journal.journals import linked
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

STREAM = subjects.OPERATIONS_STREAM
KINDS = [Kind("book", f"queue-{number}") for number in range(3)]
NAMES = [f"queue-{number}" for number in range(3)]


def in_order(turn: int) -> Sequence[int]:
    """Of four turns, three look into the first queue first, and one into the last."""
    return (2, 0, 1) if turn % 4 == 3 else (0, 1, 2)


async def feed(link: Connection, queue: int, count: int) -> None:
    """Store messages for a queue."""
    js = link.nc.jetstream()
    for number in range(count):
        await js.publish(subjects.event_subject(f"{queue}-{number}", KINDS[queue], "requested"), b"")


async def open_messages(link: Connection) -> list[tuple[int, int]]:
    """Of each queue: the messages that are with processes, and those that are not."""
    infos = [await link.nc.jetstream().consumer_info(STREAM, name) for name in NAMES]
    return [(info.num_ack_pending or 0, info.num_pending or 0) for info in infos]


async def take(pulls: SharedPulls, count: int, *, within: float = 5.0) -> list[DeliveredMessage]:
    async with asyncio.timeout(within):
        return [await pulls.next() for _ in range(count)]


def queue_of(message: DeliveredMessage) -> int:
    return KINDS.index(subjects.parse_event_subject(message.subject).kind)


@pytest.fixture
async def pulls(link: Connection) -> AsyncIterator[SharedPulls]:
    """Pulls from three consumers, without demand so far."""
    for kind, name in zip(KINDS, NAMES, strict=True):
        config = ConsumerConfig(
            durable_name=name,
            filter_subjects=[subjects.action_events_filter(kind, "requested")],
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            ack_wait=30.0,
            max_ack_pending=1_000,
        )
        await link.nc.jetstream().add_consumer(STREAM, config)
    pulls = SharedPulls(link, STREAM, NAMES, order=in_order, clock=time.monotonic)
    await pulls.start()
    yield pulls
    await pulls.stop()


async def test_turns_have_their_order(pulls: SharedPulls, link: Connection) -> None:
    """While two queues wait, each place is filled by the order of its turn."""
    await feed(link, 0, 30)
    await feed(link, 2, 30)
    found = []
    for _ in range(16):
        pulls.add_demand(1)
        (message,) = await take(pulls, 1)
        found.append(queue_of(message))
        await message.ack()

    assert Counter(found) == {0: 12, 2: 4}


async def test_nothing_beyond_the_demand(pulls: SharedPulls, link: Connection) -> None:
    """Whatever waits in how many queues, no more messages are here than there are places."""
    for queue in range(3):
        await feed(link, queue, 20)
    taken = 0
    for more in (1, 5, 12, 2):
        pulls.add_demand(more)
        taken += more
        await take(pulls, more)
        await link.nc.flush()
        assert sum(held for held, _ in await open_messages(link)) == taken


async def test_no_place_stays_empty(pulls: SharedPulls, link: Connection) -> None:
    """If only one queue has something, it gets all places at once, whichever it is."""
    await feed(link, 1, 20)
    pulls.add_demand(20)

    assert {queue_of(message) for message in await take(pulls, 20)} == {1}


async def test_what_comes_while_all_are_empty(pulls: SharedPulls, link: Connection) -> None:
    """A request waits at each queue, so what comes is there at once; and a burst fills all places."""
    pulls.add_demand(10)
    await asyncio.sleep(3 * EMPTY_SECONDS)  # no event says that the requests wait
    for queue in (2, 0, 1):
        await feed(link, queue, 1)
        began = time.monotonic()
        (message,) = await take(pulls, 1)
        assert queue_of(message) == queue
        assert time.monotonic() - began < 1.0
    await feed(link, 2, 7)

    assert {queue_of(message) for message in await take(pulls, 7)} == {2}


async def test_what_comes_too_much_goes_back(pulls: SharedPulls, link: Connection) -> None:
    """Of messages that come for the last place at once one is taken; the others are there for the next places."""
    pulls.add_demand(1)
    await asyncio.sleep(3 * EMPTY_SECONDS)  # as above
    await asyncio.gather(*(feed(link, queue, 1) for queue in range(3)))
    (first,) = await take(pulls, 1)
    await eventually(lambda: _held_is(link, 1))

    pulls.add_demand(2)
    others = await take(pulls, 2)

    assert {queue_of(message) for message in (first, *others)} == {0, 1, 2}


async def _held_is(link: Connection, count: int) -> bool:
    # A message that was given back counts as held until it is delivered again.
    return sum(held + waiting for held, waiting in await open_messages(link)) >= count


async def test_a_paused_queue_delays_no_other(pulls: SharedPulls, link: Connection) -> None:
    """A turn passes over it, and after the pause it gets what it had."""
    await admin.pause_consumer(link, STREAM, NAMES[0], datetime.now(UTC) + timedelta(hours=1))
    await feed(link, 0, 2)
    await feed(link, 1, 10)
    pulls.add_demand(12)

    assert {queue_of(message) for message in await take(pulls, 10)} == {1}

    await admin.pause_consumer(link, STREAM, NAMES[0], None)

    assert {queue_of(message) for message in await take(pulls, 2, within=15.0)} == {0}


async def test_a_broker_that_restarts(broker: Broker, pulls: SharedPulls) -> None:
    """Pulling goes on by itself, from each queue."""
    pulls.add_demand(4)
    broker.kill()
    broker.start()
    async with linked(broker.url) as other:
        for queue in range(3):
            await feed(other, queue, 1)

    assert {queue_of(message) for message in await take(pulls, 3, within=20.0)} == {0, 1, 2}


async def test_one_that_is_deleted(pulls: SharedPulls, link: Connection) -> None:
    """The process learns of it, as of a single consumer, and from then on always."""
    pulls.add_demand(1)
    await link.nc.jetstream().delete_consumer(STREAM, NAMES[2])

    for _ in range(2):
        with pytest.raises(ConsumerGone, match=NAMES[2]):
            await take(pulls, 1, within=20.0)


async def test_what_was_not_taken_is_released(broker: Broker, pulls: SharedPulls, link: Connection) -> None:
    """Another process gets it at once."""
    await feed(link, 0, 2)
    await feed(link, 1, 1)
    pulls.add_demand(3)
    await eventually(lambda: _none_waits(link))
    await pulls.stop()

    async with linked(broker.url) as other:
        successor = SharedPulls(other, STREAM, NAMES, order=in_order, clock=time.monotonic)
        await successor.start()
        successor.add_demand(3)
        found = await take(successor, 3)
        await successor.stop()
    assert sorted(map(queue_of, found)) == [0, 0, 1]


async def _none_waits(link: Connection) -> bool:
    return not any(waiting for _, waiting in await open_messages(link))
