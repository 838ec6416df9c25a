"""Leases: an attempt that loses its lease loses the operation, and records and sends nothing more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from opstream_journal import Connection, DeliveredMessage, Journal, JournalUnavailable
from opstream_journal.jetstream.rpc import StoredMessage
from opstream_runner import ActionContext, action
from opstream_runner.attempt.attempt import Attempt
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Progressed
from opstream_schemas.operation.state import Status
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, linked, opened
from tests.support.runner.shared_event import SharedEvent
from tests.support.runner.stage import ACKS, READS, HandlerGate, Input, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def other(broker: Broker, stage: RunnerStage) -> AsyncIterator[Connection]:
    """The connection of the runner that will lose its lease."""
    async with linked(broker.url) as link:
        yield link


@pytest.fixture
def muted(other: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other runner's heartbeats do not arrive, so it loses its lease."""
    speak = DeliveredMessage.in_progress

    async def in_progress(self: DeliveredMessage) -> None:
        if self._connection is not other:
            await speak(self)

    monkeypatch.setattr(DeliveredMessage, "in_progress", in_progress)


@pytest.fixture
def frozen(other: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other runner makes no heartbeats, as if they came only when everything is over."""
    look = Attempt._heartbeat_now

    def check_now(self: Attempt) -> None:
        if self._message._connection is not other:
            look(self)

    monkeypatch.setattr(Attempt, "_heartbeat_now", check_now)


async def test_a_long_action_keeps_its_lease(stage: RunnerStage) -> None:
    """An action that takes several leases is one attempt, with one read of the journal per heartbeat."""
    gate = HandlerGate()
    reads, acks = await stage.spy(READS), await stage.spy(ACKS)
    async with stage.runner([gated(gate, lease=1)]):
        await stage.request("op-1")
        await gate.entered(1)
        await eventually(lambda: len(acks.seen) == 7)  # two leases and a third
        assert ([data for _, data in acks.seen], len(reads.seen)) == ([b"+WPI"] * 7, 7)
        gate.open()
        await stage.ended("op-1")
    assert await stage.names("op-1") == ["requested", "started", "succeeded"]


async def test_progress_needs_no_reads(stage: RunnerStage) -> None:
    """Progress of the attempt itself costs no further read, even if a heartbeat sees it."""
    reads, acks = await stage.spy(READS), await stage.spy(ACKS)

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> None:
        for percent in range(100):
            await ctx.progress(percent)
            if len(acks.seen) >= 2:
                return
            await asyncio.sleep(0.01)

    async with stage.runner([handler]):
        await stage.request("op-1")
        await eventually(lambda: len(acks.seen) == 3)
        assert len(reads.seen) == 2
    assert len([name for name in await stage.names("op-1") if name == Progressed.name]) >= 10


@pytest.mark.usefixtures("muted")
async def test_an_attempt_without_a_lease_stops_and_sends_nothing(stage: RunnerStage, other: Connection) -> None:
    """A runner that lost its lease reads its successor's start: its handler is cancelled, nothing is recorded, and no
    ack, nak or heartbeat is sent for the message."""
    theirs, ours = HandlerGate(), HandlerGate()
    acks = await stage.spy(ACKS)
    dependencies = stage.dependencies(journal=await opened(other))
    async with stage.runner([gated(theirs, lease=1)], link=other, dependencies=dependencies, concurrency=1):
        await stage.request("op-1")
        await theirs.entered(1)
        async with stage.runner([gated(ours, lease=1)]):
            await ours.entered(1)
            await eventually(lambda: theirs.cancelled == [1])
            ours.open()
            operation = await stage.ended("op-1")
            await stage.settled()
    assert (operation.status, operation.attempt) == (Status.SUCCEEDED, 2)
    assert await stage.names("op-1") == ["requested", "started", "started", "succeeded"]
    assert acks.acks(1) == []


@pytest.mark.usefixtures("frozen")
async def test_an_outcome_that_comes_too_late(stage: RunnerStage, other: Connection) -> None:
    """The result of a handler is refused if a successor has started, even if its runner has not noticed."""
    theirs, ours = HandlerGate(), HandlerGate()
    acks = await stage.spy(ACKS)
    dependencies = stage.dependencies(journal=await opened(other))
    async with stage.runner(
        [gated(theirs, lease=1)], link=other, dependencies=dependencies, concurrency=1
    ) as stale_runner:
        await stage.request("op-1")
        await theirs.entered(1)
        async with stage.runner([gated(ours, lease=1)]):
            await ours.entered(1)
            theirs.open()
            (dispatcher,) = stale_runner._dispatchers.values()
            await eventually(lambda: not dispatcher._tasks)
            ours.open()
            operation = await stage.ended("op-1")
            await stage.settled()
    assert (operation.result, theirs.cancelled) == (msgspec.Raw(b"2"), [])
    assert await stage.names("op-1") == ["requested", "started", "started", "succeeded"]
    assert acks.acks(1) == []


@pytest.mark.usefixtures("muted")
async def test_a_plain_handler_without_a_lease(stage: RunnerStage, other: Connection) -> None:
    """The thread of an attempt without a lease can't be stopped, but its progress and its result are discarded, and it
    causes no reads."""
    ours, later = HandlerGate(), HandlerGate()
    release = SharedEvent()
    contexts: list[ActionContext] = []
    loop = asyncio.get_running_loop()

    @action(str(KIND), lease=1)
    def handler(request: Input, ctx: ActionContext) -> str:
        contexts.append(ctx)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
        ctx.progress(77, "from beyond")
        return "from beyond"

    dependencies = stage.dependencies(journal=await opened(other))
    async with stage.runner([handler], link=other, dependencies=dependencies, concurrency=1) as stale_runner:
        await stage.request("op-1")
        await eventually(lambda: contexts)
        async with stage.runner([gated(ours, lease=1)]):
            await ours.entered(1)
            (dispatcher,) = stale_runner._dispatchers.values()
            await eventually(lambda: not dispatcher._tasks)
            release.set()
            ours.open()
            await stage.ended("op-1")
    contexts[0].progress(99)
    assert await stage.names("op-1") == ["requested", "started", "started", "succeeded"]
    reads, acks = await stage.spy(READS), await stage.spy(ACKS)
    async with stage.runner([gated(later, lease=1)]):
        await stage.request("op-2")
        await eventually(lambda: len(acks.seen) == 2)  # heartbeats of another operation
        assert [data for _, data in reads.seen if b"op-1" in data] == []
        later.open()
        await stage.ended("op-2")


async def test_attempts_that_die_are_bounded(stage: RunnerStage, other: Connection) -> None:
    """An action that ends its runner each time is started max_attempts times, and fails as RunnerLost."""

    @action(str(KIND), lease=1, max_attempts=2)
    async def deadly(request: Input, ctx: ActionContext) -> None:
        raise AssertionError("its runner dies first")

    async def die(*_: object) -> None:
        raise asyncio.CancelledError  # the dispatcher's task ends and sends nothing, as in a killed process

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opstream_runner.attempt.attempt.Attempt.run", die)
        async with stage.runner([deadly]):
            await stage.request("op-1")
            operation = await stage.ended("op-1")
            await stage.settled()
    assert operation.error is not None
    assert (operation.error.code, operation.attempts_used) == (ErrorCode.RUNNER_LOST, 2)


@pytest.fixture
async def runner_journal(link: Connection) -> Journal:
    """The journal of the runner alone: the stage, which reads what has happened, has another."""
    return await opened(link)


@pytest.fixture
def without_reads(runner_journal: Journal, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The runner's heartbeats can't read the journal until this is undone."""

    async def last(_: str) -> StoredMessage | None:
        raise JournalUnavailable("no response", maybe_stored=False)

    monkeypatch.setattr(runner_journal, "last_message", last)
    return monkeypatch


async def test_an_unverified_lease_stops_the_handler(
    stage: RunnerStage, runner_journal: Journal, without_reads: pytest.MonkeyPatch
) -> None:
    """A runner that can't read the journal for longer than the lease cancels its handler and records nothing."""
    gate = HandlerGate()
    blind = stage.dependencies(journal=runner_journal)
    async with stage.runner([gated(gate, lease=1, max_attempts=2)], dependencies=blind):
        await stage.request("op-1")
        await gate.entered(1)
        await eventually(lambda: gate.cancelled == [1])
        without_reads.undo()
        gate.open()
        await stage.ended("op-1")
    assert await stage.names("op-1") == ["requested", "started", "started", "succeeded"]


@pytest.mark.usefixtures("without_reads")
async def test_a_handler_that_finishes_with_an_unverified_lease(stage: RunnerStage, runner_journal: Journal) -> None:
    """The result of a handler whose lease is unverified is recorded if no other attempt has started."""

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> int:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return ctx.attempt

    async with stage.runner([handler], concurrency=1, dependencies=stage.dependencies(journal=runner_journal)):
        await stage.request("op-1")
        operation = await stage.ended("op-1")
    assert (operation.result, operation.attempt) == (msgspec.Raw(b"1"), 1)


async def test_a_heartbeat_during_the_completion(
    stage: RunnerStage, runner_journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat that is under way when the outcome is recorded is the operation's last."""
    read = runner_journal.last_message
    asked: list[str] = []

    async def last(operation_id: str) -> StoredMessage | None:
        asked.append(operation_id)
        if operation_id == "op-1":
            await asyncio.Event().wait()
        return await read(operation_id)

    monkeypatch.setattr(runner_journal, "last_message", last)
    dependencies = stage.dependencies(journal=runner_journal)
    first, second = HandlerGate(), HandlerGate()
    async with stage.runner([gated(first, lease=1)], dependencies=dependencies):
        await stage.request("op-1")
        await eventually(lambda: asked)
        first.open()
        await stage.ended("op-1")
    async with stage.runner([gated(second, lease=1)], dependencies=dependencies):
        await stage.request("op-2")
        await eventually(lambda: len(asked) == 3)
        second.open()
        await stage.ended("op-2")
    assert asked.count("op-1") == 1
