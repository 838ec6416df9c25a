"""The whole system with a breakable network: each service reaches the broker through its own proxy, and can be started
with a crash point.

    async with ChaosSystem.started(folder, stack, replicas=2) as system:
        system.nets["runner-2"].go_dark()
        system.start("api", crash="api.recorded")

Processes are started in the event loop's own thread: the kernel ends them together with the thread that made them
(`opstream/local/processes.py`).
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from bench.harness.slow_disk import slowed
from opstream_journal.runtime import crash_points
from tests.support.broker.proxy import Proxy
from tests.support.chaos.actions import CRASHED, write_module
from tests.support.system.processes import COMMAND, Process, run
from tests.support.system.services import _TROUBLE, BROKER, System

_RECORD: Final = re.compile(r"^(?=\d{4}-\d\d-\d\dT)", re.MULTILINE)
_MEANT: Final = re.compile(
    r"\S+ ERROR +opstream_runner\.handler\.invocation: .* raised RuntimeError in attempt "
    r".*?^RuntimeError: attempt [^\n]*",
    re.MULTILINE | re.DOTALL,
)
DRAIN: Final = 1
"""Seconds that a stopping runner leaves to its actions."""
_RESTARTS: Final = 20
STOP_TIMEOUT: Final = DRAIN + 14
"""Seconds until a stopping service is killed."""
STOPPED: Final = 0
"""Exit status of a service after SIGTERM."""


class Net(Proxy):
    """The network between a service and the broker, which can be unavailable for a while."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._is_dark = False

    def go_dark(self) -> None:
        """Break all connections, and each new one until `light_up`."""
        self._is_dark = True
        self.cut()

    def light_up(self) -> None:
        """Accept connections again."""
        self._is_dark = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_dark:
            writer.transport.abort()
            return
        await super()._serve(reader, writer)


