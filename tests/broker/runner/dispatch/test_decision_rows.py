"""The runner's decision table (docs/architecture.md): each row executed on a real broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from opstream_journal import NEW_OPERATION, Connection, Journal
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning.provision import ensure_runner_consumer
from opstream_schemas import subjects
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    EventData,
    OperationError,
    Started,
    encode_event,
)
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation, Status
from tests.support.journal.journals import KIND, extend, first, folded, following
from tests.support.runner.stage import ACKS, HandlerGate, RunnerStage, gated
from tests.support.schemas.histories import FromTheFuture, request, started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

WISH = CancelRequested(by="ann", reason="late")


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
def gate() -> HandlerGate:
    """An open gate: handlers pass, and the gate counts them."""
    gate = HandlerGate()
    gate.open()
    return gate


def released_attempt(attempt: int = 1, *, counted: bool, seconds: float = 0.0) -> AttemptFailed:
    """An attempt that ended and is followed by another."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    error = OperationError(code="Throttled", message="try again")
    return AttemptFailed(attempt=attempt, error=error, retry_at=at, counted=counted)


async def begun(stage: RunnerStage, *datas: EventData, deadline: float = 3600.0) -> Operation:
    """An operation with these events; the `started` with number 1 gets the request's own ticket."""
    (requested,) = await stage.request("op-1", deadline=deadline)
    operation = folded(None, requested)
    for data in datas:
        if isinstance(data, Started) and data.ticket == 1:
            data = msgspec.structs.replace(data, ticket=requested.sequence)  # noqa: PLW2901 - the same, completed
        operation = await extend(stage.journal, operation, data)
    return operation


async def requeue_first(stage: RunnerStage, gate: HandlerGate, **options: float) -> None:
    """Create the consumer, and take and requeue its first message, so that the next delivery is its second."""
    await ensure_runner_consumer(stage.link, gated(gate, **options).spec)
    subscription = await stage.link.nc.jetstream().pull_subscribe_bind(
        subjects.runner_consumer(KIND), subjects.OPERATIONS_STREAM
    )
    (message,) = await subscription.fetch(1)
    await message.nak()
    await subscription.unsubscribe()


async def foreign(stage: RunnerStage, operation_id: str, payload: bytes) -> None:
    """Publish any bytes on the subject of a request."""
    subject = subjects.event_subject(operation_id, KIND, "requested")
    await rpc.publish(stage.link, subject, payload, {})


@pytest.mark.parametrize(
    "payload",
    [
        b"nonsense",
        b"{}",
        encode_event(first("op-other")),
        encode_event(first("op-1", data=request(resource="car", action="wash"))),
    ],
    ids=["no JSON", "no event", "another operation's", "another action's"],
)
async def test_row_1_a_foreign_event(stage: RunnerStage, gate: HandlerGate, payload: bytes) -> None:
    """A message that can't be decided is requeued for a minute, also in its second delivery, and others go on."""
    await foreign(stage, "op-1", payload)
    await requeue_first(stage, gate)
    spy = await stage.spy(ACKS)
    async with stage.runner([gated(gate)]):
        await stage.request("op-2")
        await stage.ended("op-2")
        await eventually(lambda: b'-NAK {"delay": 60000000000}' in [data for _, data in spy.seen])
        info = await stage.consumer()
    assert (gate.attempts, info.num_ack_pending) == ([("op-2", 1)], 1)


async def test_row_1_in_a_first_delivery(stage: RunnerStage, gate: HandlerGate) -> None:
    """The first delivery of another action's event is requeued for a minute as well."""
    spy = await stage.spy(ACKS)
    await foreign(stage, "op-1", encode_event(first("op-1", data=request(resource="car", action="wash"))))
    async with stage.runner([gated(gate)]):
        await eventually(lambda: [data for _, data in spy.seen] == [b'-NAK {"delay": 60000000000}'])
    assert gate.attempts == []


async def test_row_1_a_newer_event(stage: RunnerStage, gate: HandlerGate) -> None:
    """A runner does not decide about an operation with an event type that it does not know."""
    operation = await begun(stage)
    payload = encode_event(following(operation, FromTheFuture()))
    await rpc.publish(stage.link, subjects.event_subject("op-1", KIND, "progressed"), payload, {})
    spy = await stage.spy(ACKS)
    async with stage.runner([gated(gate)]):
        await eventually(lambda: [data for _, data in spy.seen] == [b'-NAK {"delay": 60000000000}'])
    assert gate.attempts == []


