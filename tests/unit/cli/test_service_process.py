"""What a service imports of the broker's client."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

PROGRAM = """
import sys
from opstream.cli import service_process

def say_what_is_loaded(*_args, **_options):
    print("nats" in sys.modules, "aiohttp" in sys.modules)

service_process.run_service = say_what_is_loaded
from opstream.cli.app import main
main(sys.argv[1:], standalone_mode=False)
"""


@pytest.mark.parametrize("service", ["api", "projector", "webhooks", "hub"])
@pytest.mark.parametrize(("server", "is_loaded"), [("nats://127.0.0.1:4222", False), ("wss://127.0.0.1:443", True)])
def test_aiohttp_is_loaded_for_websockets_only(service: str, server: str, is_loaded: bool) -> None:
    """nats-py would import it wherever it is installed: 7 MiB in each process."""
    command = [sys.executable, "-c", PROGRAM, service, "--nats", server]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["True", str(is_loaded)], ended.stderr


def test_actions_can_use_aiohttp() -> None:
    """A runner runs others' code, which may use nats-py over WebSockets."""
    command = [sys.executable, "-c", PROGRAM, "runner", "--nats", "nats://127.0.0.1:4222", "--actions", "bookshelf"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["True", "True"], ended.stderr
