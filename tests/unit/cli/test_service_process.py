"""What a service imports of the broker's client, how often it looks for garbage, and how it ends before it serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


CAUGHT = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGTERM)
except BaseException:
    pass
"""
"""As a package does that tries an import, and goes on whatever it raises."""


def test_sigterm_while_it_is_imported() -> None:
    """The process ends before it serves, also if what is being imported catches everything."""
    lines = [
        "from opstream.cli.service_process import prepare_process, run_service",
        "prepare_process('info', 'text', 'api')",
        CAUGHT,
        "run_service(lambda: print('it serves'))",
    ]
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr


def test_sigterm_while_actions_are_imported(tmp_path: Path) -> None:
    """So with the author's module."""
    (tmp_path / "late_actions.py").write_text(CAUGHT, encoding="utf-8")
    command = ["runner", "--actions", "late_actions", "--nats", "nats://127.0.0.1:1", "--connect-timeout", "60"]
    ended = subprocess.run(
        [sys.executable, "-m", "opstream", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    assert "defines no action" not in ended.stderr
