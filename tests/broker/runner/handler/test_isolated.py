"""Actions in processes of their own: each end of the process is an outcome, and no process is left."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, Journal
from opstream_runner import ActionContext, InvalidAction, action
from opstream_runner.authoring.action import collect_actions
from opstream_runner.dispatch.dispatcher import Dispatcher
from opstream_runner.handler.invocation import UNEXPECTED_ERROR
from opstream_runner.runner import Runner
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import AttemptFailed, OperationError, Progressed
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation, Status
from tests.support.journal.journals import KIND
from tests.support.runner import isolated_actions
from tests.support.runner.stage import Input, RunnerStage
from tests.support.system.processes import Watch
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

PLAIN = Kind("iso", "plain")
ASYNC = Kind("iso", "async")
TRACED = Kind("iso", "traced")
both = pytest.mark.parametrize("kind", [PLAIN, ASYNC], ids=str)


@pytest.fixture
def stage(link: Connection, journal: Journal) -> RunnerStage:
    return RunnerStage(link, journal)


@pytest.fixture
async def runner(stage: RunnerStage) -> AsyncIterator[Runner]:
    """A runner of the isolated actions."""
    async with stage.runner(collect_actions([isolated_actions])) as runner:
        yield runner


class Marks:
    """The lines that handlers write to a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> str:
        """Return all lines."""
        return self.file.read_text() if self.file.exists() else ""


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path / "marks")


async def begin(stage: RunnerStage, kind: Kind, how: str, marks: Marks | None = None, **changes: Any) -> None:
    """Request op-1."""
    given = msgspec.json.encode({"how": how, "file": str(marks.file if marks else os.devnull)})
    await stage.request("op-1", kind=kind, given=given, **changes)


async def at_it(stage: RunnerStage) -> None:
    """Wait until the handler of op-1 was called and has reported it."""
    await stage.reached("op-1", lambda operation: operation.percent_complete)


async def cancel(stage: RunnerStage, runner: Runner, kind: Kind) -> Operation:
    """Cancel op-1, and wait for its end."""
    await stage.request_cancel("op-1")
    runner.notify(kind, "op-1")
    return await stage.ended("op-1")


def dispatcher(runner: Runner, kind: Kind) -> Dispatcher:
    return runner._dispatchers[kind]


def processes(runner: Runner, kind: Kind) -> list[int]:
    """Process ids of the attempts of an action."""
    found = []
    for attempt in dispatcher(runner, kind)._attempts.values():
        process = getattr(attempt._handler, "_process", None)
        if process is not None:
            found.append(process.pid)
    return found


def failed(operation: Operation) -> OperationError:
    assert operation.status is Status.FAILED
    assert operation.error is not None
    return operation.error


def twice(error: OperationError) -> OperationError:
    """The error after the last attempt of these actions."""
    return msgspec.structs.replace(error, message=f"{error.message} (2 attempts failed)")


@pytest.mark.parametrize("kind", [PLAIN, ASYNC, TRACED], ids=str)
async def test_it_has_a_process_of_its_own(stage: RunnerStage, runner: Runner, kind: Kind) -> None:
    """The handler gets the same context as in the runner, in another process, which leads its own group."""
    await begin(stage, kind, "tell", resource_id="42")
    operation = await stage.ended("op-1")
    assert operation.result is not None
    result = msgspec.json.decode(operation.result)
    pid = result.pop("pid")
    assert pid not in {os.getpid(), 0}
    assert result == {
        "group": pid,
        "attempt": 1,
        "operation": "op-1",
        "resource": "42",
        "trace": operation.trace.traceparent if operation.trace else "",
        "canceled": False,
    }


