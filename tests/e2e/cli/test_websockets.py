"""A broker that is reached over WebSockets, for which nats-py needs aiohttp."""

from __future__ import annotations

import pytest

from tests.support.broker.server import Broker, free_port
from tests.support.system.processes import run

pytestmark = pytest.mark.e2e


def test_a_command_over_websockets() -> None:
    """aiohttp, which no process loads before, is loaded then."""
    port = free_port()
    with Broker(extra=f"websocket {{ listen: '127.0.0.1:{port}', no_tls: true }}"):
        done = run("provision", "--nats", f"ws://127.0.0.1:{port}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "consumer webhooks" in done.stdout
