"""`opstream up` on a disk that is filled, and freed again."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest

from tests.support.broker.small_disk import MEBIBYTE, no_small_disk, small_disk
from tests.support.system.echo_actions import MODULE, poll, submit
from tests.support.system.processes import Process

pytestmark = pytest.mark.e2e

READY = r"^opstream is ready: API (\S+), broker (\S+)$"


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
