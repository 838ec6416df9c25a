"""Steps of an attempt whose broker, lease or client does something meanwhile: no result is lost, or comes too late."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, ExpectedVersion, Journal
from opstream_runner import ActionCanceledError, ActionContext, action
from opstream_runner.attempt.attempt import Attempt
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Canceled, CancelRequested, StepFailed, StepSucceeded
from opstream_schemas.operation.state import Status
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND
from tests.support.runner.shared_event import SharedEvent
from tests.support.runner.stage import Input, RunnerStage
from tests.support.schemas.histories import started
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "plain"])
async def test_a_broker_that_is_away(broker: Broker, stage: RunnerStage, *, is_plain: bool) -> None:
    """The handler waits until its result is stored, in the same attempt, and no step runs twice."""
    entered, leave, calls = SharedEvent(), threading.Event(), []

    def work() -> int:
        calls.append(1)
        entered.set()
        leave.wait(20)
        return 7

    @action(str(KIND), lease=20)
    async def handler(request: Input, ctx: ActionContext) -> Any:
        return await ctx.step("work", work)

    @action(str(KIND), lease=20)
    def plain(request: Input, ctx: ActionContext) -> Any:
        return ctx.step("work", work)

    async with stage.runner([plain if is_plain else handler]):
        await stage.request("op-1")
        await entered.wait()
        broker.kill()
        leave.set()
        broker.start()
        ended = await stage.ended("op-1", within=20)
    assert (ended.status, ended.attempt, calls) == (Status.SUCCEEDED, 1, [1])
    assert await stage.names("op-1") == ["requested", "started", "step-succeeded", "succeeded"]


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "plain"])
async def test_an_attempt_that_is_fenced(
    stage: RunnerStage, monkeypatch: pytest.MonkeyPatch, *, is_plain: bool
) -> None:
    """A step that ends once another attempt has started is not recorded; its handler is stopped at once."""
    monkeypatch.setattr(Attempt, "_heartbeat_now", lambda _: None)
    entered, leave, after = SharedEvent(), threading.Event(), []

    def work() -> int:
        entered.set()
        leave.wait(20)
        return 7

    @action(str(KIND), lease=30)
    async def handler(request: Input, ctx: ActionContext) -> None:
        await ctx.step("work", work)
        after.append(1)

    @action(str(KIND), lease=30)
    def plain(request: Input, ctx: ActionContext) -> None:
        ctx.step("work", work)
        after.append(1)

    async with stage.runner([plain if is_plain else handler]) as runner:
        (asked,) = await stage.request("op-1")
        await entered.wait()
        await stage.append("op-1", started(2, ticket=asked.sequence, token="another"))
        leave.set()
        await eventually(lambda: not any(one.running for one in runner._dispatchers.values()), within=10)
    assert await stage.names("op-1") == ["requested", "started", "started"]
    assert after == []


@pytest.mark.parametrize("has_steps", [False, True])
async def test_a_handler_that_was_left_behind(stage: RunnerStage, *, has_steps: bool) -> None:
    """Its thread can't be stopped, and comes to a step when its attempt is over: nothing is recorded, and it ends."""
    leave, ends = threading.Event(), []

    @action(str(KIND), lease=1, timeout=0.2, cancel_grace=0.1, max_attempts=1)
    def handler(request: Input, ctx: ActionContext) -> None:
        if has_steps:
            ctx.step("before", lambda: 1)
        leave.wait(20)
        try:
            ctx.step("after", lambda: 2)
        except BaseException as error:
            ends.append(type(error))
            raise

    async with stage.runner([handler]):
        await stage.request("op-1")
        ended = await stage.ended("op-1")
        names = await stage.names("op-1")
        leave.set()
        await eventually(lambda: ends, within=10)
    assert ended.error is not None
    assert (ended.error.code, ends) == (ErrorCode.ATTEMPT_TIMED_OUT, [ActionCanceledError])
    assert await stage.names("op-1") == names
    assert names.count("step-succeeded") == has_steps


async def test_a_cancel_request_between(stage: RunnerStage) -> None:
    """A cancel request that was recorded while the step worked does not cost its result."""
    entered, leave = SharedEvent(), SharedEvent()

    async def work() -> int:
        entered.set()
        try:
            await leave.wait()
        except asyncio.CancelledError:
            return 8  # it was just ready
        return 7

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> Any:
        return await ctx.step("work", work)

    async with stage.runner([handler]):
        await stage.request("op-1")
        await entered.wait()
        await stage.request_cancel("op-1")
        ended = await stage.ended("op-1")
    assert (ended.status, ended.result) == (Status.SUCCEEDED, msgspec.Raw(b"8"))
    assert await stage.names("op-1") == ["requested", "started", "cancel-requested", "step-succeeded", "succeeded"]


