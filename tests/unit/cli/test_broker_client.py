"""Which processes load aiohttp, which nats-py needs for WebSockets only."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
from opstream.cli.app import main
try:
    main(sys.argv[1:])
finally:
    print("loaded" if sys.modules.get("aiohttp") else "not loaded")
"""


@pytest.mark.parametrize(
    ("command", "url", "state"),
    [
        pytest.param(["apikey", "list"], "nats://127.0.0.1:1", "not loaded", id="a command"),
        pytest.param(["projector"], "nats://127.0.0.1:1", "not loaded", id="a service"),
        pytest.param(["runner", "--actions", "bookshelf"], "nats://127.0.0.1:1", "not loaded", id="a runner"),
        pytest.param(["apikey", "list"], "ws://127.0.0.1:1", "loaded", id="over WebSockets"),
    ],
)
def test_aiohttp(command: list[str], url: str, state: str) -> None:
    """It is loaded for a URL that needs it; else the process begins in less time and memory."""
    arguments = [*command, "--nats", url, "--connect-timeout", "0.1"]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.splitlines() or [done.stderr])[-1] == state
    assert done.returncode == 1
