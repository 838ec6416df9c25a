"""What a service imports of the broker's client, and how often it looks for garbage."""

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


@pytest.mark.parametrize("service", ["api", "projector", "webhooks", "hub", "runner"])
def test_aiohttp_is_not_loaded(service: str) -> None:
    """nats-py would import it wherever it is installed: 7 MiB in each process, and a third of what it imports."""
    actions = ["--actions", "bookshelf"] if service == "runner" else []
    command = [sys.executable, "-c", PROGRAM, service, "--nats", "nats://127.0.0.1:4222", *actions]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["True", "False"], ended.stderr


def test_garbage_is_looked_for_seldom() -> None:
    """Under load the objects of a hundred attempts are young, and looking through them is a fifth of the work."""
    said = "import gc; from opstream.cli.service_process import run_service"
    program = f"{said}; run_service(lambda: print(gc.get_threshold()))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "(10000, 10, 10)\n"
