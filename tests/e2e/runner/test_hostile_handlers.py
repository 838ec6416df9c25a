"""Handlers that would harm their process: neither the runner nor another operation notices."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from opstream_runner.handler.invocation import UNEXPECTED_ERROR
from opstream_schemas.events import CancelRequested
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation, Status
from tests.support.broker.server import Broker, free_port
from tests.support.runner.hostile_actions import LEASE
from tests.support.runner.stage import RunnerStage
from tests.support.system.processes import Process
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

Start = Callable[..., Process]


@pytest.fixture
def start(broker: Broker, stage: RunnerStage) -> Iterator[Start]:
    """Starts runners of `tests.support.runner.hostile_actions`."""
    with ExitStack() as stack:

        def start(*options: str) -> Process:
            command = ("runner", "--nats", broker.url, "--actions", "tests.support.runner.hostile_actions", *options)
            process = stack.enter_context(Process(*command))
            process.wait_for("running hostile:")
            return process

        yield start


class Bystander:
    """An operation that runs in the same process, and ends when the test says so."""

    def __init__(self, stage: RunnerStage, folder: Path, name: str = "wait") -> None:
        self._stage = stage
        self._file = folder / "go"
        self._kind = Kind("hostile", name)
        self.id = f"op-{name}"

    async def begin(self, runner: Process) -> None:
        """Begin it in this runner."""
        given = msgspec.json.encode({"file": str(self._file)})
        await self._stage.request(self.id, kind=self._kind, given=given)
        runner.wait_for(f"{self.id} begins attempt 1")

    async def check_undisturbed(self) -> None:
        """Let it end; it has had one attempt."""
        self._file.touch()
        operation = await self._stage.ended(self.id)
        assert (operation.status, operation.attempt) == (Status.SUCCEEDED, 1)
        assert await self._stage.names(self.id) == ["requested", "started", "succeeded"]


async def end(stage: RunnerStage, kind: str, how: str, **given: Any) -> Operation:
    """Run a hostile action to its end."""
    deed = msgspec.json.encode({"how": how, **given})
    await stage.request("op-1", kind=Kind("hostile", kind), given=deed)
    return await stage.ended("op-1", within=20)


def end_by_request(runner: Process) -> None:
    """Stop the runner: it runs until it is asked to, and says that it was."""
    assert runner.is_running
    assert "received" not in runner.output
    runner.send(signal.SIGTERM)
    assert runner.wait(10) == 0
    assert "received SIGTERM" in runner.output


@pytest.mark.parametrize("kind", ["async", "own-async"])
@pytest.mark.parametrize("how", ["gather", "group"])
async def test_an_exit_in_a_task(stage: RunnerStage, start: Start, tmp_path: Path, kind: str, how: str) -> None:
    """An exit or interrupt in a task of a handler is a failed attempt of this handler."""
    runner, bystander = start(), Bystander(stage, tmp_path)
    await bystander.begin(runner)
    operation = await end(stage, kind, how)
    assert operation.error is not None
    assert (operation.error.code, operation.error.message) == (500, UNEXPECTED_ERROR.message)
    assert await stage.names("op-1") == ["requested", "started", "failed"]
    runner.wait_for("SystemExit: 3" if how == "gather" else "KeyboardInterrupt")
    await bystander.check_undisturbed()
    end_by_request(runner)


@pytest.mark.parametrize("kind", ["async", "own-async"])
@pytest.mark.parametrize(
    ("how", "result", "said"),
    [
        ("catch", "caught 3", "a task or callback that a handler started raised SystemExit"),
        ("callback", "returned", "a task or callback that a handler started raised SystemExit"),
        ("stop", "returned", ""),
    ],
)
async def test_an_exit_that_concerns_no_handler(
    stage: RunnerStage, start: Start, tmp_path: Path, kind: str, how: str, result: str, said: str
) -> None:
    """An exit that the handler catches, an exit in a callback, or a stop of the loop ends nothing."""
    runner, bystander = start(), Bystander(stage, tmp_path)
    await bystander.begin(runner)
    operation = await end(stage, kind, how)
    assert (operation.status, operation.result) == (Status.SUCCEEDED, msgspec.Raw(msgspec.json.encode(result)))
    runner.wait_for(said)
    await bystander.check_undisturbed()
    end_by_request(runner)


async def test_a_handler_that_cancels_all_tasks(stage: RunnerStage, start: Start) -> None:
    """The tasks of the runner are not among those that a handler can find."""
    runner = start()
    assert (await end(stage, "async", "cancel_all")).result == msgspec.Raw(b'"returned"')
    end_by_request(runner)


async def test_a_handler_that_blocks_the_loop(stage: RunnerStage, start: Start, tmp_path: Path) -> None:
    """A handler that blocks longer than the lease costs no operation its lease; a warning names the line, and the
    runner is not ready. What does not need the loop goes on."""
    port = free_port()
    runner = start("--health-port", str(port))
    bystander, plain = Bystander(stage, tmp_path), Bystander(stage, tmp_path / "never", "wait-plain")
    await bystander.begin(runner)
    await plain.begin(runner)
    enough = tmp_path / "enough"
    deed = msgspec.json.encode({"how": "block", "file": str(enough)})
    await stage.request("op-1", kind=Kind("hostile", "async"), given=deed)
    runner.wait_for("op-1 begins attempt 1")
    other = start()
    runner.wait_for(
        r"operation op-1 \(hostile:async\) blocks the async handlers of this runner for 0.[0-9] s, "
        r"at .*hostile_actions.py:\d+ in block; waiting: operation op-wait \(hostile:wait\)"
    )
    await stage.append(plain.id, CancelRequested(by="ann", reason="late"))
    assert (await stage.ended(plain.id)).status is Status.CANCELED
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

        async def is_unready() -> bool:
            return (await http.get("/readyz")).status_code == 503

        await eventually(is_unready)
        runner.wait_for("for 2.0 s")  # two leases
        enough.touch()
        assert (await stage.ended("op-1")).status is Status.SUCCEEDED
        runner.wait_for("the async handlers run again after")
        assert (await http.get("/readyz")).status_code == 200
    assert LEASE < 2
    assert await stage.names("op-1") == ["requested", "started", "succeeded"]
    await bystander.check_undisturbed()
    assert "begins" not in other.output
    end_by_request(runner)


async def test_another_runner_takes_what_would_wait(stage: RunnerStage, start: Start, tmp_path: Path) -> None:
    """A request that comes while a handler blocks the loop runs in another runner."""
    runner = start("--drain", "0.5")
    deed = msgspec.json.encode({"how": "block", "file": str(tmp_path / "never")})
    await stage.request("op-1", kind=Kind("hostile", "async"), given=deed)
    runner.wait_for(r"blocks the async handlers of this runner for 2\.")
    other, late = start(), Bystander(stage, tmp_path)
    await late.begin(other)
    await late.check_undisturbed()
    runner.send(signal.SIGTERM)
    assert runner.wait(10) == 0


async def test_a_pause_of_the_whole_process(stage: RunnerStage, start: Start, tmp_path: Path) -> None:
    """A runner that was frozen for longer than the lease, and gets its own message again, does not run it twice."""
    runner, bystander = start(), Bystander(stage, tmp_path)
    await bystander.begin(runner)
    runner.send(signal.SIGSTOP)
    info = await stage.link.nc.jetstream().consumer_info("OPERATIONS", "runner_hostile_wait")
    asked = info.num_waiting

    async def is_overdue() -> bool:  # the broker has sent it again
        info = await stage.link.nc.jetstream().consumer_info("OPERATIONS", "runner_hostile_wait")
        return bool(info.num_redelivered)

    await eventually(is_overdue, within=10)
    assert asked
    runner.send(signal.SIGCONT)
    runner.wait_for("operation op-wait: message .* came again; it still runs here")
    await bystander.check_undisturbed()
    end_by_request(runner)


@pytest.mark.parametrize(
    ("kind", "how", "result"),
    [
        ("plain", "pool", 45),
        ("async", "pool_in_loop", 45),
        ("own-plain", "pool", 45),
        ("own-async", "pool_in_loop", 45),
        ("plain", "terminate", "ended with -15"),
        ("own-plain", "terminate", "ended with -15"),
        ("plain", "come_back", "the parent"),
        ("own-plain", "come_back", "the parent"),
        ("async", "come_back_later", "the child ended with 70"),
        ("own-async", "come_back_later", "the child ended with 70"),
    ],
)
async def test_a_handler_that_forks(
    stage: RunnerStage, start: Start, tmp_path: Path, kind: str, how: str, result: object
) -> None:
    """A signal for a forked process reaches that process only, and a forked process does nothing in the runner's
    name."""
    runner, bystander = start(), Bystander(stage, tmp_path)
    await bystander.begin(runner)
    operation = await end(stage, kind, how, file=str(tmp_path / "mark"))
    assert (operation.status, operation.result) == (Status.SUCCEEDED, msgspec.Raw(msgspec.json.encode(result)))
    assert not (tmp_path / "mark").exists()
    await bystander.check_undisturbed()
    end_by_request(runner)


async def test_a_forked_process_that_outlives_its_runner(stage: RunnerStage, start: Start, tmp_path: Path) -> None:
    """It holds neither the port nor the broker connection of a runner that was killed."""
    port = free_port()
    runner = start("--health-port", str(port))
    assert (await end(stage, "plain", "leave_behind", file=str(tmp_path / "mark"))).status is Status.SUCCEEDED
    left = int((tmp_path / "mark").read_text())
    try:
        runner.send(signal.SIGKILL)
        runner.wait(10)
        os.kill(left, 0)
        start("--health-port", str(port))

        async def is_one_runner() -> bool:
            info = await stage.link.nc.jetstream().consumer_info("OPERATIONS", "runner_hostile_plain")
            return info.num_waiting == 1

        await eventually(is_one_runner, within=10)
    finally:
        os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("how", ["log_factory", "log_handler", "log_filter", "close_stderr"])
async def test_logging_that_raises(stage: RunnerStage, start: Start, tmp_path: Path, how: str) -> None:
    """A handler that breaks `logging` breaks neither the end of its attempt, nor other attempts, nor the shutdown."""
    runner, bystander = start(), Bystander(stage, tmp_path)
    await bystander.begin(runner)
    assert (await end(stage, "plain", how)).status is Status.SUCCEEDED
    await stage.request("op-2", kind=Kind("hostile", "plain"), given=b'{"how": "no such deed"}')
    failed = await stage.ended("op-2")
    assert failed.error is not None
    assert failed.error.code == 500
    runner.wait_for("KeyError: 'no such deed'")
    runner.wait_for(r"WARNING opstream_runner.attempt.completion: operation op-2 ")
    await bystander.check_undisturbed()
    end_by_request(runner)


@pytest.mark.parametrize("how", ["old_factory", "bad_factory"])
async def test_a_task_factory(stage: RunnerStage, start: Start, tmp_path: Path, how: str) -> None:
    """A task factory that a handler sets has no part in the calls of later handlers."""
    runner, bystander = start(), Bystander(stage, tmp_path)
    await bystander.begin(runner)
    assert (await end(stage, "async", how)).status is Status.SUCCEEDED
    await stage.request("op-2", kind=Kind("hostile", "async"), given=b'{"how": "cancel_all"}')
    assert (await stage.ended("op-2")).status is Status.SUCCEEDED
    end_by_request(runner)


async def test_a_trace_function_that_raises(stage: RunnerStage, start: Start) -> None:
    """A thread that ends before its first line is the end of an attempt, for plain and for async handlers."""
    runner = start()
    assert (await end(stage, "plain", "trace")).status is Status.SUCCEEDED
    for name in ("plain", "async"):
        await stage.request(f"op-{name}", kind=Kind("hostile", name), given=b'{"how": "cancel_all"}')
        error = (await stage.ended(f"op-{name}")).error
        assert error is not None
        assert error.code == 500
    runner.wait_for("its thread ended early: does threading.settrace")
    runner.wait_for("the thread of the async handlers has ended; their attempts have failed")
