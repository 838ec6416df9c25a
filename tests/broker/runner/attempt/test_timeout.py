"""Time limits of a running attempt: its own timeout, and the deadline of its operation."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_runner import Action, ActionContext, ActionError, RetryAfter, action
from opstream_runner.authoring.action import collect_actions
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import AttemptFailed, Failed, OperationError
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation, Status
from tests.support.journal.journals import KIND
from tests.support.runner import isolated_actions
from tests.support.runner.shared_event import SharedEvent
from tests.support.runner.stage import ACKS, HandlerGate, Input, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

TIMEOUT = 0.3
TIMED_OUT = OperationError(
    code=ErrorCode.ATTEMPT_TIMED_OUT, message=f"an attempt took longer than its timeout, {TIMEOUT:g} s"
)
AGAIN = ["requested", "started", "attempt-failed", "started", "succeeded"]
QUICK: dict[str, Any] = {"timeout": TIMEOUT, "backoff": 0.05, "cancel_grace": 0.2}


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


async def lasting(stage: RunnerStage) -> float:
    """Seconds from the start of the first attempt of op-1 to the event after it."""
    _, begun, ended, *_ = await stage.events("op-1")
    return (ended.time - begun.time).total_seconds()


def first_hangs(end: BaseException | None = None, **options: Any) -> Action[..., Any]:
    """An async action whose first attempt hangs until it is cancelled, and then raises `end` or returns."""

    @action(str(KIND), **QUICK, **options)
    async def handler(request: Input, ctx: ActionContext) -> int:
        if ctx.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if end is not None:
                    raise end from None
        return ctx.attempt

    return handler


@pytest.mark.parametrize("end", [asyncio.CancelledError(), OSError("clean-up failed")])
async def test_an_attempt_that_takes_too_long(stage: RunnerStage, end: BaseException) -> None:
    """It is cancelled, recorded as timed out whatever its clean-up raised, and another attempt follows."""
    async with stage.runner([first_hangs(end)]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert await stage.names("op-1") == AGAIN
    failed = (await stage.datas("op-1"))[2]
    assert isinstance(failed, AttemptFailed)
    assert (failed.error, failed.counted, operation.attempts_used) == (TIMED_OUT, True, 2)
    assert TIMEOUT - 0.01 <= await lasting(stage) < TIMEOUT + 1


@pytest.mark.parametrize(
    ("end", "names"),
    [
        (None, ["requested", "started", "succeeded"]),
        (ActionError("Half", "half done"), ["requested", "started", "failed"]),
        (RetryAfter(0, "half done"), AGAIN),
    ],
)
async def test_a_handler_with_its_own_outcome_after_the_timeout(
    stage: RunnerStage, end: Exception | None, names: list[str]
) -> None:
    """A handler that returns or raises ActionError after its timeout has its own outcome."""
    async with stage.runner([first_hangs(end)]):
        await stage.request("op-1")
        await stage.ended("op-1")
    assert await stage.names("op-1") == names
    assert TIMED_OUT not in [
        data.error for data in await stage.datas("op-1") if isinstance(data, AttemptFailed | Failed)
    ]


async def test_every_attempt_takes_too_long(stage: RunnerStage) -> None:
    """After its last attempt the operation has failed as AttemptTimedOut."""
    async with stage.runner([gated(HandlerGate(), max_attempts=2, **QUICK)]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
    assert operation.error is not None
    assert operation.error.code == ErrorCode.ATTEMPT_TIMED_OUT
    assert operation.error.message == f"{TIMED_OUT.message} (2 attempts failed)"


async def test_each_attempt_has_its_own_time(stage: RunnerStage) -> None:
    """Attempts that end in time do not time out, however long the operation takes."""

    @action(str(KIND), timeout=0.6, backoff=0.05, backoff_max=0.05)
    async def handler(request: Input, ctx: ActionContext) -> int:
        await asyncio.sleep(0.25)
        if ctx.attempt < 4:
            raise RetryAfter(0)
        return ctx.attempt

    async with stage.runner([handler]):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
    codes = {data.error.code for data in await stage.datas("op-1") if isinstance(data, AttemptFailed)}
    assert (operation.result, codes) == (msgspec.Raw(b"4"), {503})


async def test_a_thread_that_reads_its_context(stage: RunnerStage) -> None:
    """A plain handler sees in its context that its time is over."""

    @action(str(KIND), **QUICK)
    def handler(request: Input, ctx: ActionContext) -> int:
        while ctx.attempt == 1:
            ctx.check_canceled()
            time.sleep(0.005)
        return ctx.attempt

    async with stage.runner([handler]):
        await stage.request("op-1")
        await stage.ended("op-1")
    assert await stage.names("op-1") == AGAIN


async def test_a_thread_that_does_not_read_its_context(stage: RunnerStage) -> None:
    """A plain handler that continues is left behind after its grace: the next attempt runs beside it, and its result is
    discarded."""
    release, returned = threading.Event(), threading.Event()
    saw: list[bool] = []

    @action(str(KIND), **QUICK)
    def handler(request: Input, ctx: ActionContext) -> str:
        if ctx.attempt == 1:
            release.wait(10)
            saw.append(ctx.cancel_requested)
            returned.set()
            return "from beyond"
        return "in time"

    async with stage.runner([handler], concurrency=1):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
        assert not returned.is_set()
        release.set()
        assert await asyncio.to_thread(returned.wait, 5)
        await stage.settled()
    assert (await stage.names("op-1"), saw) == (AGAIN, [True])
    assert operation.result == msgspec.Raw(b'"in time"')
    assert TIMEOUT + 0.2 <= await lasting(stage) + 0.01


@pytest.mark.parametrize(("kind", "how"), [("iso:plain", "clean_up"), ("iso:async", "ignore")])
async def test_a_process_is_killed(
    stage: RunnerStage, tmp_path: Path, kind: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is interrupted, killed if it does not end, and has timed out either way."""
    policy = {"timeout": 1.0, "max_attempts": 1}
    actions = collect_actions([isolated_actions])
    for one in actions:
        changed = msgspec.structs.replace(one.spec.policy, **policy)
        monkeypatch.setattr(one, "spec", msgspec.structs.replace(one.spec, policy=changed))
    marks = tmp_path / "marks"
    async with stage.runner(actions):
        given = msgspec.json.encode({"how": how, "file": str(marks)})
        await stage.request("op-1", kind=Kind.parse(kind), given=given)
        operation = await stage.ended("op-1")
        assert operation.error is not None
        assert operation.error.code == ErrorCode.ATTEMPT_TIMED_OUT
    assert marks.exists() == (how == "clean_up")


