"""Starts what is measured, as production would: one process for each service, by the `opstream` command.

Called by `measure.py` and `readings.py`. Whatever it started is stopped at the end, by its own process id.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from bench.usage import BenchFailed, Usage, usage
from opstream import parent, probe
from opstream.ports import Place, free_ports
from opstream_journal import Link, connect, rpc
from opstream_schemas import subjects

ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = "127.0.0.1"
SERVICES: Final = ("api", "runner", "projector", "broker")

_START_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 10.0
_CHILD_TIMEOUT: Final = 3_600.0
_VIEW_TIMEOUT: Final = 120.0
_TAIL: Final = 2_000


class View(msgspec.Struct, frozen=True):
    """The view, once it holds everything."""

    lag: float
    """Seconds that it took until then."""
    writes: int
    """Snapshots that were ever written."""


class System:
    """A broker in a folder of its own and, on demand, the services on it.

    Args:
        folder: for data and logs; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.port, self._nats_port, self._projector_port, self._runner_port = free_ports(
            [Place(HOST, 0, "") for _ in range(4)]
        )

    @property
    def nats_url(self) -> str:
        """Where the broker is."""
        return probe.url("nats", HOST, self._nats_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in ("api", "runner", "projector", "broker"):
            if name in self._processes:
                _stop(self._processes.pop(name))

    def start_broker(self) -> None:
        """Start nats-server with the settings of `opstream broker`: every write synced."""
        self._start("broker", "--nats-host", HOST, "--nats-port", str(self._nats_port), "--data-dir", str(self._folder))
        self._wait("broker", lambda: probe.is_broker(HOST, self._nats_port))

    def start_services(self, *, concurrency: int, actions: str = "bench.actions") -> None:
        """Provision the broker and start api, runner and projector.

        Args:
            concurrency: of the runner, for each action.
            actions: the module that holds them.
        """
        nats = ("--nats", self.nats_url)
        self._start("provision", *nats)
        if self._processes.pop("provision").wait(_START_TIMEOUT):
            raise BenchFailed(f"'opstream provision' failed:\n{self._tail('provision')}")
        runner = ("--actions", actions, "--concurrency", str(concurrency))
        self._start("projector", *nats, "--health-port", str(self._projector_port))
        self._start("runner", *nats, "--health-port", str(self._runner_port), *runner)
        self._start_api()
        for name, port in (("api", self.port), ("projector", self._projector_port), ("runner", self._runner_port)):
            self._wait(name, lambda port=port: probe.is_ready(HOST, port))

    def restart_api(self) -> None:
        """Have an API that remembers nothing, and whose memory holds nothing of what was before."""
        _stop(self._processes.pop("api"))
        self._start_api()
        self._wait("api", lambda: probe.is_ready(HOST, self.port))

    @property
    def pids(self) -> dict[str, int]:
        """Of each process."""
        return {name: process.pid for name, process in self._processes.items()}

    def usage(self) -> dict[str, Usage]:
        """What each process has used so far."""
        return {name: usage(process.pid) for name, process in self._processes.items()}

    def child(self, module: str, task: msgspec.Struct) -> bytes:
        """Run a module of the benchmark in a process of its own, with a task; what it printed."""
        command = [sys.executable, "-m", module, msgspec.json.encode(task).decode()]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            out, err = process.communicate(timeout=_CHILD_TIMEOUT)
        finally:
            _stop(process)
        self.check()
        if process.returncode:
            raise BenchFailed(f"{module} failed:\n{err.decode(errors='replace')[-_TAIL:]}")
        return out

    def check(self) -> None:
        """Raise if a process has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise BenchFailed(f"the {name} ended with status {process.returncode}:\n{self._tail(name)}")

    def wait_for_view(self) -> View:
        """Wait until the projector has nothing left to do."""
        return asyncio.run(_wait_for_view(self.nats_url))

    def _start_api(self) -> None:
        self._start("api", "--nats", self.nats_url, "--host", HOST, "--port", str(self.port))

    def _start(self, name: str, *options: str) -> None:
        command = [sys.executable, "-P", "-m", "opstream", name, "--log-level", "warning", *options]
        # In a session of its own, so that Ctrl-C reaches the benchmark only, which then stops everything in order.
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, parent.VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, name: str, is_ready: Callable[[], Awaitable[bool]]) -> None:
        until = time.monotonic() + _START_TIMEOUT
        while not asyncio.run(_ask(is_ready)):
            self.check()
            if time.monotonic() > until:
                raise BenchFailed(f"the {name} was not ready within {_START_TIMEOUT:g} s:\n{self._tail(name)}")
            time.sleep(0.05)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _tail(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")[-_TAIL:] or "(it said nothing)"


async def _ask(question: Callable[[], Awaitable[bool]]) -> bool:
    return await question()


async def _wait_for_view(url: str) -> View:
    began = time.monotonic()
    link = await connect([url], "bench", connect_timeout=_START_TIMEOUT)
    try:
        consumer = f"CONSUMER.INFO.{subjects.OPERATIONS_STREAM}.{subjects.PROJECTOR_CONSUMER}"
        while (info := await _info(link, consumer))["num_pending"] or info["num_ack_pending"]:
            if time.monotonic() - began > _VIEW_TIMEOUT:
                raise BenchFailed(f"the projector was not done after {_VIEW_TIMEOUT:g} s")
            await asyncio.sleep(0.02)
        lag = time.monotonic() - began
        view = await _info(link, f"STREAM.INFO.{subjects.bucket_stream(subjects.VIEW_BUCKET)}")
        return View(lag, view["state"]["last_seq"])
    finally:
        await link.close()


async def _info(link: Link, what: str) -> dict[str, Any]:
    return msgspec.json.decode((await rpc.call(link, f"$JS.API.{what}")).data, type=dict[str, Any])


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