async def test_row_1_an_invalid_wake_up(stage: RunnerStage, gate: HandlerGate) -> None:
    """A wake-up without a body, and one for another action's operation, reach no handler."""
    spy = await stage.spy(ACKS)
    other = first("op-1", data=request(resource="car", action="wash"))
    await stage.journal.append(Kind("car", "wash"), other, NEW_OPERATION, budget=5)
    await rpc.publish(stage.link, subjects.fired_wake_subject(KIND, "op-1", "retry"), b"?", {})
    await stage.wake("op-1", 1)
    async with stage.runner([gated(gate)]):
        await eventually(lambda: len(spy.seen) == 2)
    assert ([data for _, data in spy.seen], gate.attempts) == ([b'-NAK {"delay": 60000000000}'] * 2, [])


async def test_row_2_terminal(stage: RunnerStage, gate: HandlerGate) -> None:
    """The request of an operation that ended before its start is acknowledged, and no attempt runs."""
    await begun(stage, Canceled())
    async with stage.runner([gated(gate)]):
        await stage.settled()
    assert (await stage.names("op-1"), gate.attempts) == (["requested", "canceled"], [])


async def test_row_2_an_expired_operation(stage: RunnerStage, gate: HandlerGate) -> None:
    """A wake-up for an expired operation is acknowledged."""
    await stage.wake("op-unknown", 1)
    async with stage.runner([gated(gate)]):
        await stage.settled()
    assert gate.attempts == []


async def test_row_3_live_elsewhere(stage: RunnerStage) -> None:
    """A wake-up for an operation that runs under another ticket is acknowledged; the attempt continues alone."""
    closed = HandlerGate()
    async with stage.runner([gated(closed)]):
        (requested,) = await stage.request("op-1")
        await closed.entered(1)
        await stage.wake("op-1", requested.sequence)

        async def is_acknowledged() -> bool:
            info = await stage.consumer()
            assert info.delivered is not None
            return info.delivered.consumer_seq == 2 and info.num_ack_pending == 1

        await eventually(is_acknowledged)
        closed.open()
        await stage.ended("op-1")
    assert closed.attempts == [("op-1", 1)]
    assert await stage.names("op-1") == ["requested", "started", "succeeded"]


async def test_row_4_to_be_canceled(stage: RunnerStage, gate: HandlerGate) -> None:
    """A released operation with a cancel request ends as Canceled, with the client's reason."""
    await begun(stage, started(), WISH, released_attempt(counted=False))
    async with stage.runner([gated(gate)]):
        operation = await stage.ended("op-1")
        await stage.settled()
    assert (operation.status, operation.reason, gate.attempts) == (Status.CANCELED, "late", [])


async def test_row_5_beyond_the_deadline(stage: RunnerStage, gate: HandlerGate) -> None:
    """An operation whose deadline has passed fails without an attempt."""
    await begun(stage, deadline=-1)
    async with stage.runner([gated(gate)]):
        operation = await stage.ended("op-1")
        await stage.settled()
    assert operation.error is not None
    assert (operation.error.code, gate.attempts) == (ErrorCode.DEADLINE_EXCEEDED, [])


async def test_row_6_a_first_delivery_reads_nothing(stage: RunnerStage, gate: HandlerGate) -> None:
    """The first delivery of a request starts and ends without a read of the journal."""
    spy = await stage.spy("$JS.API.*.*.GET.OPERATIONS")
    direct = await stage.spy("$JS.API.DIRECT.GET.OPERATIONS")
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await stage.settled()
        await eventually(lambda: gate.attempts)
        assert (spy.seen, direct.seen) == ([], [])
    assert await stage.names("op-1") == ["requested", "started", "succeeded"]


async def test_row_6_a_conflict(stage: RunnerStage, gate: HandlerGate) -> None:
    """A first delivery whose operation was canceled meanwhile is decided on the stored events."""
    await begun(stage, Canceled(reason="changed my mind"))
    async with stage.runner([gated(gate)]):
        await stage.settled()
    assert (await stage.state("op-1")).status is Status.CANCELED


async def test_row_6a_a_redelivery(stage: RunnerStage, gate: HandlerGate) -> None:
    """A request that was delivered before and never started runs as attempt 1."""
    await begun(stage)
    await requeue_first(stage, gate)
    async with stage.runner([gated(gate)]):
        await stage.ended("op-1")
    assert gate.attempts == [("op-1", 1)]


