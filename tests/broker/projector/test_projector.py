"""The projector on a real broker: the view becomes the fold of the journal, however events are delivered."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from opstream_journal import (
    NEW_OPERATION,
    Connection,
    ConsumerGone,
    DeliveredMessage,
    Journal,
    PullConsumer,
    SnapshotStore,
)
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, EventData, Failed, Progressed, encode_event
from opstream_schemas.operation.state import Operation
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, begin, extend, first, folded, following, linked, opened
from tests.support.projector.projection import (
    LIFE,
    RESULT,
    assert_is_fold,
    is_gone,
    live,
    projector,
    quick_consumer,
    reaches,
    running,
    settled,
    utc_now,
    view_writes,
)
from tests.support.schemas.histories import FAILURE, FromTheFuture, request, started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


async def taken(consumer: PullConsumer, count: int) -> list[DeliveredMessage]:
    await consumer.start()
    consumer.add_demand(count)
    return [await consumer.next() for _ in range(count)]


async def publish(link: Connection, operation_id: str, event: str, payload: bytes) -> int:
    """Store bytes as a foreign program would."""
    ack = await link.nc.jetstream().publish(subjects.event_subject(operation_id, KIND, event), payload)
    return ack.seq


async def test_the_view_follows_the_journal(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """Each event becomes part of its operation's snapshot, open or ended."""
    async with running(projector(link, journal)):
        await live(journal, "done", *LIFE)
        await live(journal, "open", *LIFE[:2])
        await begin(journal, "new")
        await settled(link)

    await assert_is_fold(view, journal, ["done", "open", "new"])