@both
@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("break_down", UNEXPECTED_ERROR),
        ("leave", OperationError(code=500, message="the process of the action ended with status 3")),
        ("crash", OperationError(code=500, message="the process of the action ended by signal 11 (SIGSEGV)")),
    ],
)
async def test_a_failure(
    stage: RunnerStage, runner: Runner, kind: Kind, how: str, error: OperationError, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception, or the end of the process, is a 500 that says so, and is retried."""
    await begin(stage, kind, how)
    assert failed(await stage.ended("op-1")) == twice(error)
    _, _, first, _, _ = await stage.datas("op-1")
    assert isinstance(first, AttemptFailed)
    assert (first.error, first.counted) == (error, True)
    if how in {"leave", "crash"}:
        records = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert len(records) == 2
        assert all("operation op-1: the process of iso:" in one.getMessage() for one in records)


@both
async def test_a_meant_failure(stage: RunnerStage, runner: Runner, kind: Kind) -> None:
    """The client reads the handler's ActionError, and no other attempt follows."""
    await begin(stage, kind, "fail")
    error = OperationError(code="Meant", message="as ? meant", target="how")
    assert failed(await stage.ended("op-1")) == error
    assert await stage.names("op-1") == ["requested", "started", "failed"]


@both
async def test_another_attempt_later(stage: RunnerStage, runner: Runner, kind: Kind) -> None:
    """RetryAfter passes through: its delay and its message."""
    await begin(stage, kind, "postpone")
    assert failed(await stage.ended("op-1")).message == "as ? meant (2 attempts failed)"
    _, _, first, _, _ = await stage.events("op-1")
    assert isinstance(first.data, AttemptFailed)
    assert (first.data.error.code, first.data.error.message) == (503, "as ? meant")
    assert (first.data.retry_at - first.time).total_seconds() == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("how", ["babble", "babble_on"])
async def test_an_invalid_message(
    stage: RunnerStage, runner: Runner, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The process of a handler that writes into the channel is killed: its outcome could not be read."""
    await begin(stage, PLAIN, how)
    error = failed(await stage.ended("op-1"))
    assert error.message == "the process of the action ended by signal 9 (SIGKILL) (2 attempts failed)"
    assert "operation op-1: its process sent an invalid message" in caplog.text


@both
async def test_the_limits_of_input_and_result(stage: RunnerStage, runner: Runner, kind: Kind) -> None:
    """Input that is not the handler's, and a result beyond the limit, fail as they do in the runner."""
    await begin(stage, kind, "fill")
    error = failed(await stage.ended("op-1"))
    assert (error.code, "20002 bytes" in error.message) == (ErrorCode.RESULT_TOO_LARGE, True)
    await stage.request("op-2", kind=kind, given=b'{"how":1}')
    assert failed(await stage.ended("op-2")).code == ErrorCode.INVALID_INPUT


@both
async def test_progress(stage: RunnerStage, runner: Runner, kind: Kind) -> None:
    """Progress arrives in order, throttled, cut, and before the outcome."""
    await begin(stage, kind, "step")
    operation = await stage.ended("op-1")
    told = [data for data in await stage.datas("op-1") if isinstance(data, Progressed)]
    assert [one.percent for one in told] == [40, 80]
    assert (told[0].message, len(told[1].message.encode()) <= 4096) == ("step 0", True)
    assert (operation.status, operation.result) == (Status.SUCCEEDED, msgspec.Raw(b'"done"'))


async def test_a_plain_handler_may_run_a_loop(stage: RunnerStage, runner: Runner) -> None:
    """No event loop runs where a plain handler is called, so that it can have its own."""
    await begin(stage, PLAIN, "run_a_loop")
    assert (await stage.ended("op-1")).result == msgspec.Raw(b'"looped"')


async def test_its_output_appears_in_the_log(
    stage: RunnerStage, runner: Runner, capfd: pytest.CaptureFixture[str]
) -> None:
    """The process's output, log lines and tracebacks appear in the runner's log."""
    await begin(stage, PLAIN, "break_down")
    await stage.ended("op-1")
    out, err = capfd.readouterr()
    assert out == "printed in the child\n" * 2
    assert "WARNING isolated: logged in the child\n" in err
    assert (
        "ERROR   opstream_runner.handler.invocation: operation op-1: iso:plain raised OSError in attempt 1\nTraceback"
        in err
    )


async def test_a_child_of_its_own_does_not_survive(stage: RunnerStage, runner: Runner, marks: Marks) -> None:
    """A process that the handler leaves running is killed when the handler returns."""
    await begin(stage, PLAIN, "breed", marks)
    operation = await stage.ended("op-1")
    assert operation.result == msgspec.Raw(b'"left one behind"')
    assert not is_alive(int(marks.read()))


def is_alive(pid: int) -> bool:
    """Return True if a process that is not our child runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("kind", "how"), [(PLAIN, "clean_up"), (ASYNC, "wait")], ids=str)
async def test_a_cancellation_with_clean_up(
    stage: RunnerStage, runner: Runner, marks: Marks, kind: Kind, how: str
) -> None:
    """SIGTERM interrupts the handler at any point, its clean-up runs, and it has stopped."""
    await begin(stage, kind, how, marks)
    await at_it(stage)
    operation = await cancel(stage, runner, kind)
    assert (operation.status, operation.reason) == (Status.CANCELED, "late")
    assert marks.read() == "cleaned up, cancel requested: True\n"
    assert await stage.names("op-1") == ["requested", "started", "progressed", "cancel-requested", "canceled"]


@pytest.mark.parametrize(
    ("kind", "how"),
    [(PLAIN, "clean_up_for_ever"), (PLAIN, "ignore"), (ASYNC, "wait_stubbornly"), (ASYNC, "ignore")],
    ids=str,
)
async def test_a_cancellation_that_kills(
    stage: RunnerStage, runner: Runner, marks: Marks, kind: Kind, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that has not ended after its grace is killed, and only then the operation reads Canceled."""
    await begin(stage, kind, how, marks)
    await at_it(stage)
    (pid,) = processes(runner, kind)
    began = time.monotonic()
    operation = await cancel(stage, runner, kind)
    assert operation.status is Status.CANCELED
    assert not is_alive(pid)
    assert time.monotonic() - began >= isolated_actions.GRACE
    assert f"operation op-1: the handler of {kind} was asked to stop" in caplog.text


@pytest.mark.parametrize(
    ("kind", "how", "status"),
    [(PLAIN, "finish", "Succeeded"), (PLAIN, "give_up", "Failed"), (ASYNC, "hold_the_loop", "Succeeded")],
    ids=str,
)
async def test_a_cancellation_that_ends_otherwise(
    stage: RunnerStage, runner: Runner, kind: Kind, how: str, status: str
) -> None:
    """A handler that is interrupted and returns has succeeded; one that raises has failed."""
    await begin(stage, kind, how)
    await at_it(stage)
    assert (await cancel(stage, runner, kind)).status == status


async def test_a_cancellation_takes_all_of_the_group(stage: RunnerStage, runner: Runner, marks: Marks) -> None:
    """Processes that an interrupted handler started have ended when the operation reads Canceled."""
    await begin(stage, PLAIN, "stay", marks)
    await at_it(stage)
    assert (await cancel(stage, runner, PLAIN)).status is Status.CANCELED
    assert [is_alive(int(pid)) for pid in marks.read().split()] == [False, False]


@both
@pytest.mark.parametrize("how", ["escape_and_return", "escape_and_crash"])
async def test_what_has_left_the_group_does_not_survive_the_end(
    stage: RunnerStage, runner: Runner, marks: Marks, kind: Kind, how: str
) -> None:
    """A process in a session of its own, and one that has lost its parent, have ended when the attempt has."""
    await begin(stage, kind, how, marks)
    await stage.ended("op-1")
    pids = [int(pid) for pid in marks.read().split()]
    assert len(pids) == (2 if how == "escape_and_return" else 4)
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("how", ["escape_and_stay", "escape_and_ignore"])
async def test_what_has_left_the_group_does_not_survive_a_cancel(
    stage: RunnerStage, runner: Runner, marks: Marks, how: str
) -> None:
    """It has ended when the operation reads Canceled, whether the handler was interrupted or killed."""
    await begin(stage, PLAIN, how, marks)
    await at_it(stage)
    pids = [int(pid) for pid in marks.read().split()]
    assert all(map(is_alive, pids))
    assert (await cancel(stage, runner, PLAIN)).status is Status.CANCELED
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("how", ["clean_up", "clean_up_for_ever"])
async def test_a_stop(stage: RunnerStage, marks: Marks, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopping runner interrupts its processes, kills those that do not end, and releases the operations."""
    monkeypatch.setattr("opstream_runner.attempt.attempt._STOP_GRACE", 0.3)
    async with stage.runner(collect_actions([isolated_actions])) as runner:
        await begin(stage, PLAIN, how, marks)
        await at_it(stage)
        (pid,) = processes(runner, PLAIN)
    assert not is_alive(pid)
    assert marks.read().startswith("clean")
    assert await stage.names("op-1") == ["requested", "started", "progressed", "attempt-failed"]


async def test_an_attempt_without_a_lease(stage: RunnerStage, runner: Runner, marks: Marks) -> None:
    """After a later attempt started elsewhere, the process of this one is terminated; it records nothing."""
    await begin(stage, PLAIN, "clean_up", marks)
    await at_it(stage)
    live = (await stage.state("op-1")).live
    assert live is not None
    (pid,) = processes(runner, PLAIN)
    watch = Watch([pid])
    later = msgspec.structs.replace((await stage.datas("op-1"))[1], attempt=2, token="another")
    await stage.append("op-1", later)
    runner.notify(PLAIN, "op-1")
    await eventually(lambda: not dispatcher(runner, PLAIN)._attempts)
    assert watch.left_after(5) == []
    assert marks.read() == "cleaned up, cancel requested: True\n"
    assert (await stage.names("op-1"))[-1] == "started"


async def test_a_signal_from_outside(stage: RunnerStage, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is terminated from outside, without a stop of the runner, has failed: it is not restarted for
    ever."""
    monkeypatch.setattr("opstream_runner.handler.child_process._FOREIGN_SIGTERM_WAIT", 0.2)
    await begin(stage, PLAIN, "terminate")
    error = failed(await stage.ended("op-1"))
    assert error.message == "the process of the action ended by signal 15 (SIGTERM) (2 attempts failed)"


async def test_a_signal_to_all_processes(stage: RunnerStage, runner: Runner) -> None:
    """If a service manager terminates the processes and then the runner, the operation is released."""
    await begin(stage, PLAIN, "stay")
    await at_it(stage)
    (pid,) = processes(runner, PLAIN)
    (attempt,) = dispatcher(runner, PLAIN)._attempts.values()
    assert attempt._handler is not None
    watch = Watch([pid])
    os.kill(pid, signal.SIGTERM)
    assert await asyncio.to_thread(watch.left_after, 5) == []
    done, _ = await asyncio.wait([attempt._handler.outcome], timeout=0.3)
    assert not done
    await runner.stop()
    assert (await stage.names("op-1"))[-1] == "attempt-failed"


async def test_a_handler_that_cancels_itself(stage: RunnerStage, runner: Runner) -> None:
    """Its own cancellation was not requested, so the operation has failed."""
    await begin(stage, ASYNC, "cancel_oneself")
    assert failed(await stage.ended("op-1")) == twice(UNEXPECTED_ERROR)


@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/false"])
async def test_a_process_that_does_not_begin(
    stage: RunnerStage, runner: Runner, executable: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine that can't start processes costs the time of a lease and an attempt, not the operation; the attempt
    says so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.executable", executable)
        await begin(stage, PLAIN, "tell")
        await eventually(lambda: "the process of the action could not be started" in caplog.text)
        waiting = await stage.reached("op-1", lambda operation: operation.waiting is not None)
    why = {"/bin/false": "it ended with status 1 before it began; the runner's log may say why"}
    error = waiting.attempt_error
    assert error is not None
    assert (error.code, error.message) == (
        503,
        f"the process of the action could not be started: {why.get(executable, 'No such file or directory')}",
    )
    operation = await stage.ended("op-1", within=20)
    assert (operation.status, operation.attempts_used) == (Status.SUCCEEDED, 2)
    *_, failed_at, started_at, _ = await stage.events("op-1")
    assert (started_at.time - failed_at.time).total_seconds() >= 1  # the lease


async def test_a_search_path_of_other_things(
    stage: RunnerStage, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no path in `sys.path` is left out; a process starts all the same."""
    monkeypatch.setattr("sys.path", [Path("/tmp"), "/\udcff", 7, None, *sys.path])
    await begin(stage, PLAIN, "tell")
    assert (await stage.ended("op-1", within=20)).status is Status.SUCCEEDED


async def test_an_attempt_that_cant_be_sent(
    stage: RunnerStage, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails before the handler is called is an outcome, not a runner that seems lost."""

    def refuse(_: object) -> bytes:
        raise TypeError("no JSON")

    monkeypatch.setattr("opstream_runner.handler.child_process.encode_frame", refuse)
    await begin(stage, PLAIN, "tell")
    waiting = await stage.reached("op-1", lambda operation: operation.waiting is not None)
    assert waiting.attempt_error is not None
    assert waiting.attempt_error.message == "the process of the action could not be started: TypeError"


async def test_a_cancellation_before_it_begins(
    stage: RunnerStage, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is terminated while it still loads the action has stopped."""
    loading = tmp_path / "python"
    loading.write_text("#!/bin/sh\nexec sleep 600\n")
    loading.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(loading))
    await begin(stage, PLAIN, "tell")
    await eventually(lambda: processes(runner, PLAIN))
    assert (await cancel(stage, runner, PLAIN)).status is Status.CANCELED
    assert await stage.names("op-1") == ["requested", "started", "cancel-requested", "canceled"]


async def test_many_at_once(stage: RunnerStage) -> None:
    """Each attempt has its own process."""
    ids = [f"op-{n}" for n in range(8)]
    async with stage.runner(collect_actions([isolated_actions]), concurrency=8):
        await stage.request(*ids, kind=PLAIN)
        operations = await asyncio.gather(*(stage.ended(one, within=20) for one in ids))
    pids = {msgspec.json.decode(one.result or b"{}")["pid"] for one in operations}
    assert len(pids) == len(ids)


async def test_an_isolated_action_without_a_module(stage: RunnerStage) -> None:
    """An isolated action without a module is refused before any action is offered."""

    @action(str(KIND), isolation="process")
    def handler(request: Input, ctx: ActionContext) -> None: ...

    with pytest.raises(InvalidAction, match="collect it from a module"):
        Runner(stage.link, stage.dependencies(), [handler], name="runner-1", concurrency=1)


async def test_what_a_plain_function_returns_is_awaited(stage: RunnerStage, runner: Runner, marks: Marks) -> None:
    """An async function under a plain decorator runs, and is cancelled, as any other."""
    await begin(stage, TRACED, "wait", marks)
    await at_it(stage)
    operation = await cancel(stage, runner, TRACED)
    assert operation.status is Status.CANCELED
    assert marks.read() == "cleaned up, cancel requested: True\n"
