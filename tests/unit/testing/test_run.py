"""`opstream.testing.run`: one operation in this process, from its request to its end."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from opstream import ActionContext, ActionError, RetryAfter, action
from opstream.testing import RunRefused, run, run_async
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import AttemptFailed
from opstream_schemas.operation.state import Status

pytestmark = pytest.mark.unit


class Order(msgspec.Struct, forbid_unknown_fields=True):
    amount: int = 1
    fails: int = 0


class Paid(msgspec.Struct):
    receipt: str


def receipt(amount: int) -> Paid:
    return Paid(f"r-{amount}")


@action("order:pay", backoff=60, backoff_max=3600)
async def pay(order: Order, ctx: ActionContext) -> Paid:
    paid = await ctx.step("charge", receipt, order.amount)
    await ctx.progress(50, "charged")
    if ctx.attempt <= order.fails:
        raise ConnectionError("the mail server is away")
    await ctx.step("mail", receipt, 0, key=7)
    return paid


@action("order:pay-plain", backoff=60, backoff_max=60)
def pay_plain(order: Order, ctx: ActionContext) -> Paid:
    paid = ctx.step("charge", receipt, order.amount)
    assert isinstance(paid, Paid)
    if ctx.attempt <= order.fails:
        raise ConnectionError("the mail server is away")
    return paid


def test_outcome_events_and_steps() -> None:
    """A run has the result as the action's type, all events, and what is recorded of each step."""
    found = run(pay, {"amount": 3}, resource_id="42", caller="ann")
    assert (found.status, found.result, found.attempts) == (Status.SUCCEEDED, Paid("r-3"), 1)
    assert found.names == ("requested", "started", "step-succeeded", "progressed", "step-succeeded", "succeeded")
    assert (found.operation.resource_id, found.operation.caller) == ("42", "ann")
    assert found.step("charge").result == {"receipt": "r-3"}
    assert found.step("mail", 7).attempt == 1
    assert found.seconds < 1
    assert found.crashed_at is None


@pytest.mark.parametrize("kind", [pay, pay_plain], ids=["async", "plain"])
def test_attempts_follow_each_other_without_waiting(kind: Any) -> None:
    """The pauses between attempts pass on the virtual clock; a later attempt takes what is recorded."""
    began = time.monotonic()
    found = run(kind, Order(amount=2, fails=3))
    assert time.monotonic() - began < 20
    assert (found.status, found.attempts) == (Status.SUCCEEDED, 4)
    assert found.seconds == pytest.approx(60 + 60 + 60 if kind is pay_plain else 60 + 120 + 240, abs=1.0)
    assert found.names.count("step-succeeded") == (2 if kind is pay else 1)
    assert found.step("charge").attempt == 1


def test_an_input_that_the_api_refuses() -> None:
    """The API's rules apply to the input, and its message is shown."""
    with pytest.raises(RunRefused, match=r"the API would refuse this request: .*order:pay is not valid"):
        run(pay, {"amount": "much"})
    with pytest.raises(RunRefused, match="has no JSON"):
        run(pay, threading.Lock())


def test_failures() -> None:
    """A failed run has the error that its client reads, and refuses to show a result."""

    @action("order:fail", max_attempts=2)
    async def fail(order: Order, _ctx: ActionContext) -> Paid:
        if order.amount > 1:
            raise ActionError("TooMuch", "buy less", target="amount")
        raise RetryAfter(30, "the bank is closed")

    found = run(fail, {"amount": 2})
    assert (found.status, found.error and found.error.code, found.attempts) == (Status.FAILED, "TooMuch", 1)
    with pytest.raises(RunRefused, match="the operation is Failed with TooMuch: buy less"):
        _ = found.result
    found = run(fail)
    assert (found.error and found.error.code, found.attempts, found.seconds) == (503, 2, 30.0)


def test_a_step_that_is_not_there() -> None:
    """The message names the steps that are."""
    with pytest.raises(RunRefused, match=r"no step 'chrage' is recorded; there are: 'charge', 'mail' with key '7'"):
        run(pay).step("chrage")


