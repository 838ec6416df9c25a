"""`opstream up` and what an author's code leaves behind: processes that hold the output of the runner, and threads."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.system.echo_actions import poll
from tests.support.system.processes import Process, Watch

pytestmark = pytest.mark.e2e

READY = r"^opstream is ready: API (\S+), broker (\S+)$"
PORTS = ("--port", "0", "--nats-port", "0")
SECONDS = 300
"""How long a process that is left behind runs, unless the test ends it."""
SOURCE = f"""
import multiprocessing, os, subprocess, time
from opstream import ActionContext, action

@action("left:spawn")
def spawn(request: bool, ctx: ActionContext) -> int:
    return subprocess.Popen(["sleep", "{SECONDS}"], start_new_session=request).pid

@action("left:fork")
def fork(request: None, ctx: ActionContext) -> int:
    pid = os.fork()
    if pid == 0:
        os.execvp("sleep", ["sleep", "{SECONDS}"])
    return pid

@action("left:worker")
def worker(request: None, ctx: ActionContext) -> int:
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=({SECONDS},))
    process.start()
    return process.pid

@action("left:end", max_attempts=1)
def end(request: None, ctx: ActionContext) -> None:
    os._exit(3)
"""


@pytest.fixture
def up(workplace: Path) -> Iterator[Process]:
    """A system that is ready, whose actions leave processes behind."""
    (workplace / "left.py").write_text(SOURCE, encoding="utf-8")
    with Process("up", *PORTS, "--data-dir", "data", "--actions", "left", cwd=workplace) as up:
        up.wait_for(READY)
        yield up


@pytest.fixture
def pids() -> Iterator[list[int]]:
    """Processes to end after the test, in whatever state it leaves them."""
    found: list[int] = []
    yield found
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def leave(http: httpx.Client, api: str, name: str, body: str, pids: list[int]) -> int:
    """Run an action that leaves a process behind; return its pid."""
    headers = {"content-type": "application/json"}
    response = http.post(f"{api}/left/x:{name}", content=body, headers=headers)
    assert response.status_code == 202, response.text
    monitor = poll(http, api, response.json()["id"])
    assert monitor["status"] == "Succeeded", monitor
    pids.append(monitor["result"])
    return pids[-1]


@pytest.mark.parametrize(
    ("name", "body"), [("spawn", "true"), ("spawn", "false"), ("fork", "null"), ("worker", "null")]
)
def test_a_process_that_a_handler_left(up: Process, http: httpx.Client, pids: list[int], name: str, body: str) -> None:
    """A stop waits for the end of each process of the system, not for that of others that hold its output. What was
    left behind is named, and lives on."""
    pid = leave(http, up.wait_for(READY)[1], name, body, pids)
    watch = Watch([pid])
    begin = time.monotonic()
    up.send(signal.SIGTERM)
    assert up.wait(30) == 0
    assert time.monotonic() - begin < 7.5  # it took 8 s for the runner alone
    assert "killed" not in up.output
    assert re.search(rf"the runner has ended, and what it started still runs: .*\(pid {pid}\)", up.output)
    assert watch.left_after(0) == [pid]


def test_a_runner_that_dies_and_leaves_a_process(up: Process, http: httpx.Client, pids: list[int]) -> None:
    """The end of the runner is noticed at once, and everything else is stopped."""
    api = up.wait_for(READY)[1]
    leave(http, api, "spawn", "true", pids)
    http.post(f"{api}/left/x:end", content="null", headers={"content-type": "application/json"})
    assert up.wait(20) == 1
    assert "opstream: error: the runner ended unexpectedly (exit status 3)" in up.output
    assert "killed" not in up.output


def test_a_second_signal_with_a_process_left_behind(up: Process, http: httpx.Client, pids: list[int]) -> None:
    """It ends everything at once, whatever holds the output."""
    leave(http, up.wait_for(READY)[1], "spawn", "true", pids)
    up.send(signal.SIGTERM)
    up.wait_for("stopping api, runner")
    begin = time.monotonic()
    up.send(signal.SIGTERM)
    up.wait(20)
    assert time.monotonic() - begin < 3
