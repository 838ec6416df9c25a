"""`opstream up` on a disk that is filled, and freed again."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.support.azure.gate import FileGate
from tests.support.broker.small_disk import MEBIBYTE, no_small_disk, small_disk
from tests.support.system.echo_actions import MODULE, poll, submit
from tests.support.system.processes import Process

pytestmark = pytest.mark.e2e

READY = r"^opstream is ready: API (\S+), broker (\S+)$"
GATE = """

import sys
from pathlib import Path

gate = Path("gate")
if "runner" in sys.argv and gate.exists():
    gate.read_text()  # a named pipe: until the test has written to it
"""


def test_a_full_disk_that_is_freed(workplace: Path, http: httpx.Client) -> None:
    """On a full disk a submit is refused, and the output says what to do. With room again, the broker is restarted by
    itself, and everything goes on; what was accepted before is there."""
    if reason := no_small_disk():
        pytest.skip(reason)
    with small_disk(workplace / "data", 48 * MEBIBYTE) as disk:
        ports = ("--port", "0", "--nats-port", "0")
        with Process("up", *ports, "--data-dir", "data", "--actions", MODULE, cwd=workplace) as up:
            api = up.wait_for(READY)[1]
            before = submit(http, api, "say")
            assert poll(http, api, before)["status"] == "Succeeded"
            disk.fill()
            refused = http.post(f"{api}/echo:say", json={"text": "x" * 100_000}, timeout=30)
            assert refused.status_code == 503
            up.wait_for(r"opstream +\| the disk of the broker is full: nothing can be stored")
            text = _readyz_until(http, api, 503)
            assert "stores nothing in OPERATIONS" in text
            assert "free space on the disk of the broker" in text
            disk.free()
            up.wait_for(r"opstream +\| the disk of the broker has room again: restarting the broker", timeout=30)
            up.wait_for(r"opstream +\| starting the broker", timeout=30)
            after = _submit_until_accepted(http, api)
            assert poll(http, api, after)["status"] == "Succeeded"
            assert poll(http, api, before)["status"] == "Succeeded"
            _readyz_until(http, api, 200)
            assert not re.search(r"ended unexpectedly", up.output)


@pytest.mark.parametrize("moment", ["before the first start", "before a later start", "while services start"])
def test_a_start_on_a_full_disk(workplace: Path, http: httpx.Client, moment: str) -> None:
    """While the disk is full nothing is said to be ready, and what ends for that is started again once there is
    room."""
    if reason := no_small_disk():
        pytest.skip(reason)
    command = ("up", "--port", "0", "--nats-port", "0", "--data-dir", "data", "--actions", MODULE)
    with (workplace / f"{MODULE}.py").open("a", encoding="utf-8") as module:
        module.write(GATE)
    with small_disk(workplace / "data", 48 * MEBIBYTE) as disk:
        if moment == "before a later start":
            with Process(*command, cwd=workplace) as up:
                submit(http, up.wait_for(READY)[1], "say")
                up.send(signal.SIGTERM)
                assert up.wait(30) == 0
        if moment != "while services start":
            disk.fill(leave=MEBIBYTE // 8)
        # A runner that starts faster than the disk is filled would have stored all that it needs.
        gate = FileGate(workplace / "gate") if moment == "while services start" else None
        with Process(*command, cwd=workplace) as up:
            if gate is not None:
                up.wait_for(r"opstream +\| starting api", timeout=60)
                disk.fill()
                asyncio.run(gate.open())
                gate.path.unlink()  # the next runner need not wait
                # The runner can't announce its actions, and ends.
                up.wait_for(r"the runner ended, since nothing can be stored; it is started again", timeout=60)
            up.wait_for(r"opstream +\| the disk of the broker is full: nothing can be stored", timeout=60)
            disk.free()
            up.wait_for(r"opstream +\| the disk of the broker has room again: restarting the broker", timeout=30)
            assert "opstream is ready" not in up.output
            api = up.wait_for(READY, timeout=90)[1]
            assert poll(http, api, _submit_until_accepted(http, api))["status"] == "Succeeded"
            assert "ended unexpectedly" not in up.output
            up.send(signal.SIGTERM)
            assert up.wait(30) == 0


def _readyz_until(http: httpx.Client, api: str, status: int) -> str:
    until = time.monotonic() + 40
    while True:
        response = http.get(f"{api}/readyz", timeout=30)
        if response.status_code == status:
            return response.text
        assert time.monotonic() < until, response.text
        time.sleep(0.2)


def _submit_until_accepted(http: httpx.Client, api: str) -> str:
    for _ in range(30):
        response = http.post(f"{api}/echo:say", json={"text": "hello"}, timeout=30)
        if response.status_code == 202:
            return response.headers["Operation-Id"]
    raise AssertionError(f"not accepted: {response.text}")
