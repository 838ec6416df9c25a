"""Cancel against success, and against an unreachable broker: exactly one outcome is recorded, the true one."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from opstream_journal import Connection, ExpectedVersion, Journal, VersionConflict
from opstream_journal.jetstream.rpc import StoredMessage
from opstream_runner import ActionContext, action
from opstream_runner.handler.supervision import StopReason
from opstream_schemas.errors import OperationFinished
from opstream_schemas.operation.commands import RequestCancel, decide
from opstream_schemas.operation.state import Status
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, following, opened
from tests.support.projector import projection
from tests.support.runner.shared_event import SharedEvent
from tests.support.runner.stage import CANCEL_REQUEST, HandlerGate, Input, RunnerStage, gated
from tests.support.system.invariants import Promise, breaches, gather
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

COUNT = 100
SPREAD = 0.4
"""Seconds."""
FOREVER = 600.0


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


async def test_success_comes_first(stage: RunnerStage) -> None:
    """A cancel request decided before the end and sent after it is refused; decided again, the operation is
    finished."""
    gate = HandlerGate()
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await gate.entered(1)
        before = await stage.state("op-1")
        gate.open()
        ended = await stage.ended("op-1")
        with pytest.raises(VersionConflict):
            await stage.journal.append(
                KIND, following(before, CANCEL_REQUEST), ExpectedVersion(before.stream_sequence), budget=5
            )
        with pytest.raises(OperationFinished):
            decide(ended, RequestCancel())
        await stage.settled()
    assert await stage.names("op-1") == ["requested", "started", "succeeded"]


async def test_the_cancel_request_comes_first(
    stage: RunnerStage, link: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that returns while it is being cancelled has succeeded."""
    gate, opened_gate = HandlerGate(), asyncio.Event()
    runner_journal = await opened(link)
    read = runner_journal.last_message

    async def last(operation_id: str) -> StoredMessage | None:
        await opened_gate.wait()  # the runner hears of the request at once, and must not be quicker than this test
        return await read(operation_id)

    monkeypatch.setattr(runner_journal, "last_message", last)
    async with stage.runner([gated(gate, lease=60)], dependencies=stage.dependencies(journal=runner_journal)) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        await stage.request_cancel("op-1")
        gate.open()
        await eventually(lambda: not gate.inside)
        opened_gate.set()
        runner.notify(KIND, "op-1")
        operation = await stage.ended("op-1")
        await stage.settled()
    assert (operation.status, gate.cancelled) == (Status.SUCCEEDED, [])
    assert await stage.names("op-1") == ["requested", "started", "cancel-requested", "succeeded"]


@pytest.mark.parametrize("is_long", [False, True])
async def test_an_end_while_the_broker_is_away(broker: Broker, stage: RunnerStage, is_long: bool) -> None:
    """A handler that stops while the broker is unreachable is Canceled once the broker is back, however long that
    took."""
    running, cleaning, cleaned = SharedEvent(), SharedEvent(), SharedEvent()

    @action(str(KIND), lease=1)
    async def handler(request: Input, ctx: ActionContext) -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()

    async with stage.runner([handler]) as runner:
        await stage.request("op-1")
        await running.wait()
        (dispatcher,) = runner._dispatchers.values()
        attempt = dispatcher._attempts["op-1"]
        await stage.request_cancel("op-1")
        runner.notify(KIND, "op-1")
        await cleaning.wait()
        broker.pause()
        if is_long:
            # The attempt could not verify its lease for too long, so it records nothing; the next delivery does.
            await eventually(lambda: attempt._stop_signal.reason is StopReason.LEASE_UNVERIFIED)
        cleaned.set()
        await eventually(lambda: attempt._is_completing)
        broker.resume()
        operation = await stage.ended("op-1")
        await stage.settled()
    assert (operation.status, operation.attempt) == (Status.CANCELED, 1)
    assert await stage.names("op-1") == ["requested", "started", "cancel-requested", "canceled"]


async def cancel(stage: RunnerStage, operation_id: str) -> bool:
    """Cancel as a client does. Return True if the request was recorded before the end."""
    while True:
        operation = await stage.state(operation_id)
        try:
            data = decide(operation, RequestCancel(by="ann"))
            if data is not None:
                expected = ExpectedVersion(operation.stream_sequence)
                await stage.journal.append(KIND, following(operation, data), expected, budget=20)
        except OperationFinished:
            return False
        except VersionConflict:
            continue
        return True


async def test_a_hundred_races(broker: Broker, stage: RunnerStage, link: Connection, journal: Journal) -> None:
    """Operations canceled at about the moment when they return: each ends once, as its handler did, and every reader
    sees the same."""
    ids = [f"op-{n}" for n in range(COUNT)]
    go = {one: SharedEvent() for one in ids}
    returned: set[str] = set()
    stopped: set[str] = set()

    @action(str(KIND), lease=5)
    async def handler(request: Input, ctx: ActionContext) -> str:
        try:
            await go[ctx.operation_id].wait()
        except asyncio.CancelledError:
            stopped.add(ctx.operation_id)
            raise
        returned.add(ctx.operation_id)
        return "done"

    async def race(number: int, operation_id: str) -> bool:
        # From a cancel long before the end to one long after it; in between the outcome is open.
        # The first never returns by itself, and the last has certainly ended.
        lead = (number - COUNT / 2) / COUNT * SPREAD if number else -FOREVER
        asyncio.get_running_loop().call_later(max(0.0, -lead), go[operation_id].set)
        await asyncio.sleep(max(0.0, lead) + random.uniform(0.0, SPREAD / 20))
        if number == COUNT - 1:
            await stage.ended(operation_id)
        is_requested = await cancel(stage, operation_id)
        runner.notify(KIND, operation_id)
        return is_requested

    async with (
        projection.running(projection.projector(link, journal)),
        stage.runner([handler], concurrency=COUNT, dependencies=stage.dependencies(source="test/runner-1")) as runner,
    ):
        await stage.request(*ids)
        await asyncio.gather(*(stage.reached(one, lambda operation: operation.live, 20) for one in ids))
        requests = await asyncio.gather(*(race(number, one) for number, one in enumerate(ids)))
        ended = await asyncio.gather(*(stage.ended(one, 20) for one in ids))
        evidence = await gather(broker.url)
    evidence.promised = {one: Promise(str(KIND), {}, "42") for one in ids}
    assert breaches(evidence) == []
    for operation, is_requested in zip(ended, requests, strict=True):
        expected = Status.CANCELED if operation.id in stopped else Status.SUCCEEDED
        assert (operation.status, evidence.fold(operation.id)) == (expected, operation)
        assert is_requested or operation.status is Status.SUCCEEDED
    assert (returned | stopped, returned & stopped) == (set(ids), set())
    assert min(len(returned), len(stopped)) > 0
    assert all(msgspec.json.decode(evidence.view[one])["status"] in {"Succeeded", "Canceled"} for one in ids)