def test_steps_that_failed() -> None:
    """A step has the errors of the attempts in which it failed, and the tries of the one that recorded it."""
    calls: list[int] = []

    def shaky() -> int:
        calls.append(1)
        if len(calls) < 5:
            raise OSError("not yet")
        return 7

    @action("step:shaky")
    async def retry(_order: Order, ctx: ActionContext) -> int:
        return await ctx.step("shaky", shaky, max_attempts=2, backoff=600)

    step = run(retry).step("shaky")
    assert (step.is_recorded, step.result, step.attempt, step.tries, len(step.errors)) == (True, 7, 3, 1, 2)


def test_sleeps_of_a_handler_are_skipped() -> None:
    """`asyncio.sleep` takes no time in an async handler, and a timeout of the action ends what hangs."""

    @action("sleep:long", timeout=3600, max_attempts=1)
    async def sleep(order: Order, _ctx: ActionContext) -> str:
        await asyncio.sleep(order.amount)
        return "awake"

    began = time.monotonic()
    assert (run(sleep, {"amount": 3000}).result, run(sleep, {"amount": 3000}).seconds) == ("awake", 3000.0)
    failed = run(sleep, {"amount": 10**6})
    assert (failed.error and failed.error.code, failed.seconds) == (ErrorCode.ATTEMPT_TIMED_OUT, 3600.0)
    assert time.monotonic() - began < 30


def test_a_handler_that_hangs_ends_at_its_deadline() -> None:
    """Nothing that is awaited for ever lets a test hang: the virtual clock reaches the deadline."""

    @action("hang:up", deadline=7200)
    async def hang(_order: Order, _ctx: ActionContext) -> None:
        await asyncio.Event().wait()

    found = run(hang)
    assert (found.error and found.error.code, found.seconds) == (ErrorCode.DEADLINE_EXCEEDED, 7200.0)


def test_a_deadline_between_two_attempts() -> None:
    """An operation that waits at its deadline fails then, as the projector has it."""

    @action("late:retry", deadline=600, backoff=3600, backoff_max=3600)
    async def late(_order: Order, _ctx: ActionContext) -> None:
        raise OSError("no")

    found = run(late)
    assert (found.error and found.error.code, found.attempts) == (ErrorCode.DEADLINE_EXCEEDED, 1)
    assert found.seconds == pytest.approx(600.0, abs=1)


def test_real_work_takes_real_time() -> None:
    """While a thread works, or a socket is waited for, no time is skipped: no timeout fires that would not."""

    @action("real:work", timeout=60)
    async def work(_order: Order, _ctx: ActionContext) -> str:
        server = await asyncio.start_server(lambda _, writer: (time.sleep(0.05), writer.close()), "127.0.0.1", 0)
        async with server, asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await reader.read()
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(30):
            await asyncio.to_thread(
                time.sleep, 0.3
            )  # the clock counts what the loop waits, which is less on a busy machine
        return "done"

    found = run(work)
    assert found.result == "done"
    assert 0.03 <= found.seconds < 30


def test_the_clock_begins_where_it_is_told() -> None:
    """Events have the times of the virtual clock."""
    start = datetime(2030, 2, 28, 23, 59, 30, tzinfo=UTC)
    found = run(pay, {"fails": 1}, start=start)
    assert found.events[0].time == start
    (failed,) = [one for one in found.events if isinstance(one.data, AttemptFailed)]
    assert failed.data.retry_at - failed.time == timedelta(seconds=60)
    assert timedelta(seconds=60) <= found.events[-1].time - start < timedelta(seconds=90)
    with pytest.raises(RunRefused, match="needs a time zone"):
        run(pay, start=datetime(2030, 1, 1))  # noqa: DTZ001 - this is the mistake


def test_two_runs_are_the_same() -> None:
    """The stored bytes of two runs differ in nothing if they begin at the same time, and nothing real takes time."""

    @action("order:steady", backoff=3600, backoff_max=3600)
    async def steady(order: Order, ctx: ActionContext) -> int:
        await ctx.progress(50)
        await asyncio.sleep(1000.5)
        if ctx.attempt <= order.fails:
            raise OSError("no")
        return ctx.attempt

    start = datetime(2030, 1, 1, tzinfo=UTC)
    first, second = (run(steady, {"fails": 2}, start=start) for _ in range(2))
    assert first.result == 3
    assert [one.stored for one in first.events] == [one.stored for one in second.events]


