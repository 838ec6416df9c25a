"""Real runner processes, killed, stopped, frozen and ended by their actions: every operation ends once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from opstream_journal import ExpectedVersion
from opstream_schemas import subjects
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import CancelRequested, Failed, OperationError, Started
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status
from tests.support.broker.server import Broker, free_port
from tests.support.journal.journals import following
from tests.support.runner.stage import RunnerStage
from tests.support.system.processes import Process

pytestmark = pytest.mark.e2e

Start = Callable[..., Process]


@pytest.fixture
def start(broker: Broker, stage: RunnerStage) -> Iterator[Start]:
    """Starts runners of `tests.support.runner.stubborn_actions`."""
    with ExitStack() as stack:

        def start(*options: str) -> Process:
            command = ("runner", "--nats", broker.url, "--actions", "tests.support.runner.stubborn_actions", *options)
            return stack.enter_context(Process(*command))

        yield start


def work(name: str) -> Kind:
    """One of the actions."""
    return Kind("work", name)


async def test_a_killed_runner(stage: RunnerStage, start: Start) -> None:
    """A runner that is killed while an action runs costs a lease and an attempt; another one finishes."""
    await stage.request("op-1", kind=work("wait"))
    first = start()
    first.wait_for("op-1 begins attempt 1")
    first.send(signal.SIGKILL)
    second = start()
    operation = await stage.ended("op-1", within=20)
    second.wait_for("op-1 begins attempt 2")
    assert (operation.status, operation.attempts_used) == (Status.SUCCEEDED, 2)
    assert await stage.names("op-1") == ["requested", "started", "started", "succeeded"]


async def test_a_stopped_runner(stage: RunnerStage, start: Start) -> None:
    """After its drain, a runner that got SIGTERM releases its attempts, of every kind of handler, and ends with status
    0 within 6 s."""
    names = ["wait", "block", "delegate", "ignore"]
    for name in names:
        await stage.request(f"op-{name}", kind=work(name))
    first = start("--drain", "0.5")
    for name in names:
        first.wait_for(f"op-{name} begins attempt 1")
    began = time.monotonic()
    first.send(signal.SIGTERM)
    assert first.wait(10) == 0
    assert 0.5 < time.monotonic() - began < 6.5
    assert "Traceback" not in first.output
    second = start()
    for name in names:
        operation = await stage.ended(f"op-{name}", within=20)
        assert (operation.status, operation.attempt, operation.attempts_used) == (Status.SUCCEEDED, 2, 1)
        begun = [data for data in await stage.datas(f"op-{name}") if isinstance(data, Started)]
        assert (len({data.runner for data in begun}), len({data.token for data in begun})) == (2, 2)
    second.send(signal.SIGINT)
    assert second.wait(10) == 0


async def test_a_runner_that_drains(stage: RunnerStage, start: Start) -> None:
    """While it drains a runner is alive and not ready; a second signal ends the drain."""
    port = free_port()
    runner = start("--drain", "60", "--health-port", str(port))
    await stage.request("op-1", kind=work("wait-long"))
    runner.wait_for("op-1 begins attempt 1")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        assert (await http.get("/readyz")).status_code == 200
        runner.send(signal.SIGTERM)
        runner.wait_for("received SIGTERM: no more attempts start")
        codes = [(await http.get(path)).status_code for path in ("/readyz", "/healthz")]
    assert codes == [503, 200]
    runner.send(signal.SIGINT)
    assert runner.wait(6) == 0
    assert (await stage.names("op-1"))[-1] == "attempt-failed"
    assert "Traceback" not in runner.output


async def test_an_operation_that_another_process_fails(stage: RunnerStage, start: Start) -> None:
    """A runner is notified long before its next heartbeat, stops the handler and records nothing."""
    await stage.request("op-1", kind=work("wait-long"))
    runner = start()
    runner.wait_for("op-1 begins attempt 1")
    await stage.append("op-1", Failed(error=OperationError(code=ErrorCode.DEADLINE_EXCEEDED, message="late")))
    runner.wait_for(
        "operation op-1: attempt 1 records no outcome: a later attempt or a terminal event was recorded", 10
    )
    assert await stage.names("op-1") == ["requested", "started", "failed"]


async def test_a_frozen_runner(stage: RunnerStage, start: Start) -> None:
    """A runner that is frozen for longer than the lease has lost it: the result of its handler is not recorded."""
    await stage.request("op-1", kind=work("nap"))
    first = start()
    first.wait_for("op-1 begins attempt 1")
    first.send(signal.SIGSTOP)
    second = start()
    second.wait_for("op-1 begins attempt 2")
    operation = await stage.ended("op-1")
    first.send(signal.SIGCONT)
    first.wait_for("operation op-1: (the outcome came too late|attempt 1 records no outcome)")
    assert (operation.status, operation.attempt) == (Status.SUCCEEDED, 2)
    assert await stage.names("op-1") == ["requested", "started", "started", "succeeded"]
    first.send(signal.SIGTERM)
    second.send(signal.SIGTERM)
    assert (first.wait(10), second.wait(10)) == (0, 0)


async def test_an_action_that_takes_its_runner_down(stage: RunnerStage, start: Start) -> None:
    """An action that ends its process each time ends as RunnerLost once its attempts are used up."""
    await stage.request("op-1", kind=work("die"), given=b'{"bad":9}')
    for attempt in (1, 2):
        runner = start()
        runner.wait_for(f"op-1 begins attempt {attempt}")
        assert runner.wait(10) == 3
    start()
    operation = await stage.ended("op-1", within=20)
    assert operation.error is not None
    assert (operation.error.code, operation.attempts_used) == (ErrorCode.RUNNER_LOST, 2)


async def test_a_cancellation_comes_at_once(stage: RunnerStage, start: Start) -> None:
    """A runner is notified of a cancel request long before its next heartbeat, and ignores invalid notifications."""
    kind = work("wait-long")
    await stage.request("op-1", kind=kind)
    runner = start()
    runner.wait_for("op-1 begins attempt 1")
    await stage.link.nc.publish("operations.no.work.wait-long.cancel-requested", b"\xff{")
    await stage.link.nc.publish(f"operations.{'x' * 100}.work.wait-long.cancel-requested", b"")
    running = await stage.reached("op-1", lambda operation: operation.live)
    event = following(running, CancelRequested(by="ann", reason="late"))
    await stage.journal.append(kind, event, ExpectedVersion(running.stream_sequence), budget=5)
    operation = await stage.ended("op-1")
    assert (operation.status, operation.reason) == (Status.CANCELED, "late")
    assert "Traceback" not in runner.output


async def test_a_stop_while_the_broker_is_away(broker: Broker, stage: RunnerStage, start: Start) -> None:
    """SIGTERM ends a runner with status 0 also while the broker is down or does not respond."""
    for trouble in (broker.kill, broker.pause):
        runner = start()
        runner.wait_for("running work:block, ")
        trouble()
        runner.send(signal.SIGTERM)
        assert runner.wait(10) == 0, runner.output
        assert "Traceback" not in runner.output
        if not broker.is_running:
            broker.start()


async def test_a_deleted_consumer(stage: RunnerStage, start: Start) -> None:
    """A runner whose consumer is deleted names it and ends with status 1, whatever its actions leave behind."""
    runner = start()
    for name in ("nap", "delegate"):
        await stage.request(f"op-{name}", kind=work(name))
        runner.wait_for(f"op-{name} begins attempt 1")
    consumer = subjects.runner_consumer(work("nap"))
    await stage.link.nc.jetstream().delete_consumer(subjects.OPERATIONS_STREAM, consumer)
    assert runner.wait(10) == 1
    assert f"consumer {consumer} of stream OPERATIONS was deleted" in runner.output
    assert "Traceback" not in runner.output


async def test_a_connection_that_is_closed_for_good(broker: Broker, stage: RunnerStage) -> None:
    """A protocol error, after which the client never connects again, ends the process with status 1."""
    clients: list[asyncio.StreamWriter] = []

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
        target.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        upstream, downstream = await asyncio.open_connection("127.0.0.1", broker.port)
        await asyncio.gather(pump(reader, downstream), pump(upstream, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        address = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with Process("runner", "--nats", address, "--actions", "tests.support.runner.stubborn_actions") as runner:
            await asyncio.to_thread(runner.wait_for, "running work:block, ")
            clients[0].write(b"-ERR 'Unknown Protocol Operation'\r\n")
            assert await asyncio.to_thread(runner.wait, 10) == 1
            assert "the broker connection was closed for good; ending the process" in runner.output
