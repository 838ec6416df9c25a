"""Draining a runner: no attempt starts, running attempts have some time to end, and the rest are released."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_runner import ActionContext, RetryAfter, action
from opstream_runner.authoring.action import collect_actions
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import AttemptFailed
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, linked
from tests.support.runner import isolated_actions
from tests.support.runner.stage import ACKS, HandlerGate, Input, RunnerStage, gated
from tests.support.system.processes import Watch
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

LONG = 60.0
DONE = ["requested", "started", "succeeded"]


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def other(broker: Broker) -> AsyncIterator[Connection]:
    """The connection of a second runner."""
    async with linked(broker.url) as link:
        yield link


async def test_a_running_attempt_ends_by_itself(stage: RunnerStage) -> None:
    """A draining runner waits for its running attempts, and no longer. It is not ready meanwhile."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)], drain=LONG) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        assert runner.is_ready
        stopping = asyncio.create_task(runner.stop())
        await eventually(lambda: not runner.is_ready)
        assert not stopping.done()
        gate.open()
        async with asyncio.timeout(5):
            await stopping
    assert (await stage.names("op-1"), gate.cancelled) == (DONE, [])


async def test_nothing_runs(stage: RunnerStage) -> None:
    """A runner without attempts ends at once."""
    async with stage.runner([gated(HandlerGate())], drain=LONG) as runner, asyncio.timeout(5):
        await runner.stop()


async def test_no_attempt_starts(stage: RunnerStage, other: Connection) -> None:
    """Another runner at once gets new requests, and those that the draining runner has not started."""
    first, second = HandlerGate(), HandlerGate()
    second.open()
    async with stage.runner([gated(first)], concurrency=2, drain=LONG) as runner:
        await stage.request("op-1")
        await first.entered(1)
        runner.begin_drain()
        await stage.request("op-2", "op-3")
        async with stage.runner([gated(second)], link=other):
            await stage.ended("op-2", within=5)
            await stage.ended("op-3", within=5)
        first.open()
    assert first.attempts == [("op-1", 1)]
    assert sorted(second.attempts) == [("op-2", 1), ("op-3", 1)]


async def test_a_drain_that_takes_too_long(stage: RunnerStage) -> None:
    """Attempts that still run when the drain is over are released, and do not count."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)], drain=0.3) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        began = time.monotonic()
        await runner.stop()
        took = time.monotonic() - began
    assert (gate.cancelled, 0.3 <= took + 0.01 < 2) == ([1], True)
    failed = (await stage.datas("op-1"))[2]
    assert isinstance(failed, AttemptFailed)
    assert (failed.error.code, failed.counted) == (ErrorCode.RUNNER_STOPPED, False)


async def test_a_second_signal_ends_the_drain(stage: RunnerStage) -> None:
    """A second call of `begin_drain` ends the drain."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)], drain=LONG) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        runner.begin_drain()
        stopping = asyncio.create_task(runner.stop())
        await eventually(lambda: not runner.is_ready)
        assert not stopping.done()
        runner.begin_drain()
        async with asyncio.timeout(5):
            await stopping
    assert (await stage.names("op-1"), gate.cancelled) == (["requested", "started", "attempt-failed"], [1])


async def test_the_lease_is_kept(stage: RunnerStage, other: Connection) -> None:
    """An attempt keeps its lease while its runner drains, even if it takes longer than the lease."""
    first, second = HandlerGate(), HandlerGate()
    async with stage.runner([gated(first, lease=1)], drain=LONG) as runner:
        await stage.request("op-1")
        await first.entered(1)
        runner.begin_drain()
        acks = await stage.spy(ACKS)
        async with stage.runner([gated(second, lease=1)], link=other):
            await eventually(lambda: acks.acks(1).count(b"+WPI") >= 6, within=20)  # three in a lease
            first.open()
            operation = await stage.ended("op-1")
    assert (operation.attempt, second.attempts) == (1, [])


async def test_a_cancellation_during_the_drain(stage: RunnerStage) -> None:
    """A cancel request reaches an attempt on a draining runner."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)], drain=LONG) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        runner.begin_drain()
        await stage.request_cancel("op-1")
        runner.notify(KIND, "op-1")
        operation = await stage.ended("op-1")
    assert operation.status is Status.CANCELED


async def test_an_attempt_that_fails_during_the_drain(stage: RunnerStage) -> None:
    """Its next attempt is scheduled as usual, and runs on another runner."""
    gate, second = HandlerGate(), HandlerGate()
    second.open()

    @action(str(KIND), backoff=0.05)
    async def handler(request: Input, ctx: ActionContext) -> None:
        await gate.wait(ctx)
        raise RetryAfter(0.1)

    async with stage.runner([handler], drain=LONG) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        stopping = asyncio.create_task(runner.stop())
        await eventually(lambda: not runner.is_ready)
        gate.open()
        await stopping
    async with stage.runner([gated(second, backoff=0.05)]):
        await stage.ended("op-1")
    assert (gate.attempts, second.attempts) == ([("op-1", 1)], [("op-1", 2)])


async def test_a_service_manager_that_signals_all_processes(
    stage: RunnerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child process that is terminated together with its draining runner has not failed: its operation is
    released."""
    monkeypatch.setattr("opstream_runner.handler.child_process._FOREIGN_SIGTERM_WAIT", 0.2)
    kind = Kind("iso", "plain")
    async with stage.runner(collect_actions([isolated_actions]), drain=LONG) as runner:
        await stage.request("op-1", kind=kind, given=msgspec.json.encode({"how": "clean_up", "file": os.devnull}))
        await stage.reached("op-1", lambda operation: operation.percent_complete)
        (attempt,) = runner._dispatchers[kind]._attempts.values()
        pid = attempt._handler._process.pid  # type: ignore[union-attr]
        watch = Watch([pid])
        runner.begin_drain()
        os.kill(pid, signal.SIGTERM)
        assert await asyncio.to_thread(watch.left_after, 5) == []
    failed = (await stage.datas("op-1"))[-1]
    assert isinstance(failed, AttemptFailed)
    assert (failed.error.code, failed.counted) == (ErrorCode.RUNNER_STOPPED, False)