async def test_from_an_async_test() -> None:
    """`run` would block a running loop, and says what to call; `run_async` does not block it."""
    with pytest.raises(RunRefused, match="await run_async"):
        run(pay)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    found = await run_async(pay, {"fails": 2})
    ticking.cancel()
    assert (found.status, ticks > 0) == (Status.SUCCEEDED, True)


def test_what_is_no_action() -> None:
    """A plain function and an id that no operation can have are refused, with what to do."""
    with pytest.raises(RunRefused, match=r"is no action: give the function that @action"):
        run(receipt)  # type: ignore[call-overload]
    with pytest.raises(RunRefused, match="operation id 'no id'"):
        run(pay, operation_id="no id")


def test_an_exit_in_a_task_of_the_handler() -> None:
    """`SystemExit` in a task that the handler began ends neither the run nor the process."""

    @action("exit:task")
    async def leave(_order: Order, _ctx: ActionContext) -> str:
        async def end() -> None:
            raise SystemExit(3)

        task = asyncio.create_task(end())
        try:
            await task
        except SystemExit:
            return "caught"
        return "not"

    assert run(leave).result == "caught"


def test_isolated_exclusive_and_limited_actions() -> None:
    """What concerns other operations and processes has no effect: there is one operation, in this process."""
    seen: list[int] = []

    @action("alone:here", isolation="process", exclusive="resource", rate="1/d", max_concurrency=1)
    def here(_order: Order, _ctx: ActionContext) -> None:
        seen.append(threading.get_ident())
        if len(seen) < 3:
            raise OSError("again")

    assert run(here, resource_id="1").attempts == 3
    assert len(seen) == 3


@action("wait:days", deadline=90 * 86_400)
async def wait_days(order: Order, ctx: ActionContext) -> list[int]:
    began = await ctx.step("begin", lambda: ctx.attempt)
    await ctx.sleep(order.amount * 86_400)
    await ctx.sleep(600, name="ten minutes", hold=True)
    return [began, ctx.attempt]


@action("wait:plain")
def wait_plain(order: Order, ctx: ActionContext) -> int:
    ctx.sleep(order.amount * 3600)
    return ctx.attempt


def test_waits_take_no_time() -> None:
    """A sleep ends the attempt; the next one begins when it is over, by the virtual clock, and counts as one."""
    began = time.monotonic()
    found = run(wait_days, {"amount": 60})
    assert time.monotonic() - began < 10
    assert (found.result, found.attempts) == ([1, 3], 3)
    assert found.seconds == pytest.approx(60 * 86_400 + 600, abs=1)
    assert found.names.count("waiting") == 2
    plain = run(wait_plain, {"amount": 5})
    assert (plain.result, plain.seconds) == (2, pytest.approx(5 * 3600, abs=1))


def test_a_wait_that_is_longer_than_the_deadline() -> None:
    """The operation fails at its deadline, as it does in production."""
    found = run(wait_plain, {"amount": 25})
    assert (found.error and found.error.code, found.seconds) == (
        ErrorCode.DEADLINE_EXCEEDED,
        pytest.approx(86_400, abs=1),
    )


def test_pauses_between_tries_of_a_plain_handler() -> None:
    """A plain handler blocks its thread between two tries of a step, and in a run not even that takes time."""
    calls: list[int] = []

    def shaky() -> int:
        calls.append(1)
        if len(calls) < 4:
            raise OSError("not yet")
        return 7

    @action("step:shaky-plain")
    def retry(_order: Order, ctx: ActionContext) -> int:
        step: int = ctx.step("shaky", shaky, max_attempts=4, backoff=600, backoff_max=600)
        return step

    began = time.monotonic()
    found = run(retry)
    assert (found.result, found.step("shaky").tries, found.attempts) == (7, 4, 1)
    assert 900 <= found.seconds <= 1810
    assert time.monotonic() - began < 10
