"""Stopping a handler: it is asked once, and forced after its grace, for as long as the stop reason allows."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from opstream_runner import Action, ActionContext, ActionError, action
from opstream_runner.handler.handler_loop import HandlerLoop
from opstream_runner.handler.in_process import InProcessHandler
from opstream_runner.handler.invocation import (
    UNEXPECTED_ERROR,
    HandlerOutcome,
    Raised,
    Returned,
    Stopped,
)
from opstream_runner.handler.supervision import StopReason, StopSignal, supervise
from opstream_schemas.events import OperationError
from tests.support.runner.shared_event import SharedEvent
from tests.support.system.wait import eventually

pytestmark = pytest.mark.unit

GRACE = 0.05
LONG = 60.0


class Input(msgspec.Struct):
    """The input of this module's handlers."""


class Trial:
    """A running handler whose stop signal the test sets."""

    handler_loop: HandlerLoop

    def __init__(self, one: Action[..., Any], *, cancel_grace: float = LONG, stop_grace: float = LONG) -> None:
        self.stop_signal = StopSignal()
        context = ActionContext(operation_id="op-1", cancel_requested=lambda: self.stop_signal.reason is not None)
        self.handler = InProcessHandler(one, msgspec.Raw(b"{}"), context, 1000, self.handler_loop)
        self.end = asyncio.create_task(
            supervise(
                self.handler,
                self.stop_signal,
                cancel_grace=cancel_grace,
                stop_grace=stop_grace,
                name="operation op-1: it",
            )
        )

    async def outcome(self) -> HandlerOutcome:
        """Return the outcome."""
        async with asyncio.timeout(5):
            return await self.end


@pytest.fixture(autouse=True)
async def handler_loop() -> AsyncIterator[None]:
    """The loop of the handlers of one test."""
    Trial.handler_loop = HandlerLoop()
    yield
    await Trial.handler_loop.close()


class Stubborn:
    """A handler that ignores a number of cancellations, and counts them."""

    def __init__(self, patience: int, end: BaseException | None = None) -> None:
        self.running = SharedEvent()
        self.cancellations = 0
        self._end = end

        @action("book:act")
        async def handler(request: Input, ctx: ActionContext) -> str:
            self.running.set()
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.cancellations += 1
                    if self.cancellations > patience:
                        raise

        self.action = handler


async def test_a_handler_that_ends_by_itself() -> None:
    """Without a stop reason the outcome is the handler's own."""

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> int:
        return 7

    assert await Trial(handler).outcome() == Returned(b"7")


@pytest.mark.parametrize("reason", list(StopReason))
async def test_a_handler_that_stops_when_asked(reason: StopReason) -> None:
    """For every reason, a handler that lets its first cancellation pass has stopped at once."""
    stubborn = Stubborn(patience=0)
    trial = Trial(stubborn.action)
    await stubborn.running.wait()
    trial.stop_signal.set(reason)
    assert await trial.outcome() == Stopped()
    assert stubborn.cancellations == 1


async def test_a_clean_up_beyond_its_grace(caplog: pytest.LogCaptureFixture) -> None:
    """After a client's cancel, a handler is cancelled again after each grace, with a warning, until it has stopped."""
    stubborn = Stubborn(patience=2)
    trial = Trial(stubborn.action, cancel_grace=GRACE, stop_grace=GRACE / 10)
    await stubborn.running.wait()
    began = time.monotonic()
    trial.stop_signal.set(StopReason.CANCEL)
    assert await trial.outcome() == Stopped()
    assert time.monotonic() - began >= 2 * GRACE
    assert stubborn.cancellations == 3
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warnings == [f"operation op-1: it was asked to stop {n * GRACE:g} s ago and still runs" for n in (1, 2)]


async def test_a_thread_that_is_canceled(caplog: pytest.LogCaptureFixture) -> None:
    """A plain handler can't be interrupted: `supervise` waits however long it takes, and its outcome counts."""
    release = threading.Event()

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> bool:
        release.wait(5)
        return ctx.cancel_requested

    trial = Trial(handler, cancel_grace=GRACE)
    trial.stop_signal.set(StopReason.CANCEL)
    await eventually(lambda: len(caplog.records) >= 2)
    assert not trial.end.done()
    release.set()
    assert await trial.outcome() == Returned(b"true")


@pytest.mark.parametrize("reason", list(StopReason))
async def test_a_thread_that_reads_its_context(reason: StopReason) -> None:
    """A plain handler that reads its context ends for every reason, and is not left behind."""

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> None:
        while True:
            ctx.check_canceled()
            time.sleep(0.001)

    trial = Trial(handler)
    trial.stop_signal.set(reason)
    assert await trial.outcome() == Stopped()


@pytest.mark.parametrize("reason", [StopReason.SHUTDOWN, StopReason.LEASE_UNVERIFIED, StopReason.LEASE_LOST])
async def test_a_handler_that_is_left_behind(reason: StopReason, caplog: pytest.LogCaptureFixture) -> None:
    """For a shutdown or a lost lease, a handler is cancelled twice, and then left behind."""
    stubborn = Stubborn(patience=2)
    trial = Trial(stubborn.action, stop_grace=GRACE)
    await stubborn.running.wait()
    trial.stop_signal.set(reason)
    assert await trial.outcome() == Stopped(is_left_behind=True)
    assert (stubborn.cancellations, trial.handler.outcome.done()) == (2, False)
    assert "operation op-1: it did not stop within 0.05 s and is left behind" in caplog.text
    trial.handler.outcome.cancel()


