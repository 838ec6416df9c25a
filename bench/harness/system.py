"""Starts the measured processes as production does: one `opstream` command for each service.

Each process that it starts is stopped at the end, by its process id.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from bench.harness import broker_state
from bench.harness.process_usage import BenchFailed, Usage, process_usage
from opstream.local.ports import ListenAddress, free_ports, is_broker, is_ready, local_url
from opstream.local.processes import SUPERVISOR_VARIABLE
from opstream_schemas import subjects
from opstream_schemas.urls import NO_CREDENTIALS

ROOT: Final = Path(__file__).resolve().parents[2]
HOST: Final = "127.0.0.1"
RUNNER: Final = "runner"
SERVICES: Final = ("api", RUNNER, "projector", "broker")
WEBHOOKS: Final = "webhooks"

_START_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 10.0
_CHILD_TIMEOUT: Final = 3_600.0
_VIEW_TIMEOUT: Final = 120.0
_TAIL: Final = 2_000
_LEVEL: Final[dict[str, tuple[str, ...]]] = {"apikey": (), "broker-config": ()}
"""Commands that write no log."""


class SnapshotProgress(msgspec.Struct, frozen=True):
    """The state of the snapshots once all are written."""

    lag: float
    """Seconds until then."""
    writes: int
    """Number of snapshot writes so far."""


class BenchSystem:
    """A broker in a folder of its own and, on demand, the services on it.

    Args:
        folder: for data and logs; must exist.
        sources: the working directory of the processes; None for this checkout.
        environment: further variables of the processes, e.g. for another version.

    Attributes:
        options: further ones of each command.
        credentials: of the benchmark's own connections to the broker.
        key: an API key that the load sends with each request; empty for none.
    """

    def __init__(
        self, folder: Path, *, sources: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._sources = sources or ROOT
        self._environment = environment or {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        """The port of each service's readiness endpoint."""
        self.port, self._nats_port = _free_ports(2)
        self._urls = [local_url("nats", HOST, self._nats_port)]
        self._replicas = 1
        self.options: dict[str, tuple[str, ...]] = {}
        self.credentials = NO_CREDENTIALS
        self.key = ""

    @property
    def nats_url(self) -> str:
        """URL of the broker, or of the first of its servers."""
        return self._urls[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._processes:  # the broker, which started first, ends last
            _stop(self._processes.popitem()[1])

    def start_broker(self) -> None:
        """Start nats-server as `opstream broker` does: it syncs every write."""
        self._start("broker", "--nats-host", HOST, "--nats-port", str(self._nats_port), "--data-dir", str(self._folder))
        self._wait("broker", lambda: is_broker(HOST, self._nats_port))

    def use_servers(self, urls: Sequence[str]) -> None:
        """Use servers that run already, instead of `start_broker`: as many copies as there are servers."""
        self._urls, self._replicas = list(urls), len(urls)

    def start_services(self, *, concurrency: int, actions: str = "bench.harness.actions") -> None:
        """Provision the broker and start api, runner and projector.

        Args:
            concurrency: of the runner, for each action.
            actions: the module that holds them.
        """
        self.provision()
        self._start_projector()
        self._start_runner(RUNNER, concurrency, actions)
        self._start_api()
        self._wait_ready("api", "projector", RUNNER)

    def start_all_but_runner(self) -> None:
        """Provision the broker and start api and projector."""
        self.provision()
        self._start_projector()
        self._start_api()
        self._wait_ready("api", "projector")

    def start_projector(self) -> None:
        """Start a projector."""
        self._start_projector()
        self._wait_ready("projector")

    def start_runner(self, name: str, *, concurrency: int, actions: str, is_awaited: bool = True) -> None:
        """Start a runner.

        Args:
            name: of the process; no running process may have it.
            concurrency: for each action.
            actions: the module that holds them.
            is_awaited: True to return only when it pulls.
        """
        self._start_runner(name, concurrency, actions)
        if is_awaited:
            self._wait_ready(name)

    def start_webhooks(self) -> None:
        """Start the service that sends webhooks; there are none to send."""
        self._start(WEBHOOKS, "--nats", self.nats_url, "--health-port", self._health_port(WEBHOOKS))
        self._wait_ready(WEBHOOKS)

    def stop(self, name: str) -> None:
        """End a process, as SIGTERM does."""
        _stop(self._processes.pop(name))

    def kill(self, name: str) -> float:
        """End a process by SIGKILL; return the time in seconds since the epoch."""
        process = self._processes.pop(name)
        at = time.time()
        process.kill()
        process.wait()
        return at

    def restart_api(self) -> None:
        """Restart the API, so that its caches and its memory are fresh."""
        _stop(self._processes.pop("api"))
        self._start_api()
        self._wait_ready("api")

    @property
    def pids(self) -> dict[str, int]:
        """Of each process."""
        return {name: process.pid for name, process in self._processes.items()}

    def usage(self) -> dict[str, Usage]:
        """What each process has used so far."""
        return {name: process_usage(process.pid) for name, process in self._processes.items()}

    def run_child(self, module: str, task: msgspec.Struct) -> bytes:
        """Run a module of the benchmark with a task in a process of its own; return its output."""
        command = [sys.executable, "-m", module, msgspec.json.encode(task).decode()]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            out, err = process.communicate(timeout=_CHILD_TIMEOUT)
        finally:
            _stop(process)
        self.check_processes()
        if process.returncode:
            raise BenchFailed(f"{module} failed:\n{err.decode(errors='replace')[-_TAIL:]}")
        return out

    def check_processes(self) -> None:
        """Check that all processes run.

        Raises:
            BenchFailed: one has ended.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise BenchFailed(f"the {name} ended with status {process.returncode}:\n{self._tail(name)}")

    def wait_for_snapshots(self) -> SnapshotProgress:
        """Wait until the projector has folded everything."""
        return asyncio.run(self._wait_for_view())

    def wait_for_projector(self, timeout: float) -> None:
        """Wait until the projector is done, including deadline timers, which it sets half a minute late."""
        asyncio.run(self._wait_for_projector(timeout))

    async def _wait_for_view(self) -> SnapshotProgress:
        async with broker_state.connected(self.nats_url, self.credentials) as connection:
            lag = await broker_state.wait_idle(connection, subjects.PROJECTOR_CONSUMER, _VIEW_TIMEOUT)
            view = await broker_state.stream_state(connection, subjects.bucket_stream(subjects.VIEW_BUCKET))
            return SnapshotProgress(lag, view.last_seq)

    async def _wait_for_projector(self, timeout: float) -> None:  # noqa: ASYNC109 - handed on
        async with broker_state.connected(self.nats_url, self.credentials) as connection:
            await broker_state.wait_idle(connection, subjects.PROJECTOR_CONSUMER, timeout)
            await broker_state.wait_idle(connection, subjects.PROJECTOR_DEADLINES_CONSUMER, timeout)

    def provision(self) -> None:
        """Create opstream's streams and buckets on the broker, or bring those of an earlier version up to date."""
        self._start("provision", *self._servers(), "--replicas", str(self._replicas), "--update")
        self._await_end("provision")

    def run_command(self, command: str, *options: str) -> str:
        """Run a command to its end; return what it printed.

        Raises:
            BenchFailed: it failed.
        """
        self._start(command, *options)
        self._await_end(command)
        return self._log(command).read_text(errors="replace")

    def _await_end(self, name: str) -> None:
        if self._processes.pop(name).wait(_START_TIMEOUT):
            raise BenchFailed(f"'opstream {name}' failed:\n{self._tail(name)}")

    def _start_projector(self) -> None:
        self._start("projector", *self._servers(), "--health-port", self._health_port("projector"))

    def _start_runner(self, name: str, concurrency: int, actions: str) -> None:
        options = ("--actions", actions, "--concurrency", str(concurrency), "--health-port", self._health_port(name))
        self._start(RUNNER, *self._servers(), *options, name=name)

    def _start_api(self) -> None:
        self._ports["api"] = self.port
        self._start("api", *self._servers(), "--host", HOST, "--port", str(self.port))

    def _servers(self) -> list[str]:
        return [word for url in self._urls for word in ("--nats", url)]

    def _health_port(self, name: str) -> str:
        (self._ports[name],) = _free_ports(1)
        return str(self._ports[name])

    def _start(self, service: str, *options: str, name: str = "") -> None:
        words = (*_LEVEL.get(service, ("--log-level", "warning")), *options, *self.options.get(service, ()))
        command = [sys.executable, "-P", "-m", "opstream", service, *words]
        name = name or service
        # In a session of its own, so that Ctrl-C reaches only the benchmark, which then stops all processes in order.
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=self._sources,
                env={**os.environ, **self._environment, SUPERVISOR_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_ready(self, *names: str) -> None:
        for name in names:
            self._wait(name, lambda port=self._ports[name]: is_ready(HOST, port))

    def _wait(self, name: str, is_ready: Callable[[], Awaitable[bool]]) -> None:
        until = time.monotonic() + _START_TIMEOUT
        while not asyncio.run(_await_answer(is_ready)):
            self.check_processes()
            if time.monotonic() > until:
                raise BenchFailed(f"the {name} was not ready within {_START_TIMEOUT:g} s:\n{self._tail(name)}")
            time.sleep(0.05)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _tail(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")[-_TAIL:] or "(no output)"


def _free_ports(count: int) -> list[int]:
    return free_ports([ListenAddress(HOST, 0, "") for _ in range(count)])


async def _await_answer(question: Callable[[], Awaitable[bool]]) -> bool:
    return await question()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
