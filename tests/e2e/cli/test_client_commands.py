"""`opstream run`, `status`, `cancel`, `events`: real processes, with and without a terminal, in good and bad times."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli.terminal import MODULE, Terminal, open_gate, write_module
from tests.support.client.scripted_server import refusing
from tests.support.system import processes
from tests.support.system.processes import Process
from tests.support.system.services import System

pytestmark = pytest.mark.e2e

TARGET = "job/4 2:wait"
LINE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  "


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that serves. A test that kills a part of it starts it again."""
    folder = tmp_path_factory.mktemp("cli")
    write_module(folder)
    with ExitStack() as stack:
        system = System(folder, stack, MODULE)
        system.begin()
        yield system


@pytest.fixture
def variables(system: System) -> dict[str, str]:
    """Variables with which the commands find the service."""
    return {"OPSTREAM_URL": system.api, "NO_PROXY": "127.0.0.1"}


@pytest.fixture
def call(variables: dict[str, str]) -> Any:
    """Run a command to its end."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return processes.run(*arguments, extra=variables)

    return call


def the_error(result: subprocess.CompletedProcess[str]) -> str:
    """The error of a command, which is the last line."""
    *_, last = result.stderr.splitlines()
    assert result.stderr.count("opstream: error: ") == 1
    assert "Traceback" not in result.stderr
    return last.removeprefix("opstream: error: ")


def test_success(system: System, call: Any) -> None:
    """The status is 0; stdout has only the result, in one line, stderr a plain line for each change."""
    open_gate(system.folder, "success")
    result = call("run", TARGET, "--operation-id", "success", "--input", "{}")
    assert (result.returncode, result.stdout) == (0, '{"operation":"success","title":"Möwe"}\n')
    first, *lines = result.stderr.splitlines()
    assert first == "operation success of job/4 2:wait"
    assert all(re.match(LINE, line) for line in lines)
    assert re.fullmatch(LINE + "NotStarted", lines[0])
    assert re.fullmatch(LINE + "Succeeded", lines[-1])
    again = call("run", TARGET, "--operation-id", "success")
    assert (again.returncode, again.stdout) == (0, result.stdout)


def test_failure(system: System, call: Any, tmp_path: Path) -> None:
    """The status is 1, and stderr has the action's error in one line. The input comes from a file."""
    open_gate(system.folder, "failure")
    (tmp_path / "input.json").write_text('{"code": "Broken"}\n')
    result = call("run", "job:wait", "--operation-id", "failure", "--input", f"@{tmp_path / 'input.json'}")
    assert (result.returncode, result.stdout) == (1, "")
    assert the_error(result) == "operation failure failed: Broken: it  broke"
    followed = call("status", "failure", "--wait")
    assert (followed.returncode, json.loads(followed.stdout)["status"]) == (1, "Failed")


def test_cancellation(call: Any, variables: dict[str, str]) -> None:
    """`run` ends with status 3 and the reason, `cancel --wait` with status 0 and the monitor."""
    with Process("run", TARGET, "--operation-id", "cancellation", extra=variables) as following:
        following.wait_for("Running  +50 %  half  .31mred")
        canceled = call("cancel", "cancellation", "--reason", "too slow", "--wait")
        assert (canceled.returncode, json.loads(canceled.stdout)["status"]) == (0, "Canceled")
        assert following.wait(10) == 3
        assert following.output.endswith("opstream: error: operation cancellation was canceled: too slow\n")
    assert call("cancel", "cancellation").returncode == 0


def test_too_late_to_cancel(system: System, call: Any) -> None:
    """An operation that has succeeded can't be canceled: the status is 1, and the error says why."""
    open_gate(system.folder, "late")
    assert call("run", TARGET, "--operation-id", "late").returncode == 0
    result = call("cancel", "late")
    assert (result.returncode, result.stdout) == (1, "")
    assert "OperationFinished" in the_error(result)


