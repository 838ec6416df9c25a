"""A runner whose broker fails: no event is lost or recorded twice, and no result is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from nats.js.api import StreamConfig

from opstream_journal import Connection, Journal, JournalUnavailable
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_runner import ActionContext, action
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, Progressed, RecordedEvent
from opstream_schemas.operation.state import Operation, Status
from tests.support.broker.proxy import Proxy
from tests.support.broker.server import Broker
from tests.support.journal.journals import KIND, extend, linked, opened
from tests.support.runner.stage import ACKS, HandlerGate, Input, RunnerStage, gated
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[Proxy]:
    async with Proxy(broker.port) as proxy:
        yield proxy


async def test_a_restart_of_the_broker(broker: Broker, stage: RunnerStage) -> None:
    """Operations that run, finish or wait while the broker is killed and restarted end once, in one attempt."""
    short, long = HandlerGate(), HandlerGate()
    ids = [f"op-{number}" for number in range(8)]

    @action(str(KIND), lease=20)
    async def handler(request: Input, ctx: ActionContext) -> int:
        await (short if ctx.operation_id == "op-0" else long).wait(ctx)
        return ctx.attempt

    async with stage.runner([handler], concurrency=4):
        await stage.request(*ids)
        await short.entered(1)
        await long.entered(3)
        broker.kill()
        short.open()
        broker.start()
        await stage.ended("op-0")
        long.open()
        for one in ids:
            await stage.ended(one)
    for one in ids:
        assert await stage.names(one) == ["requested", "started", "succeeded"]


async def test_an_outage_longer_than_the_lease(broker: Broker, stage: RunnerStage) -> None:
    """A broker that is silent for longer than the lease gets the handler cancelled; later another attempt runs."""
    gate = HandlerGate()
    async with stage.runner([gated(gate, lease=1)]):
        await stage.request("op-1")
        await gate.entered(1)
        loop = asyncio.get_running_loop()
        broker.pause()
        began = loop.time()
        await eventually(lambda: gate.cancelled == [1])
        took = loop.time() - began
        broker.resume()
        gate.open()
        operation = await stage.ended("op-1")
    assert (operation.status, operation.attempt, took < 1.9) == (Status.SUCCEEDED, 2, True)


async def test_an_outcome_whose_acknowledgement_is_lost(proxy: Proxy, stage: RunnerStage) -> None:
    """An outcome whose acknowledgement was lost after it was stored is recorded once."""
    gate = HandlerGate()
    async with linked(proxy.url) as far:
        dependencies = stage.dependencies(journal=await opened(far))
        async with stage.runner([gated(gate)], link=far, dependencies=dependencies):
            await stage.request("op-1")
            await gate.entered(1)
            proxy.mute()
            gate.open()
            await stage.ended("op-1")
            proxy.cut()
            await stage.settled()
    assert await stage.names("op-1") == ["requested", "started", "succeeded"]


async def test_a_start_whose_acknowledgement_is_lost(proxy: Proxy, stage: RunnerStage) -> None:
    """A start whose acknowledgement was lost after it was stored is found, and is the one attempt that runs."""
    gate = HandlerGate()
    gate.open()
    async with linked(proxy.url) as far:
        dependencies = stage.dependencies(journal=await opened(far))
        append = dependencies.journal.append

        async def lossy(*args: object, **kwargs: object) -> RecordedEvent:
            proxy.mute()
            asyncio.get_running_loop().call_later(0.3, proxy.cut)
            dependencies.journal.append = append  # type: ignore[method-assign]
            return await append(*args, **kwargs)  # type: ignore[arg-type]

        dependencies.journal.append = lossy  # type: ignore[method-assign]
        async with stage.runner([gated(gate)], link=far, dependencies=dependencies):
            await stage.request("op-1")
            await stage.ended("op-1")
    assert await stage.names("op-1") == ["requested", "started", "succeeded"]


async def test_an_outcome_survives_reads_that_fail(stage: RunnerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result survives a broker that refuses the outcome and is then unreachable for the read."""
    gate = HandlerGate()
    read = stage.journal.events
    failures = 0

    async def events(operation_id: str, *, since: Operation | None = None) -> list[RecordedEvent]:
        nonlocal failures
        if since is not None and failures < 3:
            failures += 1
            raise JournalUnavailable("no response", maybe_stored=False)
        return await read(operation_id, since=since)

    monkeypatch.setattr(stage.journal, "events", events)
    async with stage.runner([gated(gate)]):
        await stage.request("op-1")
        await gate.entered(1)
        await extend(stage.journal, await stage.state("op-1"), Progressed(percent=1))
        gate.open()
        await stage.ended("op-1")
    assert (failures, await stage.names("op-1")) == (3, ["requested", "started", "progressed", "succeeded"])


