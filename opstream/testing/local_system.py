"""A whole opstream for a test: what `opstream up` starts, on free ports, with a folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from opstream.client import OperationsClient
from opstream.local.processes import SUPERVISOR_VARIABLE

from .errors import StartFailed

_READY: Final = re.compile(r"opstream is ready: API (\S+), broker (\S+)")
_OUR_VARIABLES: Final = "OPSTREAM_"
_START_TIMEOUT: Final = 90.0
"""Seconds; `opstream up` itself gives up after a minute."""
_STOP_TIMEOUT: Final = 20.0
_SHOWN_LINES: Final = 40


class LocalSystem:
    """An opstream that runs: broker, API, projector, webhooks, and a runner with some actions.

    Attributes:
        url: of its API.
        broker_url: of its broker, for subscribers.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.url = ""
        self.broker_url = ""
        self._process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._is_over = False
        self._reader = threading.Thread(target=self._read, name="output of opstream up", daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What its processes have printed so far: their logs."""
        with self._changed:
            return "".join(self._lines)

    def client(self) -> OperationsClient:
        """Make a client of its API. Close it, or use it in `with`."""
        return OperationsClient(self.url)

    def wait_ready(self) -> None:
        """Wait until everything is ready.

        Raises:
            StartFailed: it ended before, or took too long; the message has the last lines of its output.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or bool(self.url), _START_TIMEOUT)
            if not self.url:
                why = "ended" if self._is_over else f"was not ready within {_START_TIMEOUT:g} s"
                last = "".join(self._lines[-_SHOWN_LINES:])
                raise StartFailed(f"opstream {why}; its last lines say why:\n{last}")

    def stop(self) -> None:
        """Stop everything in order, and kill what does not stop within 20 seconds."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel kills its children with it
            self._process.wait()
        self._reader.join(_STOP_TIMEOUT)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._changed:
                self._lines.append(line)
                if found := _READY.search(line):
                    self.url, self.broker_url = found.groups()
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


@contextlib.contextmanager
def serving(*modules: str, data_dir: Path | str | None = None, options: tuple[str, ...] = ()) -> Iterator[LocalSystem]:
    """Run a whole opstream for as long as the block takes. It starts within some seconds.

        with serving("shop.orders") as opstream, opstream.client() as client:
            operation = client.submit("order/7:pay", {"amount": 12})
            assert client.result(operation) == "charge-7"

    Its processes find modules where this one does (`sys.path`). Of the environment, variables that begin with
    `OPSTREAM_` do not count. Tests that run in parallel each have their own.

    Args:
        modules: import paths of modules with actions.
        data_dir: where it stores everything; None for a folder that is removed afterwards.
        options: further options of `opstream up`, e.g. `("--auth", "apikey")`.

    Raises:
        StartFailed: it does not start; the message has its output.
    """
    if not modules:
        raise StartFailed("serving() needs the import paths of the modules with your actions: serving('shop.orders')")
    with contextlib.ExitStack() as stack:
        folder = data_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="opstream-"))
        ports = ("--port", "0", "--nats-port", "0", "--health-port", "0")
        actions = (part for module in modules for part in ("--actions", module))
        process = subprocess.Popen(  # noqa: S603 - our own command
            (sys.executable, "-P", "-m", "opstream", "up", *ports, "--data-dir", str(folder), *actions, *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(),
            start_new_session=True,  # a Ctrl-C is for the tests, which then stop it
        )
        system = LocalSystem(process)
        stack.callback(system.stop)
        system.wait_ready()
        yield system


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OUR_VARIABLES)}
    return inherited | {
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "PYTHONUNBUFFERED": "1",
        SUPERVISOR_VARIABLE: str(os.getpid()),
    }
