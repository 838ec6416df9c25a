"""Cancelling a running operation: the handler is asked to stop, and its own end decides the outcome."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_runner import ActionContext, ActionError, action
from opstream_schemas.events import Canceled
from opstream_schemas.operation.state import Status
from tests.support.journal.journals import KIND
from tests.support.runner.shared_event import SharedEvent
from tests.support.runner.stage import ACKS, HandlerGate, Input, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


async def test_a_handler_that_stops(stage: RunnerStage) -> None:
    """The next heartbeat finds the cancel request and cancels the handler; only then is the operation Canceled."""
    gate = HandlerGate()
    async with stage.runner([gated(gate, lease=1)]):
        await stage.request("op-1")
        await gate.entered(1)
        await stage.request_cancel("op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert (operation.status, operation.reason, gate.cancelled) == (Status.CANCELED, "late", [1])
    assert await stage.names("op-1") == ["requested", "started", "cancel-requested", "canceled"]


async def test_a_handler_that_cleans_up(stage: RunnerStage) -> None:
    """A cancelled handler has time to clean up and may report progress; the operation is Running until then."""
    running, cleaning, cleaned = SharedEvent(), SharedEvent(), SharedEvent()

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            await ctx.progress(99, "cleaning up")
            cleaning.set()
            await cleaned.wait()

    async with stage.runner([handler]):
        await stage.request("op-1")
        await running.wait()
        await stage.request_cancel("op-1")
        await cleaning.wait()
        assert (await stage.state("op-1")).status is Status.RUNNING
        cleaned.set()
        await stage.ended("op-1")
    names = ["requested", "started", "cancel-requested", "progressed", "canceled"]
    assert await stage.names("op-1") == names


@pytest.mark.parametrize(
    ("error", "code"), [(None, None), (ActionError("Half", "half done"), "Half"), (OSError("broken"), 500)]
)
async def test_a_handler_that_ends_otherwise(
    stage: RunnerStage, error: Exception | None, code: int | str | None
) -> None:
    """A cancelled handler that returns has succeeded, and one that raises another exception has failed."""
    running = SharedEvent()

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> str:
        try:
            running.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if error is not None:
                raise error from None
        return "done"

    async with stage.runner([handler]):
        await stage.request("op-1")
        await running.wait()
        await stage.request_cancel("op-1")
        operation = await stage.ended("op-1")
    if code is None:
        assert (operation.status, operation.result) == (Status.SUCCEEDED, msgspec.Raw(b'"done"'))
    else:
        assert operation.error is not None
        assert (operation.status, operation.error.code) == (Status.FAILED, code)


async def test_a_plain_handler(stage: RunnerStage) -> None:
    """A thread can't be interrupted: it ends by itself, and its result is recorded."""
    release = threading.Event()
    running = SharedEvent()
    loop = asyncio.get_running_loop()

    @action(str(KIND), lease=1)
    def handler(request: Input, ctx: ActionContext) -> str:
        loop.call_soon_threadsafe(running.set)
        release.wait(10)
        return "done"

    async with stage.runner([handler]) as runner:
        await stage.request("op-1")
        await running.wait()
        await stage.request_cancel("op-1")
        (dispatcher,) = runner._dispatchers.values()
        attempt = dispatcher._attempts["op-1"]
        await stage.reached("op-1", lambda _: attempt._stop_signal.reason is not None)
        release.set()
        operation = await stage.ended("op-1")
    assert operation.status is Status.SUCCEEDED


@pytest.mark.parametrize("is_checking", [False, True])
async def test_a_plain_handler_that_reads_its_context(stage: RunnerStage, is_checking: bool) -> None:
    """A plain handler sees the cancel request in its context. If it returns it has succeeded; with `check_canceled` it
    has stopped."""
    running = SharedEvent()
    loop = asyncio.get_running_loop()

    @action(str(KIND), lease=1)
    def handler(request: Input, ctx: ActionContext) -> str:
        loop.call_soon_threadsafe(running.set)
        while not ctx.cancel_requested:
            time.sleep(0.001)
        if is_checking:
            ctx.check_canceled()
        return "saw it"

    async with stage.runner([handler]):
        await stage.request("op-1")
        await running.wait()
        await stage.request_cancel("op-1")
        operation = await stage.ended("op-1")
    assert operation.status is (Status.CANCELED if is_checking else Status.SUCCEEDED)


