"""Wakes and deadlines: held by the broker until their moment, then delivered to whom they concern."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from opstream_journal import BrokerRefused, Connection, JournalUnavailable, PullConsumer
from opstream_journal.provisioning.provision import ensure_runner_consumer
from opstream_journal.stores.timers import cancel_timers, schedule_deadline, schedule_wake_up, scheduled_by
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.names import Kind
from opstream_schemas.subjects import WakeSubject, is_wake, parse_wake_subject
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

KIND = Kind("book", "upload-start")


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.fixture
async def wakes(link: Connection) -> AsyncIterator[PullConsumer]:
    """What the runner of the action is delivered."""
    spec = ActionSpec(
        resource=KIND.resource,
        action=KIND.action,
        summary="",
        action_version=1,
        input_schema={},
        result_schema={},
    )
    await ensure_runner_consumer(link, spec)
    consumer = PullConsumer(link, subjects.OPERATIONS_STREAM, subjects.runner_consumer(KIND), clock=time.monotonic)
    await consumer.start()
    consumer.add_demand(100)
    yield consumer
    await consumer.stop()


async def test_a_wake_arrives_at_its_moment(link: Connection, wakes: PullConsumer) -> None:
    """A wake is delivered to the action's consumer, not before its moment and soon after it, and says who armed it."""
    at = soon(1)
    await schedule_wake_up(link, KIND, "op-1", "retry", at=at, armed_by=17)
    message = await asyncio.wait_for(wakes.next(), 5)
    late = (datetime.now(UTC) - at).total_seconds()
    assert is_wake(message.subject)
    assert parse_wake_subject(message.subject) == WakeSubject("op-1", KIND, "retry")
    assert scheduled_by(message.data) == 17
    assert -0.01 < late < 1.5


@pytest.mark.parametrize("ago", [0, 1, 86_400 * 400])
async def test_a_moment_in_the_past(link: Connection, wakes: PullConsumer, ago: float) -> None:
    """A wake for a moment that has passed fires at once."""
    await schedule_wake_up(link, KIND, "op-1", "retry", at=soon(-ago), armed_by=1)
    assert scheduled_by((await asyncio.wait_for(wakes.next(), 2)).data) == 1


async def test_any_time_zone(link: Connection, wakes: PullConsumer) -> None:
    """A moment is a moment, whatever its time zone."""
    at = soon(-1).astimezone(timezone(timedelta(hours=-11, minutes=-30)))
    await schedule_wake_up(link, KIND, "op-1", "retry", at=at, armed_by=1)
    assert scheduled_by((await asyncio.wait_for(wakes.next(), 2)).data) == 1


async def test_arming_again_replaces(link: Connection, wakes: PullConsumer) -> None:
    """Of wakes for one operation and reason, only the last one armed fires; all others keep theirs."""
    await schedule_wake_up(link, KIND, "op-1", "retry", at=soon(1), armed_by=1)
    await schedule_wake_up(link, KIND, "op-1", "retry", at=soon(3600), armed_by=2)
    await schedule_wake_up(link, KIND, "op-1", "retry", at=soon(0.5), armed_by=3)
    await schedule_wake_up(link, KIND, "op-1", "sleep", at=soon(1), armed_by=4)
    await schedule_wake_up(link, KIND, "op-2", "retry", at=soon(1.5), armed_by=5)
    fired = [scheduled_by((await asyncio.wait_for(wakes.next(), 5)).data) for _ in range(3)]
    assert fired == [3, 4, 5]


async def test_arming_twice_is_arming_once(link: Connection, wakes: PullConsumer) -> None:
    """The same wake armed again and again fires once."""
    at = soon(0.5)
    for _ in range(5):
        await schedule_wake_up(link, KIND, "op-1", "retry", at=at, armed_by=1)
    await schedule_wake_up(link, KIND, "op-2", "retry", at=soon(1), armed_by=2)
    fired = [scheduled_by((await asyncio.wait_for(wakes.next(), 5)).data) for _ in range(2)]
    assert fired == [1, 2]


async def test_nothing_stays_behind(link: Connection, wakes: PullConsumer) -> None:
    """A wake that has fired leaves nothing in the stream of timers."""
    await schedule_wake_up(link, KIND, "op-1", "retry", at=soon(0), armed_by=1)
    await asyncio.wait_for(wakes.next(), 5)
    await eventually(lambda: _timers(link, 0))


