"""Stopping a handler: asked once, then insisted on when its grace is over, for as long as its verdict allows."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import msgspec
import pytest

from opstream_runner import Action, ActionContext, action
from opstream_runner.handler.invocation import (
    UNEXPECTED_ERROR,
    HandlerOutcome,
    InProcessHandler,
    Raised,
    Returned,
    Stopped,
)
from opstream_runner.handler.supervision import StopReason, StopSignal, supervise
from tests.support.system.wait import eventually

pytestmark = pytest.mark.unit

GRACE = 0.05
LONG = 60.0


class Input(msgspec.Struct):
    """What the handlers here take."""


class Trial:
    """A handler at work whose verdicts the test gives."""

    def __init__(self, one: Action[..., Any], *, cancel_grace: float = LONG, stop_grace: float = LONG) -> None:
        self.judgement = StopSignal()
        context = ActionContext(operation_id="op-1", cancel_requested=lambda: self.judgement.reason is not None)
        self.work = InProcessHandler(one, msgspec.Raw(b"{}"), context, 1000)
        self.end = asyncio.create_task(
            supervise(
                self.work, self.judgement, cancel_grace=cancel_grace, stop_grace=stop_grace, name="operation op-1: it"
            )
        )

    async def outcome(self) -> HandlerOutcome:
        """What becomes of it."""
        async with asyncio.timeout(5):
            return await self.end


class Stubborn:
    """A handler that lets a number of cancellations pass, and counts them."""

    def __init__(self, patience: int, end: BaseException | None = None) -> None:
        self.running = asyncio.Event()
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
    """Without a verdict its outcome is its own."""

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> int:
        return 7

    assert await Trial(handler).outcome() == Returned(b"7")


@pytest.mark.parametrize("verdict", list(StopReason))
async def test_a_handler_that_stops_when_asked(verdict: StopReason) -> None:
    """Whatever the reason, a handler that lets its first cancellation pass has stopped at once."""
    stubborn = Stubborn(patience=0)
    trial = Trial(stubborn.action)
    await stubborn.running.wait()
    trial.judgement.set(verdict)
    assert await trial.outcome() == Stopped()
    assert stubborn.cancellations == 1


async def test_a_clean_up_beyond_its_grace(caplog: pytest.LogCaptureFixture) -> None:
    """For a client's sake a handler is cancelled again after each grace, with a warning, until it has stopped."""
    stubborn = Stubborn(patience=2)
    trial = Trial(stubborn.action, cancel_grace=GRACE, stop_grace=GRACE / 10)
    await stubborn.running.wait()
    began = time.monotonic()
    trial.judgement.set(StopReason.CANCEL)
    assert await trial.outcome() == Stopped()
    assert time.monotonic() - began >= 2 * GRACE
    assert stubborn.cancellations == 3
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warnings == [f"operation op-1: it was asked to stop {n * GRACE:g} s ago and still runs" for n in (1, 2)]


async def test_a_thread_that_is_canceled(caplog: pytest.LogCaptureFixture) -> None:
    """A plain handler can't be interrupted: it is waited for, however long it does not look, and its outcome counts."""
    release = threading.Event()

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> bool:
        release.wait(5)
        return ctx.cancel_requested

    trial = Trial(handler, cancel_grace=GRACE)
    trial.judgement.set(StopReason.CANCEL)
    await eventually(lambda: len(caplog.records) >= 2)
    assert not trial.end.done()
    release.set()
    assert await trial.outcome() == Returned(b"true")


@pytest.mark.parametrize("verdict", list(StopReason))
async def test_a_thread_that_looks(verdict: StopReason) -> None:
    """A plain handler that looks ends by any verdict, and is not left behind."""

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> None:
        while True:
            ctx.check_canceled()
            time.sleep(0.001)

    trial = Trial(handler)
    trial.judgement.set(verdict)
    assert await trial.outcome() == Stopped()