class ChaosSystem(System):
    """All processes by name, as `System` has them.

    Args:
        folder: their working directory.
        stack: ends what still runs.
        replicas: of each service.
        environment: further variables for all services.
        fsync_us: microseconds that each fsync of the broker takes longer; takes strace if it is not 0.
        actions: the module of actions; empty for those of chaos.
    """

    def __init__(
        self,
        folder: Path,
        stack: ExitStack,
        *,
        replicas: int = 1,
        environment: Mapping[str, str] | None = None,
        fsync_us: int = 0,
        actions: str = "",
    ) -> None:
        super().__init__(folder, stack, actions or write_module(folder), replicas=replicas)
        self._fsync_us = fsync_us
        self.nets: dict[str, Net] = {}
        """Between each service and the broker."""
        self._environment = dict(environment or {})
        self._ends: dict[Process, int] = {}

    @classmethod
    @asynccontextmanager
    async def started(
        cls, folder: Path, stack: ExitStack, *, replicas: int = 1, fsync_us: int = 0
    ) -> AsyncIterator[ChaosSystem]:
        """Start a system, wait until it is ready, and yield it."""
        system = cls(folder, stack, replicas=replicas, fsync_us=fsync_us)
        async with AsyncExitStack() as nets:
            for name in system.names:
                system.nets[name] = await nets.enter_async_context(Net(system.port(BROKER)))
            await system.begin_all()
            yield system

    async def begin_all(self) -> None:
        """Start all processes, and wait until they are ready."""
        self.start(BROKER)
        await self.ready(BROKER)
        provisioned = run("provision", "--nats", self.nats, "--actions", self._actions, cwd=self.folder)
        assert (provisioned.returncode, provisioned.stderr) == (0, "")
        for name in self.names:
            self.start(name)
        await self.ready(*self.names)

    def start(self, name: str, *, crash: str = "") -> Process:
        """Start a process; it ends itself at the point `crash`, e.g. `api.recorded` or `api.recorded:2`."""
        extra = self._environment | ({crash_points.CRASH_VARIABLE: crash} if crash else {})
        # The process is the broker itself, also with a tracer beside it, so `kill` and `freeze` mean the broker.
        program = slowed(COMMAND, self._fsync_us if name == BROKER else 0)
        arguments = self._command(name)
        process = self._stack.enter_context(Process(*arguments, cwd=self.folder, extra=extra, command=program))
        self.processes[name] = process
        self.runs.append((name, process))
        return process

    async def verified(self) -> list[str]:
        """Run `opstream verify` and `opstream verify --chain` on the quiet system; return what they find wrong."""
        found: list[str] = []
        for options in ((), ("--chain",)):
            done = await asyncio.to_thread(run, "verify", *options, "--nats", self.nats, cwd=self.folder)
            if done.returncode:
                found.append(f"opstream verify {' '.join(options)}: {done.stdout}{done.stderr}")
        return found

    async def ready(self, *names: str) -> None:
        """Wait until the processes are ready, while the proxies keep running."""
        await asyncio.to_thread(self.wait_ready, *names)

    def kill(self, name: str) -> None:
        """Send SIGKILL, and wait until the process has ended. An action may have ended it before."""
        self.processes[name].send(signal.SIGKILL)
        self.processes[name].wait(5)

    async def stop(self, name: str) -> None:
        """Send SIGTERM, and wait until the process has ended; `complaints` reports a wrong end."""
        process = self.processes[name]
        self._ends[process] = STOPPED
        process.send(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, STOP_TIMEOUT)
        except AssertionError:
            self.kill(name)

    def is_running(self, name: str) -> bool:
        """Return True if the process runs."""
        return self.processes[name].is_running

    async def settle(self) -> None:
        """Undo all disturbances, and wait until all processes are ready."""
        for net in self.nets.values():
            net.light_up()
            net.unmute()
        everything = (BROKER, *self.names)
        for name in everything:
            self.thaw(name) if self.is_running(name) else self.start(name)
        for _ in range(_RESTARTS):
            try:
                return await self.ready(*everything)
            except AssertionError:
                ended = [name for name in everything if not self.is_running(name)]
                if not ended:
                    raise
            for name in ended:  # an action may still end its runner, once in each attempt
                self.start(name)
        return await self.ready(*everything)

    def complaints(self) -> list[str]:
        """Errors in the logs of services, and unexpected ends of processes, in all runs so far.

        An action may end its runner. After SIGTERM a service must end with status 0, unless it had not printed anything
        yet.
        """
        found = []
        for name, process in self.runs:
            fine = {self._ends.get(process, -signal.SIGKILL)} | ({CRASHED} if name.startswith("runner") else set())
            if not process.output:
                fine.add(-signal.SIGTERM)
            if not process.is_running and process.wait(5) not in fine:
                found.append(f"{name} ended by itself with {process.wait(5)}: {process.output}")
            elif name != BROKER:
                found += [f"{name} complains: {one}" for one in troubles(process.output)]
        return found

    def write_logs(self) -> None:
        """Write the output of each process into the folder `logs`, numbered by start."""
        folder = self.folder / "logs"
        folder.mkdir()
        for number, (name, process) in enumerate(self.runs):
            (folder / f"{number:04d}-{name}-{process.pid}").write_text(process.output, encoding="utf-8")

    def _command(self, name: str) -> tuple[str, ...]:
        command = super()._command(name)
        if name.startswith("runner"):
            command = (*command, "--drain", str(DRAIN))
        if name not in self.nets:
            return command
        return tuple(self.nets[name].url if part == self.nats else part for part in command)


def troubles(output: str) -> list[str]:
    """Errors and tracebacks in a service's log, except those that an action raises on purpose."""
    records = _RECORD.split(output)
    return [one for one in (_MEANT.sub("", record) for record in records) if _TROUBLE.search(one)]


def parts_of(names: Sequence[str], part: str) -> list[str]:
    """The replicas of a service."""
    return [name for name in names if name.partition("-")[0] == part]
