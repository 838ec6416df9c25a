"""Stopping a runner: running attempts are released at once, do not count, and another runner continues."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from opstream_journal import Connection, ExpectedVersion, Journal, JournalUnavailable
from opstream_runner import ActionContext, ActionError, action
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import AttemptFailed, Event, Progressed, RecordedEvent, Started
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, linked
from tests.support.runner.shared_event import SharedEvent
from tests.support.runner.stage import ACKS, READS, HandlerGate, Input, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def other(broker: Broker) -> AsyncIterator[Connection]:
    """The connection of a second runner."""
    async with linked(broker.url) as link:
        yield link


async def test_another_runner_continues_the_operation(stage: RunnerStage, other: Connection) -> None:
    """A stopped attempt ends as RunnerStopped, uncounted. The next one starts within a second under the ticket of its
    wake-up."""
    first, second = HandlerGate(), HandlerGate()
    second.open()
    async with stage.runner([gated(first)], concurrency=1) as runner:
        await stage.request("op-1")
        await first.entered(1)
        async with stage.runner([gated(second)], link=other):
            began = time.monotonic()
            await runner.stop()
            await second.entered(1)
            took = time.monotonic() - began
            operation = await stage.ended("op-1")
            await stage.settled()
    _, before, stopped, after, _ = await stage.datas("op-1")
    assert isinstance(before, Started)
    assert isinstance(stopped, AttemptFailed)
    assert isinstance(after, Started)
    assert (stopped.error.code, stopped.counted, stopped.attempt) == (ErrorCode.RUNNER_STOPPED, False, 1)
    assert after.ticket > before.ticket
    assert (operation.attempt, operation.attempts_used) == (2, 1)
    assert (first.cancelled, took < 1) == ([1], True)


async def test_stops_do_not_count(stage: RunnerStage) -> None:
    """An action with one attempt survives any number of stopped runners."""
    gate = HandlerGate()
    for stops in range(1, 4):
        async with stage.runner([gated(gate, max_attempts=1)]):
            if stops == 1:
                await stage.request("op-1")
            await gate.entered(stops)
    gate.open()
    async with stage.runner([gated(gate, max_attempts=1)]):
        operation = await stage.ended("op-1")
    assert (operation.status, operation.attempt, operation.attempts_used) == (Status.SUCCEEDED, 4, 1)


async def test_a_plain_handler_is_released(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread does not delay the stop. Its later progress is discarded and causes no reads."""
    monkeypatch.setattr("opstream_runner.attempt.attempt._STOP_GRACE", 0.2)
    release, told = threading.Event(), threading.Event()
    running = SharedEvent()
    loop = asyncio.get_running_loop()

    @action(str(KIND), lease=1)
    def handler(request: Input, ctx: ActionContext) -> str:
        loop.call_soon_threadsafe(running.set)
        release.wait(10)
        ctx.progress(50, "from beyond")
        told.set()
        return "from beyond"

    async with stage.runner([handler], concurrency=1) as runner:
        await stage.request("op-1")
        await running.wait()
        await runner.stop()
        reads, acks = await stage.spy(READS), await stage.spy(ACKS)
        release.set()
        await asyncio.to_thread(told.wait, 5)
        gate = HandlerGate()
        async with stage.runner([gated(gate, lease=1)]):
            await eventually(lambda: len(acks.seen) == 2)
            assert len(reads.seen) == 3  # one to decide on the second delivery, and two heartbeats
            gate.open()
            await stage.ended("op-1")
    assert await stage.names("op-1") == ["requested", "started", "attempt-failed", "started", "succeeded"]


async def test_a_stubborn_handler_is_left_behind(stage: RunnerStage) -> None:
    """The operation of a handler that ignores its cancellation is released after a grace, and its result is
    discarded."""
    running, release = SharedEvent(), SharedEvent()

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> str:
        running.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "stubborn"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opstream_runner.attempt.attempt._STOP_GRACE", 0.2)
        async with stage.runner([handler]) as runner:
            await stage.request("op-1")
            await running.wait()
            await runner.stop()
    release.set()
    assert await stage.names("op-1") == ["requested", "started", "attempt-failed"]


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (ActionError(503, "half done"), ["requested", "started", "failed"]),
        (OSError("clean-up failed"), ["requested", "started", "attempt-failed"]),
    ],
)
async def test_a_handler_that_raises_when_stopped(stage: RunnerStage, error: Exception, names: list[str]) -> None:
    """A stopped handler that raises ActionError has failed. One whose clean-up raises another exception is released."""
    running = SharedEvent()

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error from None
        raise AssertionError("it was not cancelled")

    async with stage.runner([handler]) as runner:
        await stage.request("op-1")
        await running.wait()
        await runner.stop()
    assert await stage.names("op-1") == names


