"""`opstream count`, `schedule` and `top`: real processes, with and without a terminal, in good and bad times."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from tests.support.cli.terminal import MODULE, Terminal, open_gate, write_module
from tests.support.system import processes
from tests.support.system.services import BROKER, System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

Call = Callable[..., subprocess.CompletedProcess[str]]
ENDS: Final = {"good": "{}", "bad": '{"code": "NoPaper"}'}


class IndexedSystem(System):
    """A system with an index."""

    def _command(self, name: str) -> tuple[str, ...]:
        index = ("--index", f"sqlite:{self.folder / 'index.db'}")
        has_index = name.partition("-")[0] in {"api", "projector"}
        return (*super()._command(name), *(index if has_index else ()))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system in which one operation has succeeded and one has failed."""
    folder = tmp_path_factory.mktemp("operator")
    write_module(folder)
    with ExitStack() as stack:
        system = IndexedSystem(folder, stack, MODULE)
        system.begin()
        for operation_id, document in ENDS.items():
            open_gate(folder, operation_id)
            processes.run("run", "job:wait", "--operation-id", operation_id, "--input", document, "--url", system.api)
        yield system


@pytest.fixture
def variables(system: System) -> dict[str, str]:
    """Variables with which the commands find service and broker."""
    return {"OPSTREAM_URL": system.api, "OPSTREAM_NATS_URL": system.nats, "NO_PROXY": "127.0.0.1"}


@pytest.fixture
def call(variables: dict[str, str]) -> Call:
    """Run a command to its end, which has to succeed."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        result = processes.run(*arguments, extra=variables)
        assert result.returncode == 0, result.stderr
        return result

    return call


def lines(result: subprocess.CompletedProcess[str]) -> list[Any]:
    """The lines of JSON that a command printed."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def plain(terminal: Terminal) -> str:
    """What a terminal shows, without colours."""
    return re.sub(r"\x1b\[\d*m", "", terminal.output)


async def test_count(call: Call, variables: dict[str, str]) -> None:
    """One number; or a line of JSON for each value of a field, and on a terminal a table."""

    def has_all() -> bool:
        return call("count", "--since", "1h").stdout == "2\n"

    await eventually(has_all, within=20, poll=0.2)
    assert call("count", "--status", "Failed", "--by", "status").stdout.startswith('{"key":"Failed","count":1')
    (job,) = lines(call("count", "--by", "action"))
    assert (job["key"], job["statuses"], job["duration"]["count"]) == ("job:wait", {"Succeeded": 1, "Failed": 1}, 2)
    with Terminal("count", "--by", "error/code", extra=variables, columns=100) as terminal:
        assert terminal.wait(20) == 0
        heading, *rows = plain(terminal).splitlines()
        assert heading.split()[-1] == "error/code"
        assert {row.split()[-1] for row in rows} == {"(none)", "NoPaper"}