def test_a_terminal_gets_a_bar(system: System, variables: dict[str, str]) -> None:
    """Progress is one line, redrawn as time passes and cut to the terminal; the result is indented."""
    with Terminal("run", TARGET, "--operation-id", "bar", extra=variables, columns=60) as terminal:
        terminal.wait_for("\r\x1b[K\x1b[1mRunning\x1b[0m  [############------------]  50 %  0:0")
        terminal.wait_for("0:02  half")
        open_gate(system.folder, "bar")
        assert terminal.wait(10) == 0
        drawn, _, rest = terminal.output.rpartition("\r\x1b[K")
        assert re.fullmatch(r"\x1b\[32m\x1b\[1mSucceeded\x1b\[0m after 0:0\d\r\n(.*)", rest, re.DOTALL)
        assert json.loads(rest.partition("\n")[2]) == {"operation": "bar", "title": "Möwe"}
        assert '\r\n  "operation": "bar",' in rest
        lines = [re.sub(r"\x1b\[\d+m", "", line) for line in drawn.split("\r\x1b[K")[1:]]
        assert all(len(line) < 60 for line in lines)
        assert "\x1b" not in "".join(lines)


def test_a_terminal_for_progress_only(system: System, variables: dict[str, str]) -> None:
    """With stdout in a pipe, the bar is on the terminal and the result in the pipe; NO_COLOR has its effect."""
    extra = {**variables, "NO_COLOR": "1"}
    with Terminal("run", TARGET, "--operation-id", "pipe", extra=extra, is_stdout=False) as terminal:
        terminal.wait_for("\r\x1b[KRunning  [############------------]  50 %")
        open_gate(system.folder, "pipe")
        assert terminal.wait(10) == 0
        assert json.loads(terminal.stdout())["operation"] == "pipe"
        assert "\x1b[1m" not in terminal.output
        assert "title" not in terminal.output


def test_the_service_is_killed_while_followed(system: System, variables: dict[str, str]) -> None:
    """The command reports the outage, tries again, and ends with the result."""
    with Process("run", TARGET, "--operation-id", "killed", extra=variables) as following:
        following.wait_for("Running")
        system.kill("api")
        following.wait_for(LINE + "(?:no connection|the connection broke): .*; trying again in")
        open_gate(system.folder, "killed")
        system.start("api")
        system.wait_ready("api")
        assert following.wait(20) == 0
        assert '{"operation":"killed","title":"Möwe"}\n' in following.output


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Child processes handle SIGINT, also when a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("command", ["run", "status"])
def test_ctrl_c(system: System, call: Any, variables: dict[str, str], command: str) -> None:
    """It ends the command with status 130, not the operation, and the last line says how to continue."""
    name = f"interrupted-{command}"
    assert call("run", TARGET, "--operation-id", name, "--detach").returncode == 0
    arguments = ("run", TARGET, "--operation-id", name) if command == "run" else ("status", name, "--wait")
    with Process(*arguments, extra=variables) as following:
        following.wait_for("Running")
        following.send(signal.SIGINT)
        assert following.wait(10) == 130
        last = following.output.splitlines()[-1]
    wait, cancel = re.findall(r"'opstream (.*?)'", last)
    assert last.startswith(f"interrupted; operation {name} goes on: ")
    assert "Traceback" not in following.output
    assert json.loads(call("status", name).stdout)["status"] == "Running"
    open_gate(system.folder, name)
    followed = processes.run(*wait.split(), extra={"NO_PROXY": "127.0.0.1"})
    assert (followed.returncode, json.loads(followed.stdout)["status"]) == (0, "Succeeded")
    assert cancel == f"cancel {name} --url {system.api}"


def test_a_timeout(call: Any) -> None:
    """The status is 124, and the operation goes on."""
    result = call("run", TARGET, "--operation-id", "timeout", "--timeout", "1.5s")
    assert (result.returncode, result.stdout) == (124, "")
    assert "the time is up, and the status is Running; operation timeout goes on" in the_error(result)
    assert call("cancel", "timeout", "--wait").returncode == 0


