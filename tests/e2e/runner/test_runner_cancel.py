"""Isolated actions under real runner processes: canceled, stopped, and never outliving a runner that is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status
from tests.support.runner.stage import RunnerStage
from tests.support.system.processes import Process, Watch
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

PLAIN = Kind("iso", "plain")
ASYNC = Kind("iso", "async")
CHILD = "opstream_runner.handler.child_main"

Start = Callable[[], Process]


@pytest.fixture
def start(stage: RunnerStage) -> Iterator[Start]:
    """Starts runners of the isolated actions."""
    with ExitStack() as stack:

        def start(*options: str) -> Process:
            (server,) = stage.link.nc.servers
            command = ("runner", "--nats", server.geturl(), "--actions", "tests.support.runner.isolated_actions")
            return stack.enter_context(Process(*command, *options))

        yield start


async def begin(stage: RunnerStage, kind: Kind, how: str, marks: Path) -> None:
    """Request op-1."""
    await stage.request("op-1", kind=kind, given=msgspec.json.encode({"how": how, "file": str(marks)}))


async def at_it(stage: RunnerStage) -> None:
    """Wait until its handler is called and has said so."""
    await stage.reached("op-1", lambda operation: operation.percent_complete, within=20)


def handler_process(runner: Process) -> int:
    """The process of the handler; its parent, the warden, has the same command line."""
    warden, handler = (pid for pid, line in runner.descendants().items() if CHILD in line)
    assert int(Path(f"/proc/{handler}/stat").read_text().rpartition(")")[2].split()[1]) == warden
    return handler


async def test_a_killed_runner(stage: RunnerStage, start: Start, tmp_path: Path) -> None:
    """The process of an isolated action and the processes that it started die with the runner; another runner
    finishes."""
    marks = tmp_path / "marks"
    await begin(stage, PLAIN, "stay_once", marks)
    first = start()
    await at_it(stage)
    pids = [int(pid) for pid in marks.read_text().split()]
    assert pids[0] == handler_process(first)
    watch = Watch(pids)
    first.send(signal.SIGKILL)
    assert watch.left_after(2) == []
    second = start()
    operation = await stage.ended("op-1", within=20)
    assert (operation.status, operation.result) == (Status.SUCCEEDED, msgspec.Raw(b"2"))
    assert await stage.names("op-1") == ["requested", "started", "progressed", "started", "succeeded"]
    second.send(signal.SIGTERM)
    assert second.wait(10) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
@pytest.mark.parametrize("victim", ["runner", "warden"])
async def test_a_killed_runner_of_a_handler_with_daemons(
    stage: RunnerStage, start: Start, tmp_path: Path, victim: str
) -> None:
    """What the handler started in other sessions dies with the runner; if the warden is killed, the handler dies."""
    marks = tmp_path / "marks"
    await begin(stage, PLAIN, "escape_and_stay", marks)
    runner = start()
    await at_it(stage)
    daemons = [int(pid) for pid in marks.read_text().split()]
    handler = handler_process(runner)
    warden, _ = (pid for pid, line in runner.descendants().items() if CHILD in line)
    watch = Watch([handler, *(daemons if victim == "runner" else [])])
    os.kill(runner.pid if victim == "runner" else warden, signal.SIGKILL)
    assert watch.left_after(5) == []
    for pid in daemons:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the owner of a pipe")
async def test_a_killed_runner_of_a_busy_process(stage: RunnerStage, start: Start, tmp_path: Path) -> None:
    """A process whose handler holds the interpreter's lock dies with the runner, too."""
    marks = tmp_path / "marks"
    await begin(stage, PLAIN, "hold_the_lock_once", marks)
    runner = start()
    await eventually(lambda: marks.exists() and marks.read_text().endswith("\n"), within=20)
    watch = Watch([int(marks.read_text())])
    runner.send(signal.SIGKILL)
    assert watch.left_after(2) == []


@pytest.mark.parametrize(
    ("kind", "how", "mark"),
    [
        (PLAIN, "clean_up", "cleaned up, cancel requested: True\n"),
        (ASYNC, "wait", "cleaned up, cancel requested: True\n"),
        (PLAIN, "clean_up_for_ever", "cleaning up\n"),
    ],
    ids=str,
)
async def test_a_cancellation(
    stage: RunnerStage, start: Start, tmp_path: Path, kind: Kind, how: str, mark: str
) -> None:
    """A runner process interrupts the process of a canceled action, and kills it when its grace is over."""
    marks = tmp_path / "marks"
    await begin(stage, kind, how, marks)
    runner = start()
    await at_it(stage)
    watch = Watch([handler_process(runner)])
    await stage.request_cancel("op-1")
    operation = await stage.ended("op-1")
    assert (operation.status, operation.reason) == (Status.CANCELED, "late")
    assert watch.left_after(0.5) == []
    assert marks.read_text() == mark
    runner.send(signal.SIGTERM)
    assert runner.wait(10) == 0
    assert "Traceback" not in runner.output


async def test_a_stopped_runner(stage: RunnerStage, start: Start, tmp_path: Path) -> None:
    """SIGTERM to a runner ends its processes after their clean-up; the next runner continues."""
    marks = tmp_path / "marks"
    await begin(stage, PLAIN, "stay_once", marks)
    first = start("--drain", "0")
    await at_it(stage)
    watch = Watch([int(pid) for pid in marks.read_text().split()])
    began = time.monotonic()
    first.send(signal.SIGTERM)
    assert first.wait(10) == 0
    assert time.monotonic() - began < 3
    assert watch.left_after(0.5) == []
    assert "Traceback" not in first.output
    start()
    operation = await stage.ended("op-1", within=20)
    assert (operation.attempt, operation.attempts_used, operation.result) == (2, 1, msgspec.Raw(b"2"))


async def test_a_crash(stage: RunnerStage, start: Start, tmp_path: Path) -> None:
    """A process that crashes fails its attempt and leaves the runner alone; the log says where it happened."""
    await begin(stage, PLAIN, "crash", tmp_path / "marks")
    runner = start()
    operation = await stage.ended("op-1", within=20)
    assert operation.error is not None
    assert (operation.error.code, operation.attempt) == (500, 2)
    assert operation.error.message == "the process of the action ended by signal 11 (SIGSEGV) (2 attempts failed)"
    runner.wait_for(
        "ERROR   opstream_runner.handler.child_process: operation op-1: the process of iso:plain ended by signal 11"
    )
    runner.wait_for("isolated_actions.py.* in crash")
    assert runner.is_running