def test_schedule(system: System, call: Call, variables: dict[str, str]) -> None:
    """It is made, shown, paused, triggered, made up for and deleted; errors have one line."""
    made = json.loads(call("schedule", "put", "nightly", "job/4 2:wait", "--cron", "0 3 * * *").stdout)
    assert (made["name"], made["action"], made["resourceId"], made["status"]) == (
        "nightly",
        "job:wait",
        "4 2",
        "Active",
    )
    assert lines(call("schedule", "list")) == [made]
    (first, _) = lines(call("schedule", "preview", "nightly", "--limit", "2"))
    assert first["dueAt"] == made["nextAt"]
    with Terminal("schedule", "list", extra=variables, columns=120) as terminal:
        assert terminal.wait(20) == 0
        assert re.search(r"nightly +Active +[-0-9]+ 03:00:00 +job:wait of 4 2, 0 3 \* \* \* UTC", plain(terminal))
    assert json.loads(call("schedule", "pause", "nightly").stdout)["status"] == "Paused"
    operation = json.loads(call("schedule", "trigger", "nightly").stdout)
    open_gate(system.folder, operation["id"])
    ended = json.loads(call("status", operation["id"], "--wait").stdout)
    assert (ended["status"], ended["resourceId"]) == ("Succeeded", "4 2")
    assert [one["operationId"] for one in lines(call("schedule", "history", "nightly"))] == [operation["id"]]
    assert json.loads(call("schedule", "resume", "nightly").stdout)["status"] == "Active"
    (moment,) = lines(call("schedule", "backfill", "nightly", "--from", "1d"))
    assert moment["operationId"].startswith("sched-nightly-")
    with Terminal("schedule", "history", "nightly", extra=variables, columns=120) as terminal:
        assert terminal.wait(20) == 0
        assert [line.split()[2] for line in plain(terminal).splitlines()[1:]] == ["trigger", "backfill"]
    assert call("cancel", moment["operationId"], "--wait").returncode == 0
    assert call("schedule", "delete", "nightly").stderr.endswith("what it has begun goes on\n")
    assert "'opstream schedule put' makes one" in call("schedule", "list").stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("get", "none"), 1, "ScheduleNotFound: there is no schedule 'none'"),
        (("put", "x", "job:none", "--every", "15m"), 1, "UnknownAction"),
        (("put", "x", "job:wait", "--every", "5s"), 1, "every must be 60 to"),
        (("put", "x", "job:wait"), 2, "it needs either --cron or --every"),
        (("put", "x", "job", "--every", "1h"), 2, "it names no action: write 'job:ACTION'"),
        (("put", "X", "job:wait", "--every", "1h"), 2, "is not a name of a schedule"),
        (("backfill", "x"), 2, "it needs --from"),
        (("trigger", "x", "--timeout", "5s"), 2, "--timeout limits how long"),
    ],
)
def test_schedules_that_are_refused(
    variables: dict[str, str], arguments: tuple[str, ...], status: int, said: str
) -> None:
    """One line says what is wrong."""
    result = processes.run("schedule", *arguments, extra=variables)
    assert (result.returncode, result.stdout) == (status, "")
    assert said in result.stderr.splitlines()[-1]


def test_top_once(system: System, call: Call) -> None:
    """It has what runs, what ended within the minute, the last failure, and a pause; also while the API is away."""
    open_gate(system.folder, "worse")
    arguments = ("job:wait", "--operation-id", "worse", "--input", '{"code": "Jam"}', "--url", system.api)
    assert processes.run("run", *arguments).returncode == 1
    assert call("actions", "pause", "job:wait", "--reason", "a look").returncode == 0
    system.kill("api")
    try:
        (job,) = lines(call("top", "--once"))
    finally:
        system.revive()
        assert call("actions", "resume", "job:wait").returncode == 0
    assert job["paused"] is True
    assert (job["action"], job["runners"], job["running"], job["waiting"]) == ("job:wait", 1, 0, [])
    assert 1 <= job["failed"] <= job["requested"]
    failure = job["lastFailure"]
    assert (failure["operationId"], failure["code"], failure["message"]) == ("worse", "Jam", "it \nbroke")
    assert datetime.fromisoformat(failure["at"]) <= datetime.now(UTC)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Child processes handle SIGINT, also when a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_top_on_a_terminal(system: System, call: Call, variables: dict[str, str]) -> None:
    """It is drawn again, says when the broker is away, goes on when it is back, and leaves the terminal as it was."""
    with Terminal("top", "--interval", "0.2", extra=variables, columns=120) as terminal:
        terminal.wait_for("0 running, 0 waiting")
        call("run", "job:wait", "--operation-id", "shown", "--detach")
        terminal.wait_for("1 running, 0 waiting")
        assert "job:wait" in terminal.output
        system.kill(BROKER)
        terminal.wait_for("the broker does not answer, and is asked again")
        system.start(BROKER)
        system.wait_ready(BROKER)
        drawn = len(terminal.output)
        terminal.wait_for_after("1 running, 0 waiting", drawn)
        terminal.send(signal.SIGINT)
        assert terminal.wait(10) == 130
        assert terminal.output.startswith("\x1b[?1049h")
        assert terminal.output.endswith("\x1b[?1049l")
        assert "Traceback" not in terminal.output
    open_gate(system.folder, "shown")


def test_top_without_a_broker() -> None:
    """The first look must succeed: a wrong URL is an error of one line."""
    result = processes.run("top", "--nats", "nats://127.0.0.1:9", "--connect-timeout", "1s")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].startswith("opstream: error: ")