async def test_row_7_the_next_attempt(stage: RunnerStage, gate: HandlerGate) -> None:
    """An operation whose runner died runs again under the same ticket, and counts."""
    operation = await begun(stage, started())
    await requeue_first(stage, gate)
    async with stage.runner([gated(gate, max_attempts=2)]):
        ended = await stage.ended("op-1")
        await stage.settled()
    (again,) = [data for data in await stage.datas("op-1") if isinstance(data, Started) and data.attempt == 2]
    assert operation.live is not None
    assert (again.ticket, ended.attempts_used, gate.attempts) == (operation.live.ticket, 2, [("op-1", 2)])


async def test_row_7_no_attempt_left(stage: RunnerStage, gate: HandlerGate) -> None:
    """An operation whose last attempt died with its runner fails as RunnerLost."""
    await begun(stage, started(), started(2))
    await requeue_first(stage, gate)
    async with stage.runner([gated(gate, max_attempts=2)]):
        operation = await stage.ended("op-1")
        await stage.settled()
    assert operation.error is not None
    assert (operation.error.code, gate.attempts) == (ErrorCode.RUNNER_LOST, [])


async def test_row_7_only_once_the_lease_ran_out(stage: RunnerStage, gate: HandlerGate) -> None:
    """A delivery stops if another delivery of the same message has started the attempt, until the lease is over: a
    process that was paused between delivery and start must not take the lease from its successor."""
    await begun(stage, started())
    spy = await stage.spy(ACKS)
    async with stage.runner([gated(gate, lease=1)]):
        await stage.ended("op-1")
    assert (spy.acks(1), gate.attempts) == ([], [("op-1", 2)])


async def test_row_8_woken(stage: RunnerStage, gate: HandlerGate) -> None:
    """A wake-up that the wait's own event scheduled starts the next attempt, under the wake-up's ticket."""
    operation = await begun(stage, started(ticket=77), released_attempt(counted=True, seconds=3600))
    async with stage.runner([gated(gate)]):
        await stage.wake("op-1", operation.stream_sequence)
        ended = await stage.ended("op-1")
        await stage.settled()
    (_, again) = [data for data in await stage.datas("op-1") if isinstance(data, Started)]
    assert (again.ticket > operation.stream_sequence, ended.attempts_used) == (True, 2)


async def test_row_9_waiting(stage: RunnerStage, gate: HandlerGate) -> None:
    """The wake-up of a counted wait is scheduled again; it starts the next attempt at its time."""
    operation = await begun(stage, started(), released_attempt(counted=True, seconds=1))
    assert operation.waiting is not None
    async with stage.runner([gated(gate)]):
        ended = await stage.ended("op-1")
        await stage.settled()
    (_, again) = [event for event in await stage.events("op-1") if isinstance(event.data, Started)]
    assert again.time >= operation.waiting.retry_at
    assert (ended.attempts_used, gate.attempts) == (2, [("op-1", 2)])


async def test_row_9_released(stage: RunnerStage, gate: HandlerGate) -> None:
    """A released, uncounted operation runs again at once, whatever the clocks say, and under a ticket of its own: the
    runner that released it may still acknowledge the message of the released attempt."""
    operation = await begun(stage, started(), released_attempt(counted=False, seconds=3600))
    assert operation.waiting is not None
    async with stage.runner([gated(gate)]):
        ended = await stage.ended("op-1")
        await stage.settled()
    (_, again) = [data for data in await stage.datas("op-1") if isinstance(data, Started)]
    assert (again.ticket > operation.waiting.sequence, ended.attempts_used) == (True, 1)


async def test_row_9_a_stale_wake_up(stage: RunnerStage, gate: HandlerGate) -> None:
    """A wake-up of an earlier wait starts no attempt; it schedules the right one."""
    operation = await begun(stage, started(ticket=77), released_attempt(counted=True, seconds=3600))
    async with stage.runner([gated(gate)]):
        await stage.wake("op-1", operation.stream_sequence - 1)
        await stage.settled()
    timers = await stage.link.nc.jetstream().get_last_msg("TIMERS", subjects.timer_subject(KIND, "op-1", "retry"))
    assert timers.data == msgspec.json.encode({"armedBy": operation.stream_sequence})
    assert gate.attempts == []


async def test_a_newer_request_waits_for_a_newer_runner(stage: RunnerStage, gate: HandlerGate) -> None:
    """A runner of a lower version requeues the message without a start; one of the requested version runs it."""
    async with stage.runner([gated(gate, version=1)]):
        spy = await stage.spy(ACKS)
        await stage.request("op-1", action_version=2)
        await eventually(lambda: any(word.startswith(b"-NAK") for word in spy.acks(1)))
        assert ["requested"] == await stage.names("op-1")
    async with stage.runner([gated(gate, version=2)]):
        assert Status.SUCCEEDED == (await stage.ended("op-1")).status
