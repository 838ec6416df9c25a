"""A chaos run: clients work while processes are killed, stopped, cut off and crashed.

    report = await Chaos(folder, seed=7, seconds=60).run()
    print(*report.figures, sep="\n")
    assert report.breaches == []

The seed decides what each client does, and which process is disturbed, how, in which order and for how long. It does
not decide the timing of the processes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from opstream_journal.runtime.crash_points import CrashPoint
from tests.chaos.report import ChaosReport, make_report
from tests.support.chaos.actions import LEASE
from tests.support.chaos.clients import Clients
from tests.support.chaos.jobs import JOBS
from tests.support.chaos.state import gather_quiet
from tests.support.chaos.system import ChaosSystem, parts_of
from tests.support.system.services import BROKER

CLIENTS: Final = 24
DISTURBERS: Final = 3
"""Tasks that disturb at the same time, each another process."""
QUIET: Final = 60.0
"""Seconds from the last disturbance until the system must be quiet."""
PAUSE: Final = 0.8
_WATCH: Final = 0.1
_CRASH_PATIENCE: Final = 4.0
_FEW_PASSES: Final = 2
_MANY_PASSES: Final = 12
_OFTEN: Final = frozenset({CrashPoint.JOURNAL_PUBLISHES, CrashPoint.JOURNAL_STORED})
"""Crash points that each event passes."""

POINTS_OF_PART: Final = {
    "api": [CrashPoint.API_RECORDED, CrashPoint.JOURNAL_PUBLISHES, CrashPoint.JOURNAL_STORED],
    "runner": [
        CrashPoint.RUNNER_STARTED,
        CrashPoint.RUNNER_STEP_BEGINS,
        CrashPoint.RUNNER_STEP_DONE,
        CrashPoint.RUNNER_STEP_RECORDED,
        CrashPoint.RUNNER_HANDLED,
        CrashPoint.RUNNER_CONCLUDED,
        CrashPoint.RUNNER_ATTEMPT_FAILED,
        CrashPoint.RUNNER_WAITING,
        CrashPoint.RUNNER_WAKE_ARMED,
        CrashPoint.HOLD_TAKEN,
        CrashPoint.HOLD_LEFT,
        CrashPoint.HOLD_HANDED_OVER,
        CrashPoint.JOURNAL_PUBLISHES,
        CrashPoint.JOURNAL_STORED,
    ],
    "projector": [
        CrashPoint.PROJECTOR_WRITTEN,
        CrashPoint.PROJECTOR_DEADLINE_ARMED,
        CrashPoint.HOLD_LEFT,
        CrashPoint.JOURNAL_PUBLISHES,
    ],
}
"""The crash points that each service passes under this load."""


class Disturbance(msgspec.Struct, frozen=True):
    """One disturbance."""

    kind: str
    name: str
    seconds: float
    """Duration."""
    point: str = ""
    """For a crash: the crash point, and at which pass."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" at {self.point}" if self.point else f" for {self.seconds:.1f} s")


def draw_disturbance(random: Random, names: list[str]) -> Disturbance:
    """Draw the next disturbance."""
    # Runners do most of the work. After a restart of the broker, wake-ups are late by seconds, so disturb it less.
    (name,) = random.choices([BROKER, *names], [0.5, *(2 if name.startswith("runner") else 1 for name in names)])
    kinds = {"kill": 6, "stop": 2}
    if name != BROKER:
        kinds |= {"end": 2, "cut": 2, "mute": 1, "isolate": 1, "crash": 6}
    (kind,) = random.choices(list(kinds), list(kinds.values()))
    point = ""
    seconds = random.choice([0.0, 0.0, random.uniform(0, PAUSE)])
    if kind == "crash":
        crash_point = random.choice(POINTS_OF_PART[name.partition("-")[0]])
        point = f"{crash_point}:{random.randint(1, _MANY_PASSES if crash_point in _OFTEN else _FEW_PASSES)}"
    elif kind in {"stop", "mute", "isolate"}:
        seconds = random.uniform(0.2, 2.5) * LEASE
    return Disturbance(kind, name, round(seconds, 1), point)


