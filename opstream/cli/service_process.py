"""How the process of a service begins and ends: logs, crash points, SIGTERM, errors in one line."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from opstream.terminal import logs
from opstream.terminal.console import CommandError

_YOUNG_OBJECTS: Final = 10_000
"""Containers that were made and not freed, after which Python looks for cycles among them. With its own 700 a runner
under load looks 150 times a second through what its hundred attempts hold: a fifth of its processor time."""


def prepare_process(log_level: str, log_format: str, service: str) -> None:
    """Configure logs, crash points and SIGTERM. Call it before the service is imported, which takes a while.

    Args:
        log_level: see `logs.configure`.
        log_format: as above.
        service: the name of the service, or of the command, in lines of JSON.
    """
    # Until the service installs its own handler, SIGTERM ends the process, also while modules are loaded.
    signal.signal(signal.SIGTERM, stop_handler)
    logs.configure(log_level, log_format, service=service)
    from opstream_journal.runtime import crash_points

    try:
        crash_points.arm(os.environ.get(crash_points.CRASH_VARIABLE, ""))
    except ValueError as error:
        raise CommandError(f"{crash_points.CRASH_VARIABLE}: {error}") from error


class StoppedBySignal(SystemExit):
    """The process was asked to stop before it served.

    Attributes:
        is_signal: distinguishes it from an exit of a module that is being imported.
    """

    is_signal = True


class StopHandler:
    """What SIGTERM does before a service serves: it ends the process.

    Attributes:
        was_asked: stays True if what was being imported has caught that. Then the handler is to be called again.
    """

    was_asked = False

    def __call__(self, *_: object) -> None:
        """End the process.

        Raises:
            StoppedBySignal: always.
        """
        self.was_asked = True
        raise StoppedBySignal(0)


stop_handler: Final = StopHandler()


def run_service(run: Callable[[], None], *, known: tuple[type[Exception], ...] = ()) -> None:
    """Run a service until it ends.

    Args:
        run: the service.
        known: errors besides those of the journal that say in their text what is wrong and what to do.

    Raises:
        CommandError: the service can't do its job; the message says why and what to do.
        StoppedBySignal: SIGTERM came before.
    """
    from opstream_journal import JournalError

    expected: tuple[type[Exception], ...] = (JournalError, *known)
    settle_memory()
    if stop_handler.was_asked:
        stop_handler()
    try:
        run()
    except expected as error:
        raise CommandError(str(error)) from error


def settle_memory() -> None:
    """Take what is loaded by now as it is. Call it once, between the imports and the work."""
    gc.collect()
    # Unfrozen, each full garbage collection would traverse what stays anyway: tens of milliseconds.
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    # What compiling and importing took meanwhile goes back to the system: 1 to 5 MiB. Only glibc keeps it.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def allow_local_modules() -> None:
    """Let --actions find modules in the working directory, which only `python -m` would put on the path."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
