"""What every service begins and ends with. Called by `cli` and `webhooking`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from opstream.terminal import logs
from opstream.terminal.console import CommandError


def prepare_process(log_level: str) -> None:
    """What every service begins with: logs, crash points, an end on SIGTERM."""
    # Until the service handles it itself, SIGTERM ends what has not begun yet: while modules are loaded, for one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logs.configure(log_level)
    from opstream_journal.runtime import crash_points as crash

    try:
        crash.arm(os.environ.get(crash.CRASH_VARIABLE, ""))
    except ValueError as error:
        raise CommandError(f"{crash.CRASH_VARIABLE}: {error}") from error


def run_service(run: Callable[[], None]) -> None:
    """Run a service to its end; what it raises becomes one line."""
    from opstream_journal import JournalError
    from opstream_runner import InvalidAction

    # What is loaded by now stays. Unfrozen, each full garbage collection would walk through it: tens of milliseconds.
    gc.collect()
    gc.freeze()
    try:
        run()
    except (JournalError, InvalidAction) as error:
        raise CommandError(str(error)) from error


def allow_local_modules() -> None:
    """Let --actions find modules of the working directory, which only `python -m` would put on the path."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