async def _timers(link: Connection, count: int) -> bool:
    return (await link.nc.jetstream().stream_info(subjects.TIMERS_STREAM)).state.messages == count


async def test_the_guard_does_not_see_wakes(link: Connection, wakes: PullConsumer) -> None:
    """A wake is no event of its operation."""
    await schedule_wake_up(link, KIND, "op-1", "retry", at=soon(0), armed_by=1)
    await asyncio.wait_for(wakes.next(), 5)
    js = link.nc.jetstream()
    assert (await js.stream_info(subjects.OPERATIONS_STREAM)).state.messages == 1
    headers = {
        "Nats-Expected-Last-Subject-Sequence": "0",
        "Nats-Expected-Last-Subject-Sequence-Subject": subjects.operation_filter("op-1"),
    }
    ack = await js.publish(subjects.event_subject("op-1", KIND, "requested"), b"{}", headers=headers)
    assert ack.seq == 2


async def test_disarmed(link: Connection, wakes: PullConsumer) -> None:
    """Of a disarmed operation nothing fires, neither wake nor deadline; others, also of similar ids, keep theirs."""
    for name in ("op-1", "op-10", "op"):
        await schedule_wake_up(link, KIND, name, "retry", at=soon(0.7), armed_by=1)
        await schedule_wake_up(link, KIND, name, "sleep", at=soon(0.7), armed_by=1)
        await schedule_deadline(link, KIND, name, soon(0.7))
    await cancel_timers(link, "op-1")
    fired = {parse_wake_subject((await asyncio.wait_for(wakes.next(), 5)).subject).operation_id for _ in range(4)}
    assert fired == {"op-10", "op"}
    await eventually(lambda: _timers(link, 0))
    assert (await link.nc.jetstream().stream_info(subjects.OPERATIONS_STREAM)).state.messages == 6


async def test_nothing_to_disarm(link: Connection) -> None:
    """Disarming what is not armed is no error."""
    await cancel_timers(link, "nobody")


async def test_disarmed_without_a_broker(broker: Broker, link: Connection) -> None:
    """The error says that the message may be stored."""
    broker.kill()
    await eventually(lambda: not link.is_connected)
    with pytest.raises(JournalUnavailable):
        await cancel_timers(link, "op-1")


async def test_disarmed_without_a_stream(link: Connection) -> None:
    """The broker's refusal is an error of its own."""
    await link.nc.jetstream().delete_stream(subjects.TIMERS_STREAM)
    with pytest.raises(BrokerRefused, match="stream not found"):
        await cancel_timers(link, "op-1")


async def test_a_deadline_does_not_fire_early(link: Connection) -> None:
    """The projector's consumer gets it, and the broker counts no less than was asked for, to the microsecond."""
    consumer = PullConsumer(link, subjects.OPERATIONS_STREAM, subjects.PROJECTOR_DUE_CONSUMER, clock=time.monotonic)
    await consumer.start()
    consumer.add_demand(10)
    moments = {f"op-{number}": soon(0.3) + timedelta(microseconds=number * 1_111) for number in range(10)}
    for name, at in moments.items():
        await schedule_deadline(link, KIND, name, at)
    while moments:
        message = await asyncio.wait_for(consumer.next(), 5)
        kind, name = subjects.parse_due_subject(message.subject)
        assert kind == KIND
        assert timedelta(0) <= message.stored_at - moments.pop(name) < timedelta(seconds=1.5)
    await consumer.stop()


async def test_a_wake_survives_the_broker(broker: Broker, link: Connection, wakes: PullConsumer) -> None:
    """A wake that was armed before the broker was killed fires after it is back, also when its moment has passed."""
    await schedule_wake_up(link, KIND, "op-1", "retry", at=soon(0.3), armed_by=1)
    broker.kill()
    await eventually(lambda: not link.is_connected)
    with pytest.raises(JournalUnavailable):
        await schedule_wake_up(link, KIND, "op-1", "retry", at=soon(0), armed_by=2)
    await asyncio.to_thread(broker.start)
    assert scheduled_by((await asyncio.wait_for(wakes.next(), 20)).data) == 1


@pytest.mark.parametrize("body", [b"", b"\xff", b"{}", b'{"armedBy":"x"}', b"[" * 100_000])
def test_a_body_that_is_no_wakes(body: bytes) -> None:
    """Bytes that are no wake's are named as that."""
    with pytest.raises(InvalidEvent):
        scheduled_by(body)
