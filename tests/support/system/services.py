"""The whole system as production has it: each process by itself, on ports of its own, any number of replicas.

    with ExitStack() as stack:
        system = System(folder, stack, "echoes", replicas=2)
        system.begin()
        system.kill("runner-2")
        system.start("runner-2")
        system.wait_ready("runner-2")

Any of them may be killed and started again, the broker on the same data. Callers: `tests/e2e`.
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
        stack: ends what still runs.
        actions: that module.
        replicas: of each service.
    """

    def __init__(self, folder: Path, stack: ExitStack, actions: str, *, replicas: int = 1) -> None:
        self.folder = folder
        self.processes: dict[str, Process] = {}
        """Those that were started last."""
        self.runs: list[tuple[str, Process]] = []
        """All that were ever started."""
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
        """Base URL of the first."""
        return self.apis[0]

    def url(self, name: str) -> str:
        """Where a service serves HTTP, be it only its health."""
        return f"http://127.0.0.1:{self._ports[name]}"

    def port(self, name: str) -> int:
        """Its port."""
        return self._ports[name]

    def add(self, *names: str) -> None:
        """Have further ones of services, e.g. `projector-2`, with all others."""
        self.names += names
        self._ports |= {name: free_port() for name in names}

    def begin(self) -> str:
        """Start everything, and wait until it serves; what `opstream provision` printed."""
        self.start(BROKER)
        self.wait_ready(BROKER)
        provisioned = run("provision", "--nats", self.nats, "--actions", self._actions, cwd=self.folder)
        assert (provisioned.returncode, provisioned.stderr) == (0, "")
        for name in self.names:
            self.start(name)
        self.wait_ready(*self.names)
        return provisioned.stdout

    def start(self, name: str) -> Process:
        """Start one."""
        process = self._stack.enter_context(Process(*self._command(name), cwd=self.folder))
        self.processes[name] = process
        self.runs.append((name, process))
        return process

    def kill(self, name: str) -> None:
        """SIGKILL one, and wait until it is gone."""
        self.processes[name].send(signal.SIGKILL)
        assert self.processes[name].wait(5) == -signal.SIGKILL, self.processes[name].output

    def revive(self) -> None:
        """Start what does not run, as it may after a test that failed, and wait until everything serves."""
        for name in (BROKER, *self.names):
            if not self.processes[name].is_running:
                self.start(name)
        self.wait_ready(BROKER, *self.names)

    def freeze(self, name: str) -> None:
        """SIGSTOP one: it keeps its connections and answers nobody."""
        self.processes[name].send(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT it."""
        self.processes[name].send(signal.SIGCONT)

    def complaints(self) -> list[str]:
        """Errors in the logs of services, and which of them ended by themselves: in all runs so far."""
        found = []
        for name, process in self.runs:
            if not process.is_running and process.wait(5) != -signal.SIGKILL:
                found.append(f"{name} ended by itself: {process.output}")
            elif name != BROKER and _TROUBLE.search(process.output):
                found.append(f"{name} complains: {process.output}")
        return found

    def wait_ready(self, *names: str) -> None:
        """Wait until the broker takes connections, and services answer 200 to /readyz."""
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