def test_submit_only(system: System, call: Any) -> None:
    """--detach prints the monitor, with the id for the other commands."""
    submitted = json.loads(call("run", TARGET, "--detach").stdout)
    assert submitted["kind"] == "job:wait"
    open_gate(system.folder, submitted["id"])
    ended = call("status", submitted["id"], "--wait")
    assert (ended.returncode, json.loads(ended.stdout)["result"]["operation"]) == (0, submitted["id"])
    shown = call("status", submitted["id"])
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, ended.stdout, "")


def test_files(system: System, call: Any, tmp_path: Path) -> None:
    """Files go up before the submit and come down again; stdout has the path, and what can't be is one line."""
    open_gate(system.folder, "files")
    data = bytes(range(256)) * 2_000
    (tmp_path / "scan.tif").write_bytes(data)
    options = ("--operation-id", "files", "--upload", str(tmp_path / "scan.tif"))
    result = call("run", TARGET, *options, "--upload", f"cover.png={tmp_path / 'scan.tif'}")
    assert (result.returncode, result.stderr.splitlines()[:2]) == (0, ["uploads scan.tif", "uploads cover.png"])
    uploads = json.loads(call("status", "files").stdout)["uploads"]
    assert [(one["name"], one["mediaType"]) for one in uploads] == [
        ("scan.tif", "image/tiff"),
        ("cover.png", "image/png"),
    ]
    down = call("download", "files", "cover.png", "-o", str(tmp_path))
    assert (down.returncode, down.stdout, down.stderr) == (0, f"{tmp_path}/cover.png\n", "downloads cover.png\n")
    assert (tmp_path / "cover.png").read_bytes() == data
    again = call("run", TARGET, *options)
    assert (again.returncode, "follow it with 'opstream status files --wait'" in the_error(again)) == (1, True)
    none = call("download", "files", "proof.pdf")
    assert none.returncode == 1
    assert the_error(none) == "operation files has no file 'proof.pdf': it has 'scan.tif', 'cover.png'"