@pytest.mark.parametrize("reason", [StopReason.TIMEOUT, StopReason.DEADLINE])
async def test_a_handler_whose_time_is_over(reason: StopReason, caplog: pytest.LogCaptureFixture) -> None:
    """After a timeout or deadline, a handler has the action's own grace, is cancelled twice, and is then left
    behind."""
    stubborn = Stubborn(patience=2)
    trial = Trial(stubborn.action, cancel_grace=GRACE)
    await stubborn.running.wait()
    trial.stop_signal.set(reason)
    assert await trial.outcome() == Stopped(is_left_behind=True)
    assert (stubborn.cancellations, trial.handler.outcome.done()) == (2, False)
    assert "operation op-1: it did not stop within 0.05 s and is left behind" in caplog.text
    trial.handler.outcome.cancel()


async def test_a_canceled_thread_whose_time_is_over() -> None:
    """A plain handler that does not read its context has no more time than its action gives it, canceled or not."""
    release = threading.Event()

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> None:
        release.wait(5)

    trial = Trial(handler, cancel_grace=GRACE)
    trial.stop_signal.set(StopReason.CANCEL)
    trial.stop_signal.set(StopReason.TIMEOUT)
    assert await trial.outcome() == Stopped(is_left_behind=True)
    release.set()


async def test_a_clean_up_that_a_stop_does_not_disturb() -> None:
    """A second reason shortens the grace, and does not interrupt the clean-up before the grace is over."""
    stubborn = Stubborn(patience=1)
    trial = Trial(stubborn.action, stop_grace=4 * GRACE)
    await stubborn.running.wait()
    trial.stop_signal.set(StopReason.CANCEL)
    await eventually(lambda: stubborn.cancellations == 1)
    began = time.monotonic()
    trial.stop_signal.set(StopReason.SHUTDOWN)
    assert await trial.outcome() == Stopped()
    assert (stubborn.cancellations, time.monotonic() - began >= 4 * GRACE) == (2, True)


async def test_a_reason_that_weighs_less() -> None:
    """A client's cancel after a stronger reason changes nothing."""
    stubborn = Stubborn(patience=1)
    trial = Trial(stubborn.action, cancel_grace=LONG, stop_grace=GRACE)
    await stubborn.running.wait()
    trial.stop_signal.set(StopReason.SHUTDOWN)
    trial.stop_signal.set(StopReason.CANCEL)
    assert await trial.outcome() == Stopped()
    assert trial.stop_signal.reason is StopReason.SHUTDOWN


async def test_a_handler_that_is_asked_before_it_began() -> None:
    """The handler is never called, and has stopped."""
    stubborn = Stubborn(patience=0)
    trial = Trial(stubborn.action)
    trial.handler.request_stop()
    trial.stop_signal.set(StopReason.CANCEL)
    assert await trial.outcome() == Stopped()
    assert not stubborn.running.is_set()


async def test_a_handler_that_cancels_its_own_task() -> None:
    """A handler that cancels the task that runs it has failed: it must not be retried for ever."""

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    assert await Trial(handler).outcome() == Raised(UNEXPECTED_ERROR, is_meant=False)


def traced(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler as most decorators do: what it returns is passed on."""

    @functools.wraps(handler)
    def wrapper(*args: Any) -> Any:
        return handler(*args)

    return wrapper


async def test_what_a_plain_handler_returns_is_awaited() -> None:
    """An async function under a plain decorator runs in the loop of the handlers, as any other."""
    threads: list[str] = []

    async def handler(request: Input, ctx: ActionContext) -> int:
        threads.append(threading.current_thread().name)
        await asyncio.sleep(0)
        return 7

    def own_loop(request: Input, ctx: ActionContext) -> int:
        return asyncio.run(handler(request, ctx))

    assert await Trial(action("book:act")(traced(handler))).outcome() == Returned(b"7")
    assert threads == ["the event loop of the async handlers"]
    assert await Trial(action("book:act")(own_loop)).outcome() == Returned(b"7")


async def test_what_a_plain_handler_returned_is_cancelled() -> None:
    """It stops at its next await, and cleans up."""
    running, cleaned = SharedEvent(), SharedEvent()

    async def handler(request: Input, ctx: ActionContext) -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    trial = Trial(action("book:act")(traced(handler)))
    await running.wait()
    trial.stop_signal.set(StopReason.CANCEL)
    assert await trial.outcome() == Stopped()
    assert cleaned.is_set()


async def test_what_a_plain_handler_returns_too_late_is_not_begun() -> None:
    """A stop that comes while the plain part runs is kept."""
    running, may_return = SharedEvent(), threading.Event()
    begun: list[int] = []

    async def rest() -> None:
        begun.append(1)

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> Any:
        running.set()
        may_return.wait(5)
        return rest()

    trial = Trial(handler)
    await running.wait()
    trial.stop_signal.set(StopReason.CANCEL)
    trial.handler.request_stop()
    may_return.set()
    assert await trial.outcome() == Stopped()
    assert begun == []


async def test_what_a_plain_handler_returns_may_fail() -> None:
    """Its exception decides, as that of an async handler does."""

    async def handler(request: Input, ctx: ActionContext) -> None:
        raise ActionError("Full", "no room")

    outcome = await Trial(action("book:act")(traced(handler))).outcome()
    assert outcome == Raised(OperationError(code="Full", message="no room"), is_meant=True)