async def test_a_handler_that_finishes_when_stopped(stage: RunnerStage) -> None:
    """A handler that uses its grace to finish has its result recorded."""
    running = SharedEvent()

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> str:
        try:
            running.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await ctx.progress(99, "just a moment")
        return "finished"

    async with stage.runner([handler]) as runner:
        await stage.request("op-1")
        await running.wait()
        await runner.stop()
    assert await stage.names("op-1") == ["requested", "started", "progressed", "succeeded"]


@pytest.mark.parametrize("drain", [0.0, 60.0])
async def test_messages_that_were_not_started_are_requeued(
    stage: RunnerStage, drain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that was delivered but not started before the stop goes to another runner at once."""
    gate = HandlerGate()
    gate.open()
    loading, release = SharedEvent(), SharedEvent()
    read = stage.journal.events

    async def events(operation_id: str, *, since: object = None) -> object:
        loading.set()
        await release.wait()
        return await read(operation_id)

    await stage.request("op-1")
    async with stage.runner([gated(gate)], concurrency=0):
        subscription = await stage.link.nc.jetstream().pull_subscribe_bind("runner_book_upload-start", "OPERATIONS")
        (message,) = await subscription.fetch(1)
        await message.nak()  # its next delivery reads the journal
        await subscription.unsubscribe()
    monkeypatch.setattr(stage.journal, "events", events)
    async with stage.runner([gated(gate)], drain=drain) as runner:
        await loading.wait()
        stopping = asyncio.create_task(runner.stop())
        (dispatcher,) = runner._dispatchers.values()
        await eventually(lambda: dispatcher._is_draining)
        release.set()
        await stopping
    assert gate.attempts == []
    async with stage.runner([gated(gate)]):
        await stage.ended("op-1", within=2)
    assert gate.attempts == [("op-1", 1)]


async def test_a_stop_in_the_middle_of_a_report(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that is cancelled while its progress is being stored is released on top of the stored event."""
    append = stage.journal.append
    stored = SharedEvent()

    async def forgetful(kind: Kind, event: Event, expected: ExpectedVersion, *, budget: float) -> RecordedEvent:
        recorded = await append(kind, event, expected, budget=budget)
        if isinstance(event.data, Progressed):
            stored.set()
            await asyncio.Event().wait()
        return recorded

    @action(str(KIND))
    async def handler(request: Input, ctx: ActionContext) -> None:
        await ctx.progress(10)

    monkeypatch.setattr(stage.journal, "append", forgetful)
    async with stage.runner([handler]) as runner:
        await stage.request("op-1")
        await stored.wait()
        await runner.stop()
        assert not runner.is_ready
    assert await stage.names("op-1") == ["requested", "started", "progressed", "attempt-failed"]


async def test_a_stop_without_a_responding_broker(
    broker: Broker, stage: RunnerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a responding broker, a runner still stops in time, and the lease runs out."""
    monkeypatch.setattr("opstream_runner.runner._STOP_TIMEOUT", 1.0)
    gate = HandlerGate()
    async with stage.runner([gated(gate)]) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        broker.pause()
        began = time.monotonic()
        await runner.stop()
        took = time.monotonic() - began
        broker.resume()
    assert (gate.cancelled, took < 4) == ([1], True)


async def test_a_release_that_does_not_arrive(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """If neither the wake-up nor the nak of a released attempt arrives, the next one starts when the lease is over."""
    gate = HandlerGate()

    async def fail(*_: object, **__: object) -> None:
        raise JournalUnavailable("no response", maybe_stored=False)

    async def nak(_: object, delay: float = 0.0) -> None:
        return None

    async with stage.runner([gated(gate, lease=1)]):
        await stage.request("op-1")
        await gate.entered(1)
        monkeypatch.setattr("opstream_runner.attempt.completion.send_wake_up", fail)
        monkeypatch.setattr("opstream_journal.DeliveredMessage.nak", nak)
    monkeypatch.undo()
    gate.open()
    async with stage.runner([gated(gate, lease=1)]):
        operation = await stage.ended("op-1")
    assert (operation.attempt, operation.attempts_used) == (2, 1)


async def test_a_release_outlives_the_broker(broker: Broker, stage: RunnerStage) -> None:
    """`opstream up` stops the runner, then the broker. After both are back the operation continues at once, not when
    its lease is over."""
    gate = HandlerGate()
    async with stage.runner([gated(gate, lease=60)]):
        await stage.request("op-1")
        await gate.entered(1)
    broker.stop()
    await eventually(lambda: not stage.link.is_connected)
    broker.start()
    await eventually(lambda: stage.link.is_connected)
    gate.open()
    async with stage.runner([gated(gate, lease=60)]):
        operation = await stage.ended("op-1", within=15)
    assert (operation.status, operation.attempt, operation.attempts_used) == (Status.SUCCEEDED, 2, 1)