async def test_a_step_that_cleans_up(stage: RunnerStage) -> None:
    """A step may begin after a cancel request, within the grace: it refunds what an earlier one has charged."""
    charged = SharedEvent()

    async def refund(amount: int) -> int:
        return -amount

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> None:
        amount = await ctx.step("charge", lambda: 5, at_most_once=True)
        try:
            charged.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await ctx.step("refund", refund, amount)
            raise

    async with stage.runner([handler]):
        await stage.request("op-1")
        await charged.wait()
        await stage.request_cancel("op-1")
        await stage.ended("op-1")
    datas = await stage.datas("op-1")
    assert [data.step for data in datas if isinstance(data, StepSucceeded)] == ["charge", "refund"]
    assert [type(data) for data in datas[-3:]] == [CancelRequested, StepSucceeded, Canceled]


async def test_steps_at_once(stage: RunnerStage) -> None:
    """Steps in parallel are recorded one after another, in one chain, beside progress."""

    async def double(number: int) -> int:
        return 2 * number

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> Any:
        found = await asyncio.gather(
            *(ctx.step("double", double, number, key=number) for number in range(20)),
            *(ctx.progress(5 * number) for number in range(20)),
        )
        return found[:20]

    async with stage.runner([handler]):
        await stage.request("op-1")
        ended = await stage.ended("op-1")
    assert isinstance(ended.result, msgspec.Raw)
    assert msgspec.json.decode(ended.result) == [2 * number for number in range(20)]
    steps = [data for data in await stage.datas("op-1") if isinstance(data, StepSucceeded)]
    assert {one.key for one in steps} == set(map(str, range(20)))


async def test_a_mistake_of_the_author(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """It is final; the client reads a code, the log has both places."""

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> None:
        await ctx.step("one", lambda: 1)
        await ctx.step("one", lambda: 2)

    with caplog.at_level(logging.ERROR):
        async with stage.runner([handler]):
            await stage.request("op-1")
            ended = await stage.ended("op-1")
    assert ended.error is not None
    assert (ended.error.code, ended.attempt) == (ErrorCode.INVALID_STEP, 1)
    assert "test_step_recorder" not in ended.error.message
    assert caplog.text.count("test_step_recorder.py:") >= 2
    assert "step 'one' is there twice" in caplog.text


async def test_a_failure_is_shown(stage: RunnerStage) -> None:
    """People read which step it was, and after how many tries; an unexpected error's text is not for them."""

    def fail() -> None:
        raise OSError("the password is 1234")

    @action(str(KIND), max_attempts=1)
    async def handler(request: Input, ctx: ActionContext) -> None:
        await ctx.step("call", fail, max_attempts=3, backoff=0.01)

    async with stage.runner([handler]):
        await stage.request("op-1")
        await stage.ended("op-1")
    (failed,) = [data for data in await stage.datas("op-1") if isinstance(data, StepFailed)]
    assert (failed.step, failed.tries, failed.error.code) == ("call", 3, 500)
    assert b"1234" not in b"".join([event.stored for event in await stage.events("op-1")])


async def test_what_the_broker_refuses(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt fails, and the next one runs the step again: an event that is not there was never promised."""
    from opstream_journal.errors import BrokerRefused

    append, refusals = Journal.append, [BrokerRefused(500, 1, "because")]

    async def refuse(self: Journal, kind: Any, event: Any, expected: ExpectedVersion, *, budget: float) -> Any:
        if isinstance(event.data, StepSucceeded) and refusals:
            raise refusals.pop()
        return await append(self, kind, event, expected, budget=budget)

    monkeypatch.setattr(Journal, "append", refuse)

    @action(str(KIND), backoff=0.01)
    async def handler(request: Input, ctx: ActionContext) -> Any:
        return await ctx.step("one", lambda: ctx.attempt)

    async with stage.runner([handler]):
        await stage.request("op-1")
        ended = await stage.ended("op-1")
    assert (ended.attempt, ended.result) == (2, msgspec.Raw(b"2"))
