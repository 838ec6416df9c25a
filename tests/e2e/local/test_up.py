"""`opstream up`: the whole system under one supervisor, as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import nats
import pytest

from opstream_index.sqlite_store import SqliteReader
from tests.support.broker.server import free_port
from tests.support.system.echo_actions import MODULE, poll, submit
from tests.support.system.processes import Process, Watch, run
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

READY = r"^opstream is ready: API (\S+), broker (\S+)$"
STOP = 10.0
"""Seconds that a stop may take."""


def start_up(workplace: Path, *options: str) -> Process:
    ports = ("--port", "0", "--nats-port", "0")
    return Process("up", *ports, "--data-dir", "data", "--actions", MODULE, *options, cwd=workplace)


@pytest.fixture
def up(workplace: Path) -> Iterator[Process]:
    """A system that is ready."""
    with start_up(workplace) as up:
        up.wait_for(READY)
        yield up


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


def status_rows(reader: SqliteReader) -> list[tuple[str, str]]:
    """Ids and statuses of the operations in the index."""
    return [(one, status) for one, status in reader.fetch("SELECT id, status FROM operation")]


def test_runs_stops_and_remembers(workplace: Path, http: httpx.Client) -> None:
    """It is ready with one line, an operation succeeds, and SIGTERM ends everything in time with status 0. The
    index has the operation, and 'opstream list' shows it. After a restart with
    another limit it is known."""
    with start_up(workplace) as up:
        api = up.wait_for(READY)[1]
        docs = up.wait_for(r"^Look at \S+/console in a browser, or at (\S+); Ctrl-C stops everything$")[1]
        assert "openapi.json" in http.get(docs).text
        kinds = http.get(f"{api}/openapi.json").json()["paths"]
        assert any(path.endswith("echo:say") for path in kinds)
        operation_id = submit(http, api, "say")
        before = poll(http, api, operation_id)
        assert (before["status"], before["result"]) == ("Succeeded", {"text": "hello"})
        reader = SqliteReader(str(workplace / "data" / "index.db"))
        asyncio.run(eventually(lambda: status_rows(reader) == [(operation_id, "Succeeded")]))
        reader.close()
        listed = {"filter": "kind eq 'echo:say' and status eq 'Succeeded'"}
        asyncio.run(eventually(lambda: http.get(f"{api}/status", params=listed).status_code == 200))
        rows = run("list", "--action", "echo:say", "--url", api, cwd=workplace).stdout
        assert [json.loads(line)["id"] for line in rows.splitlines()] == [operation_id]
        children = up.descendants()
        assert len(children) == 3
        watch = Watch(children)
        begin = time.monotonic()
        up.send(signal.SIGTERM)
        assert up.wait(STOP) == 0
        assert time.monotonic() - begin < STOP
        assert watch.left_after(0) == []
        assert "killed" not in up.output
    with start_up(workplace, "--max-body", "1MiB") as up:
        api = up.wait_for(READY)[1]
        assert "made" not in up.output
        assert http.get(f"{api}/status/{operation_id}").json() == before
        ports = ("--port", "0", "--nats-port", "0")
        other = run("up", "--actions", MODULE, *ports, "--data-dir", "data", cwd=workplace)
        assert other.returncode == 1
        assert "another broker uses" in other.stderr
        assert "--data-dir" in other.stderr


@pytest.mark.parametrize("options", [(), ("--processes",)])
def test_ctrl_c_stops_in_order(workplace: Path, options: tuple[str, ...]) -> None:
    """SIGINT reaches only the supervisor, which stops api, runner, projector, webhooks and broker; the status is 0.
    With --processes each of them is a process."""
    with start_up(workplace, *options) as up:
        up.wait_for(READY)
        found = {re.search(r"-m opstream (\S+)|nats-server", line)[1] or "broker" for line in up.descendants().values()}
        apart = {"api", "projector", "webhooks"} if options else {"hub"}
        assert found == {"broker", "runner", *apart}
        up.send(signal.SIGINT)
        assert up.wait(STOP) == 0
    assert "stopping api, runner, projector, webhooks, broker" in up.output
    assert "running actions have 10 s to end; a second Ctrl-C kills them" in up.output
    assert "Traceback" not in up.output
    assert up.output.index("received SIGTERM: no more") < up.output.index(".runtime.service: stopping")


def test_a_second_ctrl_c_kills(up: Process, http: httpx.Client) -> None:
    """With an action that does not stop, the second SIGINT ends everything at once, with status 1."""
    submit(http, up.wait_for(READY)[1], "block")
    up.wait_for("blocking")
    watch = Watch(up.descendants())
    up.send(signal.SIGINT)
    up.wait_for("stopping api, runner")
    begin = time.monotonic()
    up.send(signal.SIGINT)
    assert up.wait(2) == 1
    assert time.monotonic() - begin < 2
    assert watch.left_after(0) == []


def test_a_stubborn_action_is_killed_in_time(workplace: Path, http: httpx.Client) -> None:
    """One SIGTERM is enough within 10 seconds and the drain, also while an action holds its thread; the status is 0."""
    with start_up(workplace, "--drain", "0") as up:
        submit(http, up.wait_for(READY)[1], "block")
        up.wait_for("blocking")
        watch = Watch(up.descendants())
        up.send(signal.SIGTERM)
        assert up.wait(STOP) == 0
        assert watch.left_after(0) == []


def test_running_actions_may_end(workplace: Path, http: httpx.Client) -> None:
    """After SIGTERM the runner has its drain, in addition to the time after which it is killed without. Nothing new is
    accepted meanwhile, and the projector works on."""
    with start_up(workplace, "--drain", "30") as up:
        api = up.wait_for(READY)[1]
        operation_id = submit(http, api, "nap")
        up.wait_for("napping")
        up.send(signal.SIGTERM)
        up.wait_for("received SIGTERM: no more attempts start")
        with pytest.raises(httpx.ConnectError):  # the API stops first
            http.get(api)
        assert up.wait(30) == 0
        assert "was killed" not in up.output
        assert re.search(r"no more attempts start(.*\n)+projector +\| .* stopping", up.output)
    with start_up(workplace) as up:
        monitor = poll(http, up.wait_for(READY)[1], operation_id)
        assert (monitor["status"], monitor["attempt"]) == ("Succeeded", 1)


@pytest.mark.parametrize(("name", "command"), [("broker", "nats-server"), ("runner", "-m opstream runner")])
def test_a_child_that_dies(up: Process, name: str, command: str) -> None:
    """`up` says which child died and how, stops the others, and exits with 1."""
    watch = Watch(up.descendants())
    os.kill(up.child(command), signal.SIGKILL)
    assert up.wait(STOP) == 1
    assert f"opstream: error: the {name} ended unexpectedly (killed by SIGKILL)" in up.output
    assert watch.left_after(0) == []


def test_a_killed_supervisor_leaves_nothing(up: Process) -> None:
    """SIGKILL of the supervisor ends its children, too."""
    watch = Watch(up.descendants())
    up.send(signal.SIGKILL)
    assert up.wait(5) == -signal.SIGKILL
    assert watch.left_after(5) == []


@pytest.mark.parametrize("option", ["--port", "--nats-port"])
def test_a_port_in_use(listener: socket.socket, workplace: Path, option: str) -> None:
    """The error is one line that names the option, before anything has started."""
    port = listener.getsockname()[1]
    ports = {"--port": "0", "--nats-port": "0", option: str(port)}
    options = [part for pair in ports.items() for part in pair]
    result = run("up", "--actions", MODULE, *options, "--data-dir", "data", cwd=workplace)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"opstream: error: port {port} on 127.0.0.1 is in use: ")
    assert result.stderr.endswith(f" with {option}\n")
    assert not (workplace / "data").exists()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "there is no module 'mine': check --actions and PYTHONPATH"),
        ("price = 1 / 0\n", "mine.py:1: the module 'mine' can't be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_actions_that_can_not_be_imported(workplace: Path, source: str | None, said: str) -> None:
    """A mistake in the actions is one line of error, before anything has started."""
    if source is not None:
        (workplace / "mine.py").write_text(source, encoding="utf-8")
    ports = ("--port", "0", "--nats-port", "0")
    result = run("up", *ports, "--data-dir", "data", "--actions", "mine", cwd=workplace)
    assert result.returncode == 1
    assert result.stderr == f"opstream: error: {said}\n"
    assert "starting" not in result.stdout
    assert not (workplace / "data").exists()


def test_provisioning_that_fails(workplace: Path) -> None:
    """The reason is printed once, as the error of the command."""
    port = free_port()
    options = ("--port", "0", "--nats-port", str(port), "--data-dir", "data", "--actions", MODULE)
    with Process("up", *options, cwd=workplace) as up:
        up.wait_for(READY)
        asyncio.run(_take_over(f"nats://127.0.0.1:{port}"))
    result = run("up", *options, cwd=workplace)
    assert result.returncode == 1
    assert (result.stdout + result.stderr).count("another application's") == 1


async def _take_over(url: str) -> None:
    """Put a stream of another application in place of one of ours."""
    client = await nats.connect(url)
    jetstream = client.jetstream()
    await jetstream.delete_stream("ACCESS_LOG")
    await jetstream.add_stream(name="ACCESS_LOG", subjects=["doors.>"])
    await client.close()
