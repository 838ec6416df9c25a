"""The chaos itself: clients work, and meanwhile parts of the system are killed, stopped, cut off and crashed.

    report = await Chaos(folder, seed=7, seconds=60).run()
    print(*report.figures, sep="\n")
    assert report.breaches == []

Everything is drawn from the seed: what each client does, and what is done to whom, in which order and for how long.
Only the moments at which processes meet are the machine's. Callers: `test_chaos.py`, and `python -m tests.chaos`.
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
"""That disturb at the same time, each another part."""
QUIET: Final = 60.0
"""Seconds until nothing is under way any more, once nothing is disturbed any more."""
PAUSE: Final = 0.8
_WATCH: Final = 0.1
_CRASH_PATIENCE: Final = 4.0
_FEW_PASSES: Final = 2
_MANY_PASSES: Final = 12
_OFTEN: Final = frozenset({CrashPoint.JOURNAL_PUBLISHES, CrashPoint.JOURNAL_STORED})
"""Points that every event passes."""

POINTS_OF_PART: Final = {
    "api": [CrashPoint.API_RECORDED, CrashPoint.JOURNAL_PUBLISHES, CrashPoint.JOURNAL_STORED],
    "runner": [
        CrashPoint.RUNNER_STARTED,
        CrashPoint.RUNNER_HANDLED,
        CrashPoint.RUNNER_CONCLUDED,
        CrashPoint.RUNNER_ATTEMPT_FAILED,
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
"""Which part passes which points under this load."""


class Disturbance(msgspec.Struct, frozen=True):
    """One disturbance."""

    what: str
    whom: str
    seconds: float
    """How long it lasts."""
    point: str = ""
    """For a crash: where, and at which pass."""

    def __str__(self) -> str:
        return f"{self.what} {self.whom}" + (f" at {self.point}" if self.point else f" for {self.seconds:.1f} s")


def draw_disturbance(random: Random, names: list[str]) -> Disturbance:
    """The next disturbance."""
    # Runners do most of the work. After the end of a broker wakes take seconds to come again, so it is spared at times.
    (whom,) = random.choices([BROKER, *names], [0.5, *(2 if name.startswith("runner") else 1 for name in names)])
    kinds = {"kill": 6, "stop": 2}
    if whom != BROKER:
        kinds |= {"end": 2, "cut": 2, "mute": 1, "isolate": 1, "crash": 6}
    (what,) = random.choices(list(kinds), list(kinds.values()))
    point = ""
    seconds = random.choice([0.0, 0.0, random.uniform(0, PAUSE)])
    if what == "crash":
        name = random.choice(POINTS_OF_PART[whom.partition("-")[0]])
        point = f"{name}:{random.randint(1, _MANY_PASSES if name in _OFTEN else _FEW_PASSES)}"
    elif what in {"stop", "mute", "isolate"}:
        seconds = random.uniform(0.2, 2.5) * LEASE
    return Disturbance(what, whom, round(seconds, 1), point)


class Chaos:
    """One run.

    Args:
        folder: for the system; it must be empty.
        seed: everything is drawn from it.
        seconds: of disturbance.
        say: takes a line for each disturbance.
    """

    def __init__(self, folder: Path, *, seed: int, seconds: float, say: Callable[[str], None] = print) -> None:
        self._folder = folder
        self._seed = seed
        self._seconds = seconds
        self._say = say
        self._begin = time.monotonic()
        self._disturbances: Counter[str] = Counter()
        self._crashes: Counter[str] = Counter()
        self._disturbed: set[str] = set()
        """Whom somebody disturbs now."""

    async def run(self) -> ChaosReport:
        """Disturb for the given time, wait for quiet, and judge what is left."""
        with ExitStack() as stack:
            async with (
                ChaosSystem.started(self._folder, stack, replicas=2) as system,
                Clients(system.apis, seed=self._seed, jobs=JOBS) as clients,
            ):
                self._begin = time.monotonic()
                async with clients.busy(CLIENTS):
                    await self._disturb(system)
                    self._log("no more disturbances")
                    await system.settle()
                    nurse = asyncio.create_task(self._restart_ended_runners(system))
                    self._log(f"all is up; {clients.ended} operations have ended")
                nurse.cancel()
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
                    blows=self._disturbances,
                    crashes=self._crashes,
                )
                if report.breaches:
                    system.write_logs()
        return report

    async def _disturb(self, system: ChaosSystem) -> None:
        until = time.monotonic() + self._seconds
        nurse = asyncio.create_task(self._restart_ended_runners(system))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(1, DISTURBERS + 1):
                    random = Random(f"{self._seed} disturber {number}")
                    group.create_task(self._disturb_repeatedly(until, system, random))
        finally:
            nurse.cancel()

    async def _disturb_repeatedly(self, until: float, system: ChaosSystem, random: Random) -> None:
        while True:
            # Random moments are the point here; nothing is waited for.
            await asyncio.sleep(random.uniform(0, PAUSE))
            blow = draw_disturbance(random, system.names)
            if time.monotonic() > until:
                return
            if blow.whom in self._disturbed:
                continue
            self._disturbed.add(blow.whom)
            try:
                self._log(str(blow))
                self._disturbances[f"{blow.what} {blow.whom.partition('-')[0]}"] += 1
                await self._carry_out(system, blow)
            finally:
                self._disturbed.discard(blow.whom)

    async def _carry_out(self, system: ChaosSystem, blow: Disturbance) -> None:
        whom = blow.whom
        match blow.what:
            case "kill" | "end":
                if blow.what == "kill":
                    system.kill(whom)
                else:
                    await system.stop(whom)
                await asyncio.sleep(blow.seconds)
                system.start(whom)
            case "stop":
                system.freeze(whom)
                await asyncio.sleep(blow.seconds)
                system.thaw(whom)
            case "cut":
                system.nets[whom].cut()
            case "mute":
                system.nets[whom].mute()
                await asyncio.sleep(blow.seconds)
                system.nets[whom].unmute()
            case "isolate":
                system.nets[whom].go_dark()
                await asyncio.sleep(blow.seconds)
                system.nets[whom].light_up()
            case _:
                await self._crash(system, blow)

    async def _crash(self, system: ChaosSystem, blow: Disturbance) -> None:
        system.kill(blow.whom)
        process = system.start(blow.whom, crash=blow.point)
        until = time.monotonic() + _CRASH_PATIENCE
        while process.is_running and time.monotonic() < until:  # noqa: ASYNC110 - a process, not a task
            await asyncio.sleep(_WATCH)
        if not process.is_running and "is reached" in process.output:
            self._crashes[blow.point.partition(":")[0]] += 1
            self._log(f"{blow.whom} crashed at {blow.point}")
        system.kill(blow.whom)
        system.start(blow.whom)

    async def _restart_ended_runners(self, system: ChaosSystem) -> None:
        """Start again what its own action ended, as a supervisor would."""
        while True:
            await asyncio.sleep(_WATCH)
            for name in parts_of(system.names, "runner"):
                if name not in self._disturbed and not system.is_running(name):
                    self._log(f"{name} was ended by an action")
                    self._disturbances["crashing action runner"] += 1
                    system.start(name)

    def _log(self, what: str) -> None:
        self._say(f"[{time.monotonic() - self._begin:7.2f} s, seed {self._seed}] {what}")