async def test_a_backlog_is_written_once_an_operation(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """Events that are delivered together are folded together."""
    names = [f"op-{number}" for number in range(20)]
    for name in names:
        await live(journal, name, *LIFE)

    async with running(projector(link, journal)):
        await settled(link)

    await assert_is_fold(view, journal, names)
    assert await view_writes(link) == len(names)


async def test_short_operations_are_coalesced_as_they_come(
    link: Connection, journal: Journal, view: SnapshotStore
) -> None:
    """There are fewer writes than events, although a batch lingers only a moment."""
    names = [f"op-{number}" for number in range(40)]

    async with running(projector(link, journal)):
        await asyncio.gather(*(live(journal, name, *LIFE) for name in names))
        await settled(link)

    await assert_is_fold(view, journal, names)
    assert await view_writes(link) < 3 * len(names)


async def test_events_out_of_order(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """The gap before the later ones is repaired from the journal; the first one comes late and changes nothing."""
    consumer = await quick_consumer(link, "quick", ack_wait=30)
    operation = await begin(journal, "op-1")
    other = PullConsumer(link, subjects.OPERATIONS_STREAM, consumer, clock=time.monotonic)
    [held] = await taken(other, 1)
    await other.stop()

    async with running(projector(link, journal, consumer=consumer)):
        await extend(journal, operation, *LIFE[:2])
        await eventually(lambda: reaches(view, "op-1", 3))
        await held.nak()
        await settled(link, consumer)

    await assert_is_fold(view, journal, ["op-1"])
    assert await view_writes(link) <= 2


async def test_a_gap_is_repaired(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """An event that is never delivered to this replica is read from the journal."""
    consumer = await quick_consumer(link, "quick", ack_wait=30)
    async with running(projector(link, journal, consumer=consumer)):
        operation = await begin(journal, "op-1")
        await settled(link, consumer)
    operation = await extend(journal, operation, started())
    thief = PullConsumer(link, subjects.OPERATIONS_STREAM, consumer, clock=time.monotonic)
    [stolen] = await taken(thief, 1)
    await stolen.ack_confirmed()
    await thief.stop()

    async with running(projector(link, journal, consumer=consumer)):
        await extend(journal, operation, Progressed(percent=1.0))
        await settled(link, consumer)

    await assert_is_fold(view, journal, ["op-1"])


async def test_everything_delivered_again_changes_nothing(
    link: Connection, journal: Journal, view: SnapshotStore
) -> None:
    """A new replica with an empty cache changes no revision."""
    names = [f"op-{number}" for number in range(10)]
    for name in names:
        await live(journal, name, *LIFE)
    async with running(projector(link, journal)):
        await settled(link)
    before = await view_writes(link)
    again = await quick_consumer(link, "again", ack_wait=30)

    async with running(projector(link, journal, consumer=again)):
        await settled(link, again)

    assert await view_writes(link) == before
    await assert_is_fold(view, journal, names)


async def test_two_replicas_under_load(broker: Broker, link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """The events of one operation are spread over both; every snapshot becomes the fold, byte for byte."""
    names = [f"op-{number}" for number in range(200)]
    async with linked(broker.url) as first_link, linked(broker.url) as second_link:
        replicas = [
            projector(first_link, await opened(first_link), linger=0.005),
            projector(second_link, await opened(second_link), linger=0.005),
        ]
        async with running(*replicas):
            todo = iter(names)

            async def client() -> None:
                for name in todo:
                    await live(journal, name, *LIFE[:2], *(Progressed(percent=float(n)) for n in range(3)), RESULT)

            await asyncio.gather(*(client() for _ in range(32)))
            await settled(link)

    await assert_is_fold(view, journal, names)


async def test_a_terminal_snapshot_expires(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """It expires after its retention, counted from the end; an open one outlives its deadline."""
    async with running(projector(link, journal)):
        for name, datas in (("done", LIFE), ("open", LIFE[:2])):
            event = first(name, data=request(retention=2.0, deadline=utc_now() + timedelta(hours=1)))
            stored = await journal.append(KIND, event, NEW_OPERATION, budget=5)
            await extend(journal, folded(None, stored), *datas)
        assert await eventually(lambda: reaches(view, "done", 4))
        await eventually(lambda: is_gone(view, "done"), within=8)
        await settled(link)

    assert (await view.get_newest("open")).operation is not None


async def test_a_failed_one_stays_while_others_expire(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """Each outcome has its own retention, which is part of the request."""
    ends = {"done": RESULT, "bad": Failed(error=FAILURE), "off": Canceled()}
    data = request(retention=2.0, retention_failed=3600.0, retention_canceled=3.0)
    async with running(projector(link, journal)):
        for name, end in ends.items():
            stored = await journal.append(KIND, first(name, data=data), NEW_OPERATION, budget=5)
            await extend(journal, folded(None, stored), started(), end)
        for name in ends:
            assert await eventually(lambda name=name: reaches(view, name, 3))
        for name in ("done", "off"):
            await eventually(lambda name=name: is_gone(view, name), within=8)
        await settled(link)

    kept = (await view.get_newest("bad")).operation
    assert kept is not None
    assert kept.effective_retention == 3600.0


async def _long_ago(journal: Journal, operation_id: str, *datas: EventData) -> Operation:
    """An operation of an hour ago with a retention of a minute."""
    hour = timedelta(hours=1)
    event = msgspec.structs.replace(first(operation_id, data=request(retention=60.0)), time=utc_now() - hour)
    operation = folded(None, await journal.append(KIND, event, NEW_OPERATION, budget=5))
    for data in datas:
        event = msgspec.structs.replace(following(operation, data), time=utc_now() - hour)
        expected: Any = operation.stream_sequence
        operation = folded(operation, await journal.append(KIND, event, expected, budget=5))
    return operation


async def test_an_expired_snapshot_is_not_written(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """A projector that starts after a long time does not write expired statuses again."""
    await _long_ago(journal, "done", *LIFE)
    await _long_ago(journal, "open", *LIFE[:2])

    async with running(projector(link, journal)):
        await settled(link)

    assert await is_gone(view, "done")
    await assert_is_fold(view, journal, ["open"])
    assert await view_writes(link) == 1


async def test_an_open_snapshot_past_its_retention_expires(
    link: Connection, journal: Journal, view: SnapshotStore
) -> None:
    """A snapshot that was written while the operation ran must not stay forever."""
    operation = await _long_ago(journal, "op-1", started())
    assert await view.put(operation, 0) is not None
    ended = msgspec.structs.replace(following(operation, RESULT), time=utc_now() - timedelta(minutes=50))
    expected: Any = operation.stream_sequence
    await journal.append(KIND, ended, expected, budget=5)

    async with running(projector(link, journal)):
        await settled(link)
        await eventually(lambda: is_gone(view, "op-1"), within=8)


async def test_foreign_events_are_skipped(
    link: Connection, journal: Journal, view: SnapshotStore, caplog: pytest.LogCaptureFixture
) -> None:
    """They are logged with operation and sequence; earlier state stays, other operations continue."""
    operation = await live(journal, "hurt", started())
    damaged = await publish(link, "hurt", "progressed", b"\x00 not an event")
    broken = await live(journal, "lied", started())
    liar = msgspec.structs.replace(following(broken, Progressed(percent=9.0)), previous_hash="f" * 64)
    refused = await publish(link, "lied", "progressed", encode_event(liar))
    early = msgspec.structs.replace(first("never"), position=7)
    beginning = await publish(link, "never", "requested", encode_event(early))

    async with running(projector(link, journal)):
        await live(journal, "well", *LIFE)
        await eventually(lambda: reaches(view, "well", 4))
        await eventually(lambda: reaches(view, "lied", 2))

    assert (await view.get_newest("hurt")).operation == operation
    assert (await view.get_newest("lied")).operation == broken
    assert await is_gone(view, "never")
    await assert_is_fold(view, journal, ["well"])
    for sequence in (damaged, refused):
        assert f"sequence {sequence} " in caplog.text
    assert beginning


async def test_an_unknown_type_is_skipped_visibly(
    link: Connection, journal: Journal, view: SnapshotStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The snapshot counts an event of a newer version and continues; the log says so once."""
    operation = await begin(journal, "op-1")
    for _ in range(2):
        event = following(operation, FromTheFuture())
        await publish(link, "op-1", "progressed", encode_event(event))
        operation = folded(None, *await journal.events("op-1"))
    await extend(journal, operation, started())

    async with running(projector(link, journal)):
        await settled(link)

    stored = (await view.get_newest("op-1")).operation
    assert stored is not None
    assert (stored.position, stored.skipped, stored.attempt) == (4, 2, 1)
    assert caplog.text.count(FromTheFuture.type) == 1


async def test_fired_timers_are_only_acknowledged(link: Connection, journal: Journal, view: SnapshotStore) -> None:
    """The consumer has no filter, so they are delivered, too."""
    await begin(journal, "op-1")
    for target in (subjects.fired_wake_subject(KIND, "op-1", "retry"), f"overdue.{KIND.resource}.{KIND.action}.op-1"):
        await link.nc.jetstream().publish(target, b'{"armedBy":1}')
    js = link.nc.jetstream()

    async def are_sourced() -> bool:
        return (await js.stream_info(subjects.OPERATIONS_STREAM)).state.messages == 3

    await eventually(are_sourced, within=15)

    async with running(projector(link, journal)):
        await settled(link)

    await assert_is_fold(view, journal, ["op-1"])
    assert await view_writes(link) == 1


async def test_a_deleted_consumer_ends_it(link: Connection, journal: Journal) -> None:
    """The projector ends with an error that says what happened, not in a busy loop."""
    consumer = await quick_consumer(link, "quick")
    task = asyncio.create_task(projector(link, journal, consumer=consumer).run())
    await begin(journal, "op-1")
    await settled(link, consumer)

    await link.nc.jetstream().delete_consumer(subjects.OPERATIONS_STREAM, consumer)

    with pytest.raises(ConsumerGone):
        await asyncio.wait_for(task, 10)