def test_events(system: System, call: Any, variables: dict[str, str]) -> None:
    """They are one CloudEvent per line, followed to the end; on a terminal a table."""
    assert call("run", TARGET, "--operation-id", "events", "--detach").returncode == 0
    with Process("events", "events", "--follow", extra=variables) as following:
        following.wait_for("progressed")
        open_gate(system.folder, "events")
        assert following.wait(10) == 0
        events = [json.loads(line) for line in following.output.splitlines()]
    assert [event["position"] for event in events] == [1, 2, 3, 4]
    assert events[-1]["type"] == "opstream.action.succeeded.v1"
    assert call("events", "events").stdout == following.output
    with Terminal("events", "events", extra=variables) as terminal:
        assert terminal.wait(10) == 0
        heading, *rows = re.sub(r"\x1b\[\d*m", "", terminal.output).splitlines()
        assert heading == "position  time (UTC)    event             what"
        assert [row.split()[2] for row in rows] == ["requested", "started", "progressed", "succeeded"]
        assert rows[2].endswith("50 % half  [31mred")
    with Terminal("events", "events", "--json", extra=variables) as terminal:
        assert terminal.wait(10) == 0
        assert [json.loads(line) for line in terminal.output.splitlines()] == events


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "job:nothing"), "UnknownAction"),
        (("run", "job:wait", "--input", '{"codes": 1}'), "InvalidInput: the input of job:wait is not valid"),
        (("run", TARGET, "--operation-id", "taken", "--input", '{"code": "x"}'), "OperationIdReused"),
        (("status", "nothing"), "has no operation with the id 'nothing'"),
        (("cancel", "nothing"), "has no operation with the id 'nothing'"),
        (("events", "nothing"), "has no operation with the id 'nothing'"),
        (("events", "nothing", "--follow"), "has no operation with the id 'nothing'"),
        (("status", "nothing", "--wait"), "has no operation with the id 'nothing'"),
    ],
)
def test_refused(system: System, call: Any, arguments: tuple[str, ...], text: str) -> None:
    """The status is 1, and the error is the service's."""
    open_gate(system.folder, "taken")
    if "taken" in arguments:
        assert call("run", TARGET, "--operation-id", "taken").returncode == 0
    result = call(*arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert text in the_error(result)


def test_no_service() -> None:
    """The status is that of a timeout, and the error has the id with which the same command is safe."""
    with refusing() as url:
        result = processes.run("run", TARGET, "--url", url, "--timeout", "1s", extra={"NO_PROXY": "127.0.0.1"})
    assert (result.returncode, result.stdout) == (124, "")
    error = the_error(result)
    assert f"{url} gave no usable response in time (last: no connection" in error
    advice = "check that the service runs ('opstream up'), and that --url (OPSTREAM_URL) is right"
    assert advice in error
    first = result.stderr.splitlines()[0]
    assert "no connection" in first
    assert f"{advice}; trying again in" in first
    assert re.search(r"run it again with --operation-id [0-9a-f-]{36}, which is safe$", error)
    assert "trying again in" in result.stderr


@pytest.mark.parametrize("command", ["status", "cancel"])
def test_no_service_to_follow(command: str) -> None:
    """The time of --timeout counts from the first request on, and its end has one status."""
    with refusing() as url:
        result = processes.run(
            *(command, "some", "--wait", "--url", url, "--timeout", "1s"), extra={"NO_PROXY": "127.0.0.1"}
        )
    assert (result.returncode, result.stdout) == (124, "")
    assert the_error(result).startswith(f"the time of --timeout is up: {url} gave no usable response")
    assert "check that the service runs ('opstream up')" in the_error(result)


def test_a_service_that_is_down_is_waited_for_aloud() -> None:
    """After two seconds of silence a line says what the command waits for, how long still, and how to stop it."""
    with refusing() as url:
        result = processes.run(
            "status", "some", "--wait", "--url", url, "--timeout", "8s", extra={"NO_PROXY": "127.0.0.1"}
        )
    assert re.search(
        rf"opstream: waiting for a response of {url}, for [56] s more at most; Ctrl-C stops it\n", result.stderr
    )


@pytest.mark.parametrize("command", ["status", "cancel", "events"])
def test_an_unknown_operation(call: Any, command: str) -> None:
    """The status is 1; the error says that there is none of this id, and what an id looks like."""
    result = call(command, "nosuch")
    assert (result.returncode, result.stdout) == (1, "")
    error = the_error(result)
    assert "has no operation with the id 'nosuch', or its retention is over: an id looks like 019abc12-" in error
    assert "refused" not in error


@pytest.mark.parametrize("command", ["redeliver", "deliveries", "audit"])
def test_an_unknown_operation_on_the_broker(system: System, command: str) -> None:
    """The status is 1, and the error says that there is none of this id, not only that nothing was done."""
    result = processes.run(command, "nosuch", "--nats", system.nats)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.search(r"no operation nosuch, or its events have expired", the_error(result))


def test_nothing_to_redeliver(system: System, call: Any) -> None:
    """An operation without failed deliveries is no error: there is nothing to do."""
    open_gate(system.folder, "undelivered")
    assert call("run", TARGET, "--operation-id", "undelivered").returncode == 0
    result = processes.run("redeliver", "undelivered", "--nats", system.nats)
    assert (result.returncode, result.stdout) == (0, "")
    assert "no failed delivery is recorded there" in result.stderr


def test_a_redirect_of_stdout(variables: dict[str, str], system: System) -> None:
    """A reader that closes the pipe early causes no traceback."""
    open_gate(system.folder, "early")
    assert processes.run("run", TARGET, "--operation-id", "early", extra=variables).returncode == 0
    command = " ".join(processes.COMMAND)
    result = subprocess.run(
        ["sh", "-c", f"{command} events early | true"],
        env=processes.environment(variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (result.returncode, result.stderr) == (0, "")