async def test_an_outcome_for_nothing(
    stage: RunnerStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An outcome that can never be stored, because its operation's events are gone, is given up, and frees its slot."""
    gate = HandlerGate()

    async def events(operation_id: str, *, since: Operation | None = None) -> list[RecordedEvent]:
        return []

    async with stage.runner([gated(gate)]) as runner:
        await stage.request("op-1")
        await gate.entered(1)
        await extend(stage.journal, await stage.state("op-1"), Progressed(percent=1))
        monkeypatch.setattr(stage.journal, "events", events)
        gate.open()
        (dispatcher,) = runner._dispatchers.values()
        await eventually(lambda: not dispatcher._tasks)
        monkeypatch.undo()
    (line,) = [one.getMessage() for one in caplog.records if "its outcome can't be recorded" in one.getMessage()]
    assert line.startswith("operation op-1: ")
    assert "not in the journal any more" in line
    assert "; next step: 'opstream audit' shows its events; 'opstream verify' says whether" in line
    assert await stage.names("op-1") == ["requested", "started", "progressed"]


async def test_a_conflict_without_a_newer_event_is_requeued(
    stage: RunnerStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a conflict without a newer event, as a replaced leader may report, the message is delivered again a second
    later."""
    gate = HandlerGate()
    gate.open()
    spy = await stage.spy(ACKS)
    (requested,) = await stage.request("op-1")
    read = stage.journal.events

    async def events(operation_id: str, *, since: Operation | None = None) -> list[RecordedEvent]:
        return [] if since is not None else await read(operation_id)

    await stage.reached("op-1", lambda operation: operation.position == 1)
    await extend(stage.journal, await stage.state("op-1"), Canceled())
    monkeypatch.setattr(stage.journal, "events", events)
    async with stage.runner([gated(gate)]):
        await stage.settled()
    assert ([data for _, data in spy.seen], gate.attempts) == ([b'-NAK {"delay": 1000000000}', b"+ACK"], [])
    assert requested.sequence == 1


async def test_an_outcome_waits_for_room(
    stage: RunnerStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the journal is full a result waits, under its lease. The handler does not run again."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("opstream_runner.attempt.completion._JOURNAL_FULL_DELAY", 0.1)
    js = stage.link.nc.jetstream()
    gate = HandlerGate()
    async with stage.runner([gated(gate, lease=1)]):
        await stage.request("op-1")
        await gate.entered(1)
        config: StreamConfig = (await js.stream_info(subjects.OPERATIONS_STREAM)).config
        await js.update_stream(config.evolve(max_bytes=1))
        gate.open()
        await eventually(lambda: "operation op-1: its outcome waits for room" in caplog.text)
        await provision(stage.link, Sizing(), is_update=True)
        operation = await stage.ended("op-1")
    assert (operation.status, operation.attempt) == (Status.SUCCEEDED, 1)


async def test_trouble_of_one_message(
    stage: RunnerStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error is logged with the operation. Its message is delivered again after a lease; others go on."""
    gate = HandlerGate()
    gate.open()
    append = stage.journal.append
    failed = False

    async def broken(kind: object, event: object, *args: object, **kwargs: object) -> RecordedEvent:
        nonlocal failed
        if not failed and "op-1" in str(event) and "Started" in str(event):
            failed = True
            raise LookupError("a bug")
        return await append(kind, event, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.journal, "append", broken)
    async with stage.runner([gated(gate, lease=1)], concurrency=1):
        await stage.request("op-1")
        await stage.request("op-2")
        await stage.ended("op-2")
        await stage.ended("op-1")
    assert gate.attempts == [("op-2", 1), ("op-1", 1)]
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert ("op-1" in record.getMessage(), record.exc_info is not None) == (True, True)
