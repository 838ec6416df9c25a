"""The whole system for disasters: one broker or a cluster of three, all services, a subscriber, and an operator.

system = DisasterSystem(folder, stack, cluster=None)
await system.begin_all()
async with system.supervised():   # what ends by itself is started again, as systemd would
    await system.command("provision", "--update")
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Final

import httpx

from tests.support.broker.damage import StreamFiles
from tests.support.broker.server import Broker
from tests.support.chaos.system import ChaosSystem, troubles
from tests.support.disaster import subscriber
from tests.support.disaster.routed_cluster import RoutedCluster
from tests.support.system.processes import Process, run
from tests.support.system.services import BROKER
from tests.support.system.wait import eventually
from tests.support.webhooks.receiver import SECRET

SERVICES: Final = ("api", "api-2", "projector", "runner", "runner-2", "webhooks")
WITNESS: Final = "witness"
"""The name of the subscriber's process."""
COMMANDS: Final = "commands"
_HOOKS: Final = "hooks.toml"
_COMMAND: Final = 90.0
_PATIENCE: Final = 60.0
_WATCH: Final = 0.1


class DisasterSystem(ChaosSystem):
    """All processes by name: `broker` if there is no cluster, those of `SERVICES`, and `witness`.

    Args:
        folder: their working directory; the broker's data is in `data`.
        stack: ends what still runs.
        cluster: a running cluster, instead of a broker.
        hook: the URL to which outcomes are posted; without one there is no webhooks service.
    """

    def __init__(self, folder: Path, stack: ExitStack, *, cluster: RoutedCluster | None = None, hook: str = "") -> None:
        super().__init__(folder, stack)
        self.cluster = cluster
        self.environments: dict[str, dict[str, str]] = {}
        """Variables of a process, by its name, that give it another clock or version; under `COMMANDS` those of an
        operator's commands."""
        self.restarts: Counter[str] = Counter()
        """How often a process ended by itself and was started again."""
        self.held: set[str] = set()
        """Processes that are down on purpose."""
        self.names = []
        self.add(*(name for name in SERVICES if name != "webhooks" or hook))
        if hook:
            secrets = f'name = "all"\nurl = "{hook}"\nsecrets = ["{SECRET}"]\n'
            (folder / _HOOKS).write_text(f"[[hooks]]\n{secrets}", encoding="utf-8")

    @property
    def nats(self) -> str:
        """The URL of a broker that runs."""
        return super().nats if self.cluster is None else self.cluster.live[0].url

    @property
    def brokers(self) -> list[str]:
        """The URLs of all brokers."""
        return [super().nats] if self.cluster is None else self.cluster.urls

    @property
    def store(self) -> Path:
        """The folder of the single broker's JetStream."""
        return self.folder / "data" / "jetstream"

    def files(self, stream: str, node: Broker | None = None) -> StreamFiles:
        """The files of a stream on the single broker, or on a node."""
        return StreamFiles(self.store if node is None else node.store, stream)

    async def begin_all(self) -> None:
        """Start all processes, and wait until they are ready."""
        if self.cluster is None:
            self.start(BROKER)
            await self.ready(BROKER)
        done = await self.command("provision", "--replicas", "1" if self.cluster is None else "3")
        assert done.returncode == 0, done.stdout + done.stderr
        for name in self.names:
            self.start(name)
        await self.ready(*self.names)
        await asyncio.to_thread(self.start(WITNESS).wait_for, "started successfully")

    def start(self, name: str, *, crash: str = "") -> Process:
        """Start a process, with the clock and the version that it is to have."""
        if name == WITNESS:
            # As a service of opstream, it ends together with the test process, even if that is killed.
            guard = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
            program = (*guard, sys.executable, "-P", str(Path(subscriber.__file__)))
            arguments = (str(self.folder / subscriber.RECEIVED), ",".join(self.brokers))
            process = Process(*arguments, cwd=self.folder, command=program)
        else:
            process = Process(*self._command(name), cwd=self.folder, extra=self.environments.get(name))
        self.processes[name] = self._stack.enter_context(process)
        self.runs.append((name, process))
        return process

    async def restart(self, *names: str) -> None:
        """Stop processes and start them again, one after the other, as an operator does; wait until each is ready."""
        for name in names:
            self.held.add(name)
            await self.stop(name)
            self.start(name)
            self.held.discard(name)
            await self.reach_ready(name)

    async def restart_broker(self, between: Callable[[], object]) -> None:
        """Stop the single broker cleanly, do something while it is down, and start it; wait until all is ready."""
        await self.stop(BROKER)
        between()
        self.start(BROKER)
        await self.ready(BROKER)
        await self.reach_ready(*(name for name in self.names if name not in self.held))

    async def reach_ready(self, *names: str) -> None:
        """Wait until processes are ready; meanwhile they may end by themselves and be started again."""

        def are_ready() -> bool:
            return all(self._is_ready(name) for name in names if name not in {BROKER, WITNESS})

        if BROKER in names:
            await self.ready(BROKER)
        await eventually(lambda: asyncio.to_thread(are_ready), within=_PATIENCE, poll=_WATCH)

    async def command(self, name: str, *options: str) -> CompletedProcess[str]:
        """Run a command of an operator."""
        brokers = [part for url in self.brokers for part in ("--nats", url)]
        actions = ["--actions", self._actions] if name == "provision" else []
        extra = self.environments.get(COMMANDS)
        return await asyncio.to_thread(
            run, name, *options, *brokers, *actions, extra=extra, cwd=self.folder, timeout=_COMMAND
        )

    async def readiness(self, name: str) -> tuple[int, str]:
        """The status and the text of a service's /readyz; 0 if it does not respond."""
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
                response = await http.get(f"{self.url(name)}/readyz")
        except httpx.TransportError:
            return 0, ""
        return response.status_code, response.text

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Start services again that end by themselves, as a supervisor of the operating system does."""
        task = asyncio.create_task(self._supervise())
        try:
            yield
        finally:
            task.cancel()

    async def settle(self) -> None:
        """Start what is down, and wait until everything is ready."""
        if self.cluster is not None:
            for node in self.cluster.nodes:
                self.cluster.join(node)
                if not node.is_running:
                    node.start(wait=False)
                elif node.is_paused:
                    node.resume()
            await asyncio.to_thread(self.cluster.wait_healthy)
        elif not self.is_running(BROKER):
            self.start(BROKER)
            await self.ready(BROKER)
        for name in (*self.names, WITNESS):
            self.thaw(name) if self.is_running(name) else self.start(name)
        self.held.clear()
        await self.reach_ready(*self.names)

    def tracebacks(self) -> list[str]:
        """Tracebacks that services have logged. An error of one line may be right in a disaster, a traceback is not."""
        return [
            f"{name} complains: {one}"
            for name, process in self.runs
            if name not in {BROKER, WITNESS}
            for one in troubles(process.output)
            if "Traceback (most recent call last)" in one
        ]

    def log(self, name: str) -> str:
        """What all runs of a process have printed so far."""
        return "".join(process.output for other, process in self.runs if other == name)

    def logs(self) -> str:
        """What all services have printed so far."""
        return "".join(process.output for name, process in self.runs if name != BROKER)

    async def _supervise(self) -> None:
        begun: Mapping[str, float] = {}
        while True:
            await asyncio.sleep(_WATCH)
            for name in (*self.names, WITNESS):
                if name in self.held or self.is_running(name) or time.monotonic() < begun.get(name, 0.0):
                    continue
                begun = {**begun, name: time.monotonic() + 1.0}  # systemd waits a moment, too
                self.restarts[name.partition("-")[0]] += 1
                self.start(name)

    def _command(self, name: str) -> tuple[str, ...]:
        if name == "webhooks":
            port = str(self.port(name))
            command = ("webhooks", "--nats", self.brokers[0], "--health-port", port, "--config", _HOOKS)
            command += ("--allow-private", "127.0.0.0/8", "--allow-http")
        else:
            command = super()._command(name)
        if self.cluster is None:
            return command
        place = command.index("--nats")
        brokers = [part for url in self.brokers for part in ("--nats", url)]
        return (*command[:place], *brokers, *command[place + 2 :])
