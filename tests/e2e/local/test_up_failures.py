"""`opstream up` that can't go on ends by itself: with status 1, the reason once, and no child left."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.system.echo_actions import MODULE
from tests.support.system.processes import Process, Watch

pytestmark = pytest.mark.e2e

END: Final = 20.0
"""Seconds in which it has to end after what went wrong."""
PORTS: Final = ("--port", "0", "--nats-port", "0")
PLANT: Final = """
import inspect
from opstream.cli.app import main
from opstream.local.broker_disk import BrokerDisk
from opstream.local.processes import ChildProcess
from opstream.local.supervisor import Supervisor
from opstream.terminal.console import CommandError

def fail(*_, **__):
    raise {error}

async def fail_later(*_, **__):
    raise {error}

{place} = fail_later if inspect.iscoroutinefunction({place}) else fail
main()
"""
"""A command with a fault: every call of one function raises."""


@pytest.mark.parametrize("folder", ["/proc/x", "file/x"])
def test_a_data_folder_that_can_not_be_made(workplace: Path, folder: str) -> None:
    """The reason is one line, said once, and the next step is in it."""
    (workplace / "file").write_text("no folder", encoding="utf-8")
    with Process("up", *PORTS, "--data-dir", folder, "--actions", MODULE, cwd=workplace) as up:
        assert up.wait(END) == 1
    assert "Traceback" not in up.output
    assert up.output.count("can't write to") == 1
    last = up.output.splitlines()[-1]
    assert last.startswith("opstream: error: the broker ended unexpectedly (exit status 1): can't write to ")
    assert last.endswith(": choose another folder with --data-dir")


def test_a_folder_in_use(workplace: Path) -> None:
    """A second system in one folder says so once, and the first one goes on."""
    options = ("up", *PORTS, "--data-dir", "data", "--actions", MODULE)
    with Process(*options, cwd=workplace) as first:
        first.wait_for("^opstream is ready")
        with Process(*options, cwd=workplace) as second:
            assert second.wait(END) == 1
        assert second.output.count("another broker uses") == 1
        assert second.output.splitlines()[-1].startswith("opstream: error: the broker ended unexpectedly")
        assert first.is_running


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("Supervisor._start_broker", "KeyError('planted')"),  # the task that starts the children
        ("Supervisor._print_child_line", "KeyError('planted')"),  # a task that reads output
        ("BrokerDisk.read_line", "KeyError('planted')"),
        ("BrokerDisk.wait_full", "KeyError('planted')"),  # the task that looks after the disk
        ("BrokerDisk.wait_full", "CommandError('planted')"),
    ],
)
def test_a_fault_while_it_starts(workplace: Path, place: str, error: str) -> None:
    """An exception in any task ends the command with the reason, and stops the children."""
    options = ("up", *PORTS, "--data-dir", "data", "--actions", MODULE)
    command = (sys.executable, "-P", "-c", PLANT.format(place=place, error=error))
    with Process(*options, cwd=workplace, command=command) as up:
        assert up.wait(END) == 1
        assert up.descendants() == {}
    assert "planted" in up.output.splitlines()[-1]
    assert up.output.splitlines()[-1].startswith("opstream: error: ")


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("BrokerDisk.explains", signal.SIGKILL),  # called when a child has ended
        ("Supervisor._stop", signal.SIGTERM),
        ("ChildProcess.stop", signal.SIGTERM),
    ],
)
def test_a_fault_while_it_runs(workplace: Path, place: str, number: signal.Signals) -> None:
    """An exception in a callback, or in the stop, ends the command as well."""
    options = ("up", *PORTS, "--data-dir", "data", "--actions", MODULE)
    command = (sys.executable, "-P", "-c", PLANT.format(place=place, error="KeyError('planted')"))
    with Process(*options, cwd=workplace, command=command) as up:
        up.wait_for("^opstream is ready")
        watch = Watch(up.descendants())
        if number is signal.SIGKILL:
            os.kill(up.child("-m opstream runner"), number)
        else:
            up.send(number)
        assert up.wait(END) == 1
        assert watch.left_after(5) == []
    assert "planted" in up.output.splitlines()[-1]
    assert up.output.splitlines()[-1].startswith("opstream: error: ")
