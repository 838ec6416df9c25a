"""Modules of actions that do at their import what they should not: each command says so and ends, or goes on."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.support.system.processes import Process, Watch, run

pytestmark = pytest.mark.e2e

READY = r"^opstream is ready: API (\S+), broker (\S+)$"
PORTS = ("--port", "0", "--nats-port", "0")
NO_BROKER = "nats://127.0.0.1:9"
ACTION = """
from opstream import ActionContext, action

@action("fine:act")
def act(request: None, ctx: ActionContext) -> None: ...
"""
THREAD = "import threading, time\nthreading.Thread(target=lambda: time.sleep(1000), name='endless').start()\n"
PROCESS = """import multiprocessing, os, time

def rest():
    os.closerange(0, 3)
    time.sleep(60)

multiprocessing.get_context('fork').Process(target=rest, name='endless').start()
"""
TWICE = f"{ACTION}\n@action('fine:act')\ndef again(request: None, ctx: ActionContext) -> None: ...\n"
COMMANDS = {
    "up": ("up", *PORTS, "--data-dir", "data"),
    "runner": ("runner", "--nats", NO_BROKER),
    "provision": ("provision", "--nats", NO_BROKER),
}


def write(folder: Path, source: str) -> None:
    (folder / "mine.py").write_text(source, encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"{THREAD}import nothere\n", "mine.py:3: the module 'mine' can't be imported: ModuleNotFoundError"),
        (f"{THREAD}{TWICE}", "action fine:act is defined twice: act ("),
        (f"{PROCESS}1 / 0\n", "mine.py:8: the module 'mine' can't be imported: ZeroDivisionError"),
        ("raise KeyboardInterrupt\n", "mine.py:1: the module 'mine' can't be imported: KeyboardInterrupt"),
        (
            "import sys\nprint('half', end='', flush=True)\nsys.stderr.write('half')\n1 / 0\n",
            "mine.py:4: the module 'mine' can't be imported: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_mistake_ends_the_command(workplace: Path, command: str, source: str, said: str) -> None:
    """The reason is one line, and the command ends, whatever thread or process the module has started before."""
    write(workplace, source)
    begin = time.monotonic()
    result = run(*COMMANDS[command], "--actions", "mine", cwd=workplace, timeout=25)
    assert time.monotonic() - begin < 25
    assert result.returncode == 1
    assert f"opstream: error: {said}" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (workplace / "data").exists()


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("import os\nos._exit(7)\n", "exit status 7"),
        ("import os\nos._exit(0)\n", "exit status 0"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "killed by SIGSEGV"),
    ],
)
def test_a_module_that_ends_its_process(workplace: Path, source: str, how: str) -> None:
    """The error names the module, whatever the exit status is."""
    write(workplace, source)
    (workplace / "fine.py").write_text(ACTION, encoding="utf-8")
    result = run(*COMMANDS["up"], "--actions", "fine,mine", cwd=workplace)
    assert result.returncode == 1
    assert result.stderr.startswith(
        f"opstream: error: the process that imports the actions ended while it imported 'mine' ({how})"
    )
    assert result.stderr.count("\n") == 1
    assert not (workplace / "data").exists()


def test_what_it_printed_before_its_end(workplace: Path) -> None:
    """The last lines of a process that ended are those of the module."""
    write(workplace, "import os\nprint('no licence')\nos._exit(7)\n")
    result = run(*COMMANDS["up"], "--actions", "mine", cwd=workplace)
    assert result.stderr.endswith("its last lines:\n  no licence\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_import_that_takes_long(workplace: Path, command: str) -> None:
    """One line says what is being imported, and a signal ends the command."""
    write(workplace, "import time\ntime.sleep(600)\n")
    (workplace / "fine.py").write_text(ACTION, encoding="utf-8")
    with Process(*COMMANDS[command], "--actions", "fine,mine", cwd=workplace) as process:
        process.wait_for("still importing mine")
        watch = Watch(process.descendants())
        process.send(signal.SIGTERM)
        process.wait(10)
        assert watch.left_after(5) == []
        assert re.findall("still importing (.*?)[ :;]", process.output) == ["mine"]


def test_a_thread_of_a_module_that_works(workplace: Path) -> None:
    """Everything starts, with a thread that never ends in each process that imports the module, and stops in time."""
    write(workplace, f"{THREAD}{ACTION}")
    with Process(*COMMANDS["up"], "--actions", "mine", cwd=workplace) as up:
        up.wait_for(READY, 60)
        up.send(signal.SIGTERM)
        assert up.wait(20) == 0
        assert "killed" not in up.output
        assert up.output.count("endless") == 2  # provision and runner name it