async def test_a_clean_up_beyond_its_grace(stage: RunnerStage, caplog: pytest.LogCaptureFixture) -> None:
    """A clean-up that takes longer than its grace is cancelled too; the lease is kept until the handler has stopped."""
    running, interrupted, release = SharedEvent(), SharedEvent(), SharedEvent()
    ends: list[str] = []

    @action(str(KIND), lease=1, cancel_grace=0.1)
    async def handler(request: Input, ctx: ActionContext) -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            try:
                await asyncio.Event().wait()
            finally:
                interrupted.set()
                while not release.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await release.wait()
                ends.append("stopped")

    acks = await stage.spy(ACKS)
    async with stage.runner([handler]) as runner:
        await stage.request("op-1")
        await running.wait()
        await stage.request_cancel("op-1")
        runner.notify(KIND, "op-1")
        async with asyncio.timeout(5):
            await interrupted.wait()
        seen = len(acks.seen)
        await eventually(lambda: len(acks.seen) >= seen + 4)  # heartbeats: that is more than a lease
        assert (await stage.state("op-1")).status is Status.RUNNING
        assert ends == []
        release.set()
        operation = await stage.ended("op-1")
        await stage.settled()
    assert (operation.status, operation.attempt, ends) == (Status.CANCELED, 1, ["stopped"])
    assert "operation op-1: the handler of book:upload-start was asked to stop 0.1 s ago" in caplog.text


async def test_a_thread_sees_a_shutdown(stage: RunnerStage) -> None:
    """A plain handler that reads its context ends when its runner stops, and the operation is released."""
    running, over = SharedEvent(), threading.Event()
    loop = asyncio.get_running_loop()

    @action(str(KIND))
    def handler(request: Input, ctx: ActionContext) -> None:
        loop.call_soon_threadsafe(running.set)
        try:
            while True:
                ctx.check_canceled()
                time.sleep(0.001)
        finally:
            over.set()

    async with stage.runner([handler]) as runner:
        await stage.request("op-1")
        await running.wait()
        began = time.monotonic()
        await runner.stop()
        assert (over.is_set(), time.monotonic() - began < 1) == (True, True)
    assert await stage.names("op-1") == ["requested", "started", "attempt-failed"]


async def test_a_handler_that_cancels_itself(stage: RunnerStage) -> None:
    """A cancellation without a request is a failure that counts, so it is not retried for ever."""

    @action(str(KIND), max_attempts=2, backoff=0.05)
    async def handler(request: Input, ctx: ActionContext) -> None:
        raise asyncio.CancelledError

    async with stage.runner([handler]):
        await stage.request("op-1")
        assert (await stage.ended("op-1")).status is Status.FAILED
    assert await stage.names("op-1") == ["requested", "started", "attempt-failed", "started", "failed"]


async def test_a_cancellation_before_any_runner(stage: RunnerStage) -> None:
    """An operation that was canceled before a runner existed never starts, and its message is acknowledged."""
    gate = HandlerGate()
    await stage.request("op-1")
    await stage.append("op-1", Canceled(reason="late"))
    async with stage.runner([gated(gate)]):
        await stage.settled()
    assert gate.attempts == []
    assert await stage.names("op-1") == ["requested", "canceled"]


async def test_a_notification_causes_a_read_at_once(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with a long lease, a notification makes the runner read at once, and soon again for a request that was
    stored later."""
    monkeypatch.setattr("opstream_runner.attempt.attempt._SECOND_HEARTBEAT_DELAY", 1.0)
    gate = HandlerGate()
    async with stage.runner([gated(gate, lease=60)]) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        runner.notify(KIND, "op-unknown")
        runner.notify(KIND, "op-1")
        (dispatcher,) = runner._dispatchers.values()
        await stage.reached("op-1", lambda _: dispatcher._attempts["op-1"]._heartbeat_task is None)
        began = time.monotonic()
        await stage.request_cancel("op-1")
        operation = await stage.ended("op-1")
        took = time.monotonic() - began
    assert (operation.status, took < 5) == (Status.CANCELED, True)


async def test_a_cancel_request_just_before_the_outcome(stage: RunnerStage) -> None:
    """An outcome that was decided before a cancel request was seen is decided again, and stored."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await gate.entered(1)
        await stage.request_cancel("op-1")
        gate.open()
        await stage.ended("op-1")
        await stage.settled()
    assert await stage.names("op-1") == ["requested", "started", "cancel-requested", "succeeded"]


async def test_a_cancel_request_and_a_shutdown(stage: RunnerStage) -> None:
    """If the runner of a canceled operation stops, the next runner records Canceled without another attempt."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await gate.entered(1)
        await stage.request_cancel("op-1")
    async with stage.runner([gated(gate)]):
        operation = await stage.ended("op-1")
    assert (operation.status, operation.reason, gate.attempts) == (Status.CANCELED, "late", [("op-1", 1)])
