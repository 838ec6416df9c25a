"""The whole system with a breakable network: each service reaches the broker through a proxy of its own, and may be
started with a crash point armed.

    async with ChaosSystem.started(folder, stack, replicas=2) as system:
        system.nets["runner-2"].go_dark()
        system.start("api", crash="api.recorded")

Processes are started in the event loop's own thread: the kernel ends them together with the thread that made them
(`opstream/local/processes.py`). Callers: `tests/chaos`.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from opstream_journal.runtime import crash_points
from tests.support.broker.proxy import Proxy
from tests.support.chaos.actions import CRASHED, write_module
from tests.support.system.processes import Process, run
from tests.support.system.services import _TROUBLE, BROKER, System

_RECORD: Final = re.compile(r"^(?=\d{4}-\d\d-\d\dT)", re.MULTILINE)
_MEANT: Final = re.compile(
    r"\S+ ERROR +opstream_runner\.execution: .* raised RuntimeError in attempt .*?^RuntimeError: attempt [^\n]*",
    re.MULTILINE | re.DOTALL,
)
DRAIN: Final = 1
"""Seconds that a runner which is told to stop leaves to its actions."""
_RESTARTS: Final = 20
STOP_TIMEOUT: Final = DRAIN + 14
"""Seconds until a service that was told to stop is killed."""
STOPPED: Final = 0
"""Exit status of a service that was told to stop."""


class Net(Proxy):
    """A service's way to the broker, which may be gone altogether for a while."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._is_dark = False

    def go_dark(self) -> None:
        """Break all connections, and every new one until `light_up`."""
        self._is_dark = True
        self.cut()

    def light_up(self) -> None:
        """Serve again."""
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
    """

    def __init__(
        self, folder: Path, stack: ExitStack, *, replicas: int = 1, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder, stack, write_module(folder), replicas=replicas)
        self.nets: dict[str, Net] = {}
        """Between each service and the broker."""
        self._environment = dict(environment or {})
        self._ends: dict[Process, int] = {}

    @classmethod
    @asynccontextmanager
    async def started(cls, folder: Path, stack: ExitStack, *, replicas: int = 1) -> AsyncIterator[ChaosSystem]:
        """A system that serves, from here on."""
        system = cls(folder, stack, replicas=replicas)
        async with AsyncExitStack() as nets:
            for name in system.names:
                system.nets[name] = await nets.enter_async_context(Net(system.port(BROKER)))
            await system.begin_all()
            yield system

    async def begin_all(self) -> None:
        """Start everything, and wait until it serves."""
        self.start(BROKER)
        await self.ready(BROKER)
        provisioned = run("provision", "--nats", self.nats, "--actions", self._actions, cwd=self.folder)
        assert (provisioned.returncode, provisioned.stderr) == (0, "")
        for name in self.names:
            self.start(name)
        await self.ready(*self.names)

    def start(self, name: str, *, crash: str = "") -> Process:
        """Start one; `crash` is where it ends itself, `NAME_PATTERN` or `NAME:COUNT` of `runtime.crash_points`."""
        extra = self._environment | ({crash_points.CRASH_VARIABLE: crash} if crash else {})
        process = self._stack.enter_context(Process(*self._command(name), cwd=self.folder, extra=extra))
        self.processes[name] = process
        self.runs.append((name, process))
        return process

    async def verified(self) -> list[str]:
        """What the operator's own commands find wrong, once all is quiet: in the view, and in the chain of hashes."""
        found: list[str] = []
        for options in ((), ("--chain",)):
            done = await asyncio.to_thread(run, "verify", *options, "--nats", self.nats, cwd=self.folder)
            if done.returncode:
                found.append(f"opstream verify {' '.join(options)}: {done.stdout}{done.stderr}")
        return found

    async def ready(self, *names: str) -> None:
        """Wait until they serve, while the proxies go on."""
        await asyncio.to_thread(self.wait_ready, *names)

    def kill(self, name: str) -> None:
        """SIGKILL one, wherever it is, and wait until it is gone. Perhaps its action was faster."""
        self.processes[name].send(signal.SIGKILL)
        self.processes[name].wait(5)

    async def stop(self, name: str) -> None:
        """SIGTERM one, and wait until it has ended in order; `complaints` tells if it does not."""
        process = self.processes[name]
        self._ends[process] = STOPPED
        process.send(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, STOP_TIMEOUT)
        except AssertionError:
            self.kill(name)

    def is_running(self, name: str) -> bool:
        """Whether it has not ended."""
        return self.processes[name].is_running

    async def settle(self) -> None:
        """Undo every disturbance: all of it runs, is connected and serves."""
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
            for name in ended:  # an action may still end its runner, as often as it has attempts
                self.start(name)
        return await self.ready(*everything)

    def complaints(self) -> list[str]:
        """Errors in the logs of services, and which of them ended by themselves: in all runs so far.

        A runner may end as its action wanted, and one that was told to stop has to end as it should, unless it had not
        even begun.
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
        """Put what each process has printed into `logs`, in the order of their starts."""
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
    """What a service has logged as an error, and tracebacks that are not its own; not what an action meant to raise."""
    records = _RECORD.split(output)
    return [one for one in (_MEANT.sub("", record) for record in records) if _TROUBLE.search(one)]


def parts_of(names: Sequence[str], part: str) -> list[str]:
    """The replicas of a service."""
    return [name for name in names if name.partition("-")[0] == part]