@pytest.mark.parametrize("verdict", [StopReason.SHUTDOWN, StopReason.LEASE_UNVERIFIED, StopReason.LEASE_LOST])
async def test_a_handler_that_is_left_behind(verdict: StopReason, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has no time cancels a handler twice, and then leaves it behind."""
    stubborn = Stubborn(patience=2)
    trial = Trial(stubborn.action, stop_grace=GRACE)
    await stubborn.running.wait()
    trial.judgement.set(verdict)
    assert await trial.outcome() == Stopped(is_left_behind=True)
    assert (stubborn.cancellations, trial.work.outcome.done()) == (2, False)
    assert "operation op-1: it did not stop within 0.05 s and is left behind" in caplog.text
    trial.work.outcome.cancel()


@pytest.mark.parametrize("verdict", [StopReason.TIMEOUT, StopReason.DEADLINE])
async def test_a_handler_whose_time_is_over(verdict: StopReason, caplog: pytest.LogCaptureFixture) -> None:
    """It has the action's own grace for its clean-up, is cancelled twice, and is left behind all the same."""
    stubborn = Stubborn(patience=2)
    trial = Trial(stubborn.action, cancel_grace=GRACE)
    await stubborn.running.wait()
    trial.judgement.set(verdict)
    assert await trial.outcome() == Stopped(is_left_behind=True)
    assert (stubborn.cancellations, trial.work.outcome.done()) == (2, False)
    assert "operation op-1: it did not stop within 0.05 s and is left behind" in caplog.text
    trial.work.outcome.cancel()


async def test_a_canceled_thread_whose_time_is_over() -> None:
    """A plain handler that does not look has no more time than its action gives it, canceled or not."""
    release = threading.Event()

    @action("book:act")
    def handler(request: Input, ctx: ActionContext) -> None:
        release.wait(5)

    trial = Trial(handler, cancel_grace=GRACE)
    trial.judgement.set(StopReason.CANCEL)
    trial.judgement.set(StopReason.TIMEOUT)
    assert await trial.outcome() == Stopped(is_left_behind=True)
    release.set()


async def test_a_clean_up_that_a_stop_does_not_disturb() -> None:
    """A second reason to stop shortens the grace and interrupts nothing before it is over."""
    stubborn = Stubborn(patience=1)
    trial = Trial(stubborn.action, stop_grace=4 * GRACE)
    await stubborn.running.wait()
    trial.judgement.set(StopReason.CANCEL)
    await eventually(lambda: stubborn.cancellations == 1)
    began = time.monotonic()
    trial.judgement.set(StopReason.SHUTDOWN)
    assert await trial.outcome() == Stopped()
    assert (stubborn.cancellations, time.monotonic() - began >= 4 * GRACE) == (2, True)


async def test_a_verdict_that_weighs_less() -> None:
    """A client's wish that comes after a weightier reason changes nothing."""
    stubborn = Stubborn(patience=1)
    trial = Trial(stubborn.action, cancel_grace=LONG, stop_grace=GRACE)
    await stubborn.running.wait()
    trial.judgement.set(StopReason.SHUTDOWN)
    trial.judgement.set(StopReason.CANCEL)
    assert await trial.outcome() == Stopped()
    assert trial.judgement.reason is StopReason.SHUTDOWN


async def test_a_handler_that_is_asked_before_it_began() -> None:
    """It never begins, and has stopped."""
    stubborn = Stubborn(patience=0)
    trial = Trial(stubborn.action)
    trial.work.request_stop()
    trial.judgement.set(StopReason.CANCEL)
    assert await trial.outcome() == Stopped()
    assert not stubborn.running.is_set()


async def test_a_handler_that_cancels_its_own_task() -> None:
    """A handler that cancels the task that runs it has failed: it must not begin again for ever."""

    @action("book:act")
    async def handler(request: Input, ctx: ActionContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    assert await Trial(handler).outcome() == Raised(UNEXPECTED_ERROR, is_meant=False)