class Chaos:
    """One chaos run.

    Args:
        folder: for the system; must be empty.
        seed: decides everything but the timing.
        seconds: of disturbances.
        fsync_us: microseconds that each fsync of the broker takes longer.
        say: prints a line for each disturbance.
    """

    def __init__(
        self, folder: Path, *, seed: int, seconds: float, fsync_us: int = 0, say: Callable[[str], None] = print
    ) -> None:
        self._folder = folder
        self._seed = seed
        self._seconds = seconds
        self._fsync_us = fsync_us
        self._say = say
        self._begin = time.monotonic()
        self._disturbances: Counter[str] = Counter()
        self._crashes: Counter[str] = Counter()
        self._disturbed: set[str] = set()
        """Names of the processes that are disturbed now."""

    async def run(self) -> ChaosReport:
        """Disturb for the given time, wait for quiet, and check what is left."""
        with ExitStack() as stack:
            async with (
                ChaosSystem.started(self._folder, stack, replicas=2, fsync_us=self._fsync_us) as system,
                Clients(system.apis, seed=self._seed, jobs=JOBS) as clients,
            ):
                self._begin = time.monotonic()
                async with clients.busy(CLIENTS):
                    await self._disturb(system)
                    self._log("no more disturbances")
                    await system.settle()
                    restarter = asyncio.create_task(self._restart_ended_runners(system))
                    self._log(f"all is up; {clients.ended} operations have ended")
                restarter.cancel()
                self._log(f"clients are done; {clients.ended} operations have ended")
                await system.settle()
                left = await gather_quiet(system.nats, within=QUIET)
                self._log("quiet")
                report = make_report(
                    self._folder,
                    seed=self._seed,
                    left=left,
                    clients=clients,
                    complaints=system.complaints() + await system.verified(),
                    disturbances=self._disturbances,
                    crashes=self._crashes,
                )
                if report.breaches:
                    system.write_logs()
        return report

    async def _disturb(self, system: ChaosSystem) -> None:
        until = time.monotonic() + self._seconds
        restarter = asyncio.create_task(self._restart_ended_runners(system))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(1, DISTURBERS + 1):
                    random = Random(f"{self._seed} disturber {number}")
                    group.create_task(self._disturb_repeatedly(until, system, random))
        finally:
            restarter.cancel()

    async def _disturb_repeatedly(self, until: float, system: ChaosSystem, random: Random) -> None:
        while True:
            # A random pause: this waits for nothing.
            await asyncio.sleep(random.uniform(0, PAUSE))
            disturbance = draw_disturbance(random, system.names)
            if time.monotonic() > until:
                return
            if disturbance.name in self._disturbed:
                continue
            self._disturbed.add(disturbance.name)
            try:
                self._log(str(disturbance))
                self._disturbances[f"{disturbance.kind} {disturbance.name.partition('-')[0]}"] += 1
                await self._carry_out(system, disturbance)
            finally:
                self._disturbed.discard(disturbance.name)

    async def _carry_out(self, system: ChaosSystem, disturbance: Disturbance) -> None:
        name = disturbance.name
        match disturbance.kind:
            case "kill" | "end":
                if disturbance.kind == "kill":
                    system.kill(name)
                else:
                    await system.stop(name)
                await asyncio.sleep(disturbance.seconds)
                system.start(name)
            case "stop":
                system.freeze(name)
                await asyncio.sleep(disturbance.seconds)
                system.thaw(name)
            case "cut":
                system.nets[name].cut()
            case "mute":
                system.nets[name].mute()
                await asyncio.sleep(disturbance.seconds)
                system.nets[name].unmute()
            case "isolate":
                system.nets[name].go_dark()
                await asyncio.sleep(disturbance.seconds)
                system.nets[name].light_up()
            case _:
                await self._crash(system, disturbance)

    async def _crash(self, system: ChaosSystem, disturbance: Disturbance) -> None:
        system.kill(disturbance.name)
        process = system.start(disturbance.name, crash=disturbance.point)
        until = time.monotonic() + _CRASH_PATIENCE
        while process.is_running and time.monotonic() < until:  # noqa: ASYNC110 - a process, not a task
            await asyncio.sleep(_WATCH)
        if not process.is_running and "is reached" in process.output:
            self._crashes[disturbance.point.partition(":")[0]] += 1
            self._log(f"{disturbance.name} crashed at {disturbance.point}")
        system.kill(disturbance.name)
        system.start(disturbance.name)

    async def _restart_ended_runners(self, system: ChaosSystem) -> None:
        """Restart runners that an action ended, as a supervisor would."""
        while True:
            await asyncio.sleep(_WATCH)
            for name in parts_of(system.names, "runner"):
                if name not in self._disturbed and not system.is_running(name):
                    self._log(f"{name} was ended by an action")
                    self._disturbances["crashing action runner"] += 1
                    system.start(name)

    def _log(self, text: str) -> None:
        self._say(f"[{time.monotonic() - self._begin:7.2f} s, seed {self._seed}] {text}")