async def test_a_canceled_handler_that_stops_in_time(stage: RunnerStage) -> None:
    """A timeout that passes during the clean-up of a canceled handler leaves it Canceled."""
    running = SharedEvent()

    @action(str(KIND), timeout=0.5, cancel_grace=5)
    async def handler(request: Input, ctx: ActionContext) -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.8)

    async with stage.runner([handler]) as runner:
        await stage.request("op-1")
        await running.wait()
        await stage.request_cancel("op-1")
        runner.notify(KIND, "op-1")
        operation = await stage.ended("op-1")
    assert operation.status is Status.CANCELED


async def test_a_canceled_thread_that_never_reads_its_context(stage: RunnerStage) -> None:
    """A canceled handler that still runs after its timeout has failed, and is not retried."""
    running, release = threading.Event(), threading.Event()

    @action(str(KIND), **QUICK)
    def handler(request: Input, ctx: ActionContext) -> None:
        running.set()
        release.wait(10)

    async with stage.runner([handler]) as runner:
        await stage.request("op-1")
        assert await asyncio.to_thread(running.wait, 5)
        await stage.request_cancel("op-1")
        runner.notify(KIND, "op-1")
        operation = await stage.ended("op-1")
        release.set()
    assert await stage.names("op-1") == ["requested", "started", "cancel-requested", "failed"]
    assert operation.error == TIMED_OUT


def exceeded(operation: Operation) -> bool:
    """Return True if the deadline ended it."""
    return operation.error is not None and operation.error.code == ErrorCode.DEADLINE_EXCEEDED


async def test_the_deadline_of_a_running_attempt(stage: RunnerStage) -> None:
    """Without a projector, the runner itself stops the handler at the deadline and fails the operation."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)]):
        await stage.request("op-1", deadline=0.6)
        operation = await stage.ended("op-1")
        await stage.settled()
    assert (exceeded(operation), gate.cancelled) == (True, [1])
    assert await stage.names("op-1") == ["requested", "started", "failed"]
    assert operation.finished_at is not None
    assert 0 <= (operation.finished_at - operation.deadline).total_seconds() + 0.01 < 1


async def test_a_handler_that_returns_at_the_deadline(stage: RunnerStage) -> None:
    """A handler that is stopped by the deadline and returns has succeeded."""
    async with stage.runner([first_hangs()]):
        await stage.request("op-1", deadline=0.2)
        operation = await stage.ended("op-1")
    assert operation.status is Status.SUCCEEDED


async def test_a_thread_at_the_deadline(stage: RunnerStage) -> None:
    """A plain handler that does not read its context is left behind, and the operation ends all the same."""
    release = threading.Event()

    @action(str(KIND), cancel_grace=0.2)
    def handler(request: Input, ctx: ActionContext) -> None:
        release.wait(10)

    async with stage.runner([handler]):
        await stage.request("op-1", deadline=0.3)
        operation = await stage.ended("op-1")
        release.set()
    assert exceeded(operation)


@pytest.fixture
async def gate() -> AsyncIterator[HandlerGate]:
    """A gate that is opened at the end."""
    gate = HandlerGate()
    yield gate
    gate.open()


async def test_another_process_ends_the_operation(stage: RunnerStage, gate: HandlerGate) -> None:
    """If another process fails the operation, its attempt stops at the next notification and records nothing."""
    acks = await stage.spy(ACKS)
    async with stage.runner([gated(gate, lease=60)]) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        await stage.append("op-1", Failed(error=OperationError(code=ErrorCode.DEADLINE_EXCEEDED, message="late")))
        runner.notify(KIND, "op-1")
        await eventually(lambda: gate.cancelled == [1])
        await eventually(lambda: not runner._dispatchers[KIND]._attempts)
        assert acks.seen == []
    assert await stage.names("op-1") == ["requested", "started", "failed"]
