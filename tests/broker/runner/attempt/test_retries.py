"""Failed attempts are retried: after a delay that takes no slot, counted, and through every crash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from opstream_journal import Connection, ExpectedVersion, Journal, JournalUnavailable
from opstream_journal.stores import timers
from opstream_runner import Action, ActionContext, RetryAfter, action
from opstream_runner.attempt import completion
from opstream_runner.handler.invocation import UNEXPECTED_ERROR
from opstream_schemas import subjects
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    Event,
    Failed,
    OperationError,
    RecordedEvent,
)
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status
from opstream_schemas.status_monitor import build_status_monitor
from tests.support.journal.journals import KIND
from tests.support.runner.stage import HandlerGate, Input, RunnerStage, gated
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

AGAIN = ["requested", "started", "attempt-failed", "started", "succeeded"]
Arm = Callable[..., Awaitable[None]]


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


def failing(times: int, error: Exception, **options: Any) -> Action[..., Any]:
    """An action whose first attempts raise; the one after returns its number."""

    @action(str(KIND), **{"backoff": 0.05, **options})
    async def handler(request: Input, ctx: ActionContext) -> int:
        if ctx.attempt <= times:
            raise error
        return ctx.attempt

    return handler


async def failures(stage: RunnerStage) -> list[AttemptFailed]:
    """The `attempt-failed` events of op-1."""
    return [data for data in await stage.datas("op-1") if isinstance(data, AttemptFailed)]


async def pauses(stage: RunnerStage) -> list[float]:
    """Seconds from each failed attempt of op-1 to the moment at which the next was due."""
    events = await stage.events("op-1")
    return [(one.data.retry_at - one.time).total_seconds() for one in events if isinstance(one.data, AttemptFailed)]


async def test_an_unexpected_error_is_tried_again(stage: RunnerStage) -> None:
    """Each failed attempt is recorded with its error and the next start, later each time; no message is left."""
    async with stage.runner([failing(3, OSError("secret"), backoff=0.1, backoff_max=0.2)]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert (operation.status, operation.attempt, operation.attempts_used) == (Status.SUCCEEDED, 4, 4)
    assert [(one.attempt, one.error, one.counted) for one in await failures(stage)] == [
        (number, UNEXPECTED_ERROR, True) for number in (1, 2, 3)
    ]
    assert await pauses(stage) == pytest.approx([0.1, 0.2, 0.2], abs=0.05)
    events = await stage.events("op-1")
    begun = [event.time for event in events if event.type.endswith("started.v1")]
    due = [one.retry_at for one in await failures(stage)]
    assert all(begin.timestamp() >= at.timestamp() - 0.002 for begin, at in zip(begun[1:], due, strict=True))


async def test_the_last_attempt(stage: RunnerStage) -> None:
    """After the last attempt the operation has failed with its error, which has the number of attempts."""
    async with stage.runner([failing(9, OSError("secret"), max_attempts=2)]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert await stage.names("op-1") == ["requested", "started", "attempt-failed", "started", "failed"]
    assert operation.error == OperationError(code=500, message=f"{UNEXPECTED_ERROR.message} (2 attempts failed)")


async def test_retry_after(stage: RunnerStage) -> None:
    """The author's delay applies if it is longer than the backoff; the attempts count, and the last error is the
    client's."""
    async with stage.runner([failing(9, RetryAfter(0.3, "throttled"), max_attempts=3, backoff=0.2)]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
    assert await pauses(stage) == pytest.approx([0.3, 0.4], abs=0.05)
    assert [one.error for one in await failures(stage)] == [OperationError(code=503, message="throttled")] * 2
    assert operation.error == OperationError(code=503, message="throttled (3 attempts failed)")


async def test_a_waiting_operation_takes_no_slot(stage: RunnerStage) -> None:
    """An operation that waits for its next attempt is Running, with the attempt and the next start, and takes neither
    the runner's only slot nor a message."""
    seen: list[str] = []

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> None:
        seen.append(ctx.operation_id)
        if ctx.operation_id == "op-1":
            raise RetryAfter(600)

    async with stage.runner([handler], concurrency=1):
        await stage.request("op-1")
        waiting = await stage.reached("op-1", lambda operation: operation.waiting)
        await stage.settled()
        await stage.request("op-2")
        await stage.ended("op-2")
    shown = build_status_monitor(waiting)
    (failed,) = await failures(stage)
    assert (shown.status, shown.attempt, shown.retry_at) == (Status.RUNNING, 1, failed.retry_at)
    assert seen == ["op-1", "op-2"]


async def test_the_deadline_comes_first(stage: RunnerStage) -> None:
    """A delay that goes beyond the deadline ends there, and so does the operation; no other attempt starts."""
    async with stage.runner([failing(9, RetryAfter(600))]):
        await stage.request("op-1", deadline=1.0)
        operation = await stage.ended("op-1")
        await stage.settled()
    assert operation.error is not None
    assert (operation.error.code, operation.attempt) == (ErrorCode.DEADLINE_EXCEEDED, 1)
    (failed,) = await failures(stage)
    assert failed.retry_at == operation.deadline


async def test_another_runner_makes_the_next_attempt(stage: RunnerStage) -> None:
    """The next attempt starts even if the runner of the failed one has ended."""
    async with stage.runner([failing(9, RetryAfter(0.5))]):
        await stage.request("op-1")
        await stage.reached("op-1", lambda operation: operation.waiting)
        await stage.settled()
    gate = HandlerGate()
    gate.open()
    async with stage.runner([gated(gate)]):
        await stage.ended("op-1")
    assert gate.attempts == [("op-1", 2)]


async def test_a_cancellation_while_it_waits(stage: RunnerStage) -> None:
    """After a cancel of an operation that waits for its next attempt, the wake-up starts none."""
    async with stage.runner([failing(9, RetryAfter(0.3))]):
        await stage.request("op-1")
        operation = await stage.reached("op-1", lambda operation: operation.waiting)
        await stage.append("op-1", Canceled(reason="late"))
        await stage.wake("op-1", operation.stream_sequence)
        await stage.settled()
    assert await stage.names("op-1") == ["requested", "started", "attempt-failed", "canceled"]


@pytest.mark.parametrize("error", [OSError("secret"), RetryAfter(0.1, "throttled")])
async def test_nothing_is_retried_after_a_cancel_request(
    stage: RunnerStage, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancel request that is stored just before the failure is seen when the failure is recorded: Failed."""
    append = stage.journal.append
    requests = []

    async def cancel_first(kind: Kind, event: Event, expected: ExpectedVersion, *, budget: float) -> RecordedEvent:
        if isinstance(event.data, AttemptFailed) and not requests:
            requests.append(event)
            await stage.request_cancel("op-1")
        return await append(kind, event, expected, budget=budget)

    monkeypatch.setattr(stage.journal, "append", cancel_first)
    async with stage.runner([failing(9, error)]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert operation.status is Status.FAILED
    assert await stage.names("op-1") == ["requested", "started", CancelRequested.name, "failed"]


class Killed(Exception):
    """Stands for the end of the process: nothing after it happens, and nothing is sent."""


def arming(moment: str) -> Arm:
    """A `schedule_wake_up` whose process dies before or after the first call."""
    passes = []

    async def arm(*args: Any, **options: Any) -> None:
        passes.append(moment)
        if moment == "before" and len(passes) == 1:
            raise Killed
        await timers.schedule_wake_up(*args, **options)
        if moment == "after" and len(passes) == 1:
            raise Killed

    return arm


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_crash_around_the_wake_up(
    stage: RunnerStage, moment: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If a runner dies after its failed attempt is stored, before or after it scheduled the wake-up, one more attempt
    follows: when the lease is over, or at the wake-up."""
    monkeypatch.setattr(completion, "schedule_wake_up", arming(moment))
    async with stage.runner([failing(1, OSError("secret"), lease=1)]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert await stage.names("op-1") == AGAIN
    assert operation.attempts_used == 2
    assert "Killed" in caplog.text


async def test_a_crash_before_it_is_stored(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a runner dies before it recorded that its attempt failed, the attempt is lost and counts the same."""
    append = stage.journal.append
    killed = []

    async def dying(kind: Kind, event: Event, expected: ExpectedVersion, *, budget: float) -> RecordedEvent:
        if isinstance(event.data, AttemptFailed) and not killed:
            killed.append(event)
            raise Killed
        return await append(kind, event, expected, budget=budget)

    monkeypatch.setattr(stage.journal, "append", dying)
    async with stage.runner([failing(1, OSError("secret"), lease=1)]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
    assert await stage.names("op-1") == ["requested", "started", "started", "succeeded"]
    assert operation.attempts_used == 2


async def test_a_wake_up_that_could_not_be_scheduled(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the broker does not respond just then, the message is requeued, and its next delivery schedules the
    wake-up."""
    calls = []

    async def arm(*args: Any, **options: Any) -> None:
        calls.append(args)
        raise JournalUnavailable("no answer", maybe_stored=False)

    monkeypatch.setattr(completion, "schedule_wake_up", arm)
    async with stage.runner([failing(1, OSError("secret"), lease=60)]):
        await stage.request("op-1")
        await stage.ended("op-1")
    assert (await stage.names("op-1"), len(calls)) == (AGAIN, 1)


async def test_lost_and_failed_attempts_count_alike(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three attempts, one lost with its runner, one failed, one lost: RunnerLost, and no fourth."""
    begun: list[int] = []

    @action(str(KIND), lease=1, max_attempts=3, backoff=0.05)
    async def handler(request: Input, ctx: ActionContext) -> None:
        begun.append(ctx.attempt)
        raise OSError("secret")

    append = stage.journal.append

    async def dying(kind: Kind, event: Event, expected: ExpectedVersion, *, budget: float) -> RecordedEvent:
        told = event.data.error.code if isinstance(event.data, AttemptFailed | Failed) else ""
        if told == UNEXPECTED_ERROR.code and begun[-1] in {1, 3}:
            raise Killed
        return await append(kind, event, expected, budget=budget)

    monkeypatch.setattr(stage.journal, "append", dying)
    async with stage.runner([handler]):
        await stage.request("op-1")
        operation = await stage.ended("op-1", within=20)
        await stage.settled()
    assert await stage.names("op-1") == ["requested", "started", "started", "attempt-failed", "started", "failed"]
    assert operation.error is not None
    assert (operation.error.code, begun) == (ErrorCode.RUNNER_LOST, [1, 2, 3])


async def test_failed_after_lost(stage: RunnerStage) -> None:
    """Attempts that were lost with their runner count when the last one fails: with three attempts, no fourth
    starts."""
    await stage.request("op-1")
    for number in (1, 2):
        await stage.append("op-1", started(number))
    async with stage.runner([failing(9, OSError("secret"), lease=1, max_attempts=3)]):
        operation = await stage.ended("op-1")
    assert operation.error == OperationError(code=500, message=f"{UNEXPECTED_ERROR.message} (3 attempts failed)")
    assert operation.attempt == 3


async def test_a_wake_up_that_is_delivered_twice(stage: RunnerStage) -> None:
    """A wake-up that is delivered again, while its attempt runs or after it, starts no other."""
    gate = HandlerGate()

    @action(str(KIND), backoff=0.05)
    async def handler(request: Input, ctx: ActionContext) -> int:
        if ctx.attempt == 1:
            raise OSError("secret")
        await gate.wait(ctx)
        return ctx.attempt

    async def is_quiet() -> bool:
        info = await stage.consumer()
        return (info.num_pending, info.num_ack_pending) == (0, 1)

    async with stage.runner([handler]):
        await stage.request("op-1")
        await gate.entered(1)
        (failed,) = [one for one in await stage.events("op-1") if isinstance(one.data, AttemptFailed)]
        await stage.wake("op-1", failed.sequence)
        await eventually(is_quiet)
        gate.open()
        await stage.ended("op-1")
        await stage.wake("op-1", failed.sequence)
        await stage.settled()
    assert await stage.names("op-1") == AGAIN


async def test_the_jitter_is_drawn_for_each_delay(stage: RunnerStage) -> None:
    """Each delay has its own jitter, so that operations which failed together are retried apart."""
    dependencies = stage.dependencies(jitter=iter([0.5, 1.0, 1.0]).__next__)
    async with stage.runner([failing(2, OSError("secret"), backoff=0.2)], dependencies=dependencies):
        await stage.request("op-1")
        await stage.ended("op-1")
    assert await pauses(stage) == pytest.approx([0.1, 0.4], abs=0.05)


async def test_many_operations_that_fail(stage: RunnerStage) -> None:
    """A hundred operations that all fail twice all succeed, each with three attempts."""
    ids = [f"op-{number}" for number in range(100)]
    async with stage.runner([failing(2, OSError("secret"))], concurrency=8):
        await stage.request(*ids)
        operations = await asyncio.gather(*(stage.ended(one, within=30) for one in ids))
        await stage.settled()
    assert {(one.status, one.attempt) for one in operations} == {(Status.SUCCEEDED, 3)}

    async def is_empty() -> bool:
        info = await stage.link.nc.jetstream().stream_info(subjects.TIMERS_STREAM)
        return info.state.messages == 0

    await eventually(is_empty)
