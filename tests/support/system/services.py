"""The whole system as in production: separate processes, each on its own port, with any number of replicas.

    with ExitStack() as stack:
        system = System(folder, stack, "echoes", replicas=2)
        system.begin()
        system.kill("runner-2")
        system.start("runner-2")
        system.wait_ready("runner-2")

A test can kill each process and start it again, the broker on the same data.
"""

from __future__ import annotations

import re
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx

from tests.support.broker.server import free_port
from tests.support.system.processes import Process, run

BROKER: Final = "broker"
SERVICES: Final = ("api", "projector", "runner")
_TROUBLE: Final = re.compile(r"^\S+ (?:ERROR|CRITICAL) |^Traceback", re.MULTILINE)
_READY: Final = 30.0
_POLL: Final = 0.05


class System:
    """All processes by name: `broker`, `api`, `api-2`, …, `projector`, …, `runner`, ….

    Args:
        folder: their working directory, with the module of actions in it.
        stack: ends the processes that still run.
        actions: the name of that module.
        replicas: of each service.
    """

    def __init__(self, folder: Path, stack: ExitStack, actions: str, *, replicas: int = 1) -> None:
        self.folder = folder
        self.processes: dict[str, Process] = {}
        """The last run of each."""
        self.runs: list[tuple[str, Process]] = []
        """All runs so far."""
        self.names = [f"{name}-{n}" if n > 1 else name for name in SERVICES for n in range(1, replicas + 1)]
        self._actions = actions
        self._stack = stack
        self._ports = {name: free_port() for name in (BROKER, *self.names)}
        self._http = stack.enter_context(httpx.Client(trust_env=False, timeout=10))

    @property
    def nats(self) -> str:
        """The broker's URL."""
        return f"nats://127.0.0.1:{self._ports[BROKER]}"

    @property
    def apis(self) -> list[str]:
        """Base URLs of all replicas of the API."""
        return [self.url(name) for name in self.names if name.startswith("api")]

    @property
    def api(self) -> str:
        """Base URL of the first replica of the API."""
        return self.apis[0]

    def url(self, name: str) -> str:
        """Base URL of a service; only the API serves more than its health."""
        return f"http://127.0.0.1:{self._ports[name]}"

    def port(self, name: str) -> int:
        """The service's port."""
        return self._ports[name]

    def add(self, *names: str) -> None:
        """Add replicas of services, e.g. `projector-2`; they start with the others."""
        self.names += names
        self._ports |= {name: free_port() for name in names}

    def begin(self) -> str:
        """Start all processes, and wait until they are ready; return the output of `opstream provision`."""
        self.start(BROKER)
        self.wait_ready(BROKER)
        provisioned = run("provision", "--nats", self.nats, "--actions", self._actions, cwd=self.folder)
        assert (provisioned.returncode, provisioned.stderr) == (0, "")
        for name in self.names:
            self.start(name)
        self.wait_ready(*self.names)
        return provisioned.stdout

    def start(self, name: str) -> Process:
        """Start a process."""
        process = self._stack.enter_context(Process(*self._command(name), cwd=self.folder))
        self.processes[name] = process
        self.runs.append((name, process))
        return process

    def kill(self, name: str) -> None:
        """Send SIGKILL to a process, and wait until it has ended."""
        self.processes[name].send(signal.SIGKILL)
        assert self.processes[name].wait(5) == -signal.SIGKILL, self.processes[name].output

    def revive(self) -> None:
        """Start the processes that do not run, e.g. after a failed test, and wait until all are ready."""
        for name in (BROKER, *self.names):
            if not self.processes[name].is_running:
                self.start(name)
        self.wait_ready(BROKER, *self.names)

    def freeze(self, name: str) -> None:
        """Send SIGSTOP to a process: it keeps its connections and does not respond."""
        self.processes[name].send(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Send SIGCONT to a process."""
        self.processes[name].send(signal.SIGCONT)

    def complaints(self) -> list[str]:
        """Errors in the logs of services, and unexpected ends of processes, in all runs so far."""
        found = []
        for name, process in self.runs:
            if not process.is_running and process.wait(5) != -signal.SIGKILL:
                found.append(f"{name} ended by itself: {process.output}")
            elif name != BROKER and _TROUBLE.search(process.output):
                found.append(f"{name} complains: {process.output}")
        return found

    def wait_ready(self, *names: str) -> None:
        """Wait until the broker accepts connections, and services respond to /readyz with 200."""
        until = time.monotonic() + _READY
        for name in names:
            process = self.processes[name]
            if name == BROKER:
                process.wait_for("Server is ready", _READY)
                continue
            while not self._is_ready(name):
                assert process.is_running, process.output
                assert time.monotonic() < until, process.output
                time.sleep(_POLL)

    def _is_ready(self, name: str) -> bool:
        try:
            return self._http.get(f"{self.url(name)}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _command(self, name: str) -> tuple[str, ...]:
        port, nats = str(self._ports[name]), ("--nats", self.nats)
        match name.partition("-")[0]:
            case "broker":
                return ("broker", "--nats-port", port, "--data-dir", "data")
            case "api":
                return ("api", *nats, "--port", port)
            case "projector":
                return ("projector", *nats, "--health-port", port)
            case _:
                return ("runner", *nats, "--health-port", port, "--actions", self._actions)
