"""The stage of one round: a running system, its clients, and what an operator does.

A scenario (`tests/disaster/scenario.py`) plays on it; the driver (`tests/disaster/driver.py`) builds it and reports.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from opstream_schemas.events import Canceled, Failed, Succeeded
from tests.support.broker.server import Broker
from tests.support.chaos.checks import find_breaches, read_marks
from tests.support.chaos.clients import Clients, ClientView
from tests.support.chaos.jobs import JOBS, Job
from tests.support.chaos.state import FinalState, gather_quiet
from tests.support.disaster.probe import Probe
from tests.support.disaster.routed_cluster import RoutedCluster
from tests.support.disaster.subscriber import RECEIVED
from tests.support.disaster.system import DisasterSystem
from tests.support.system.invariants import ENDED, _going_back, decoded
from tests.support.system.wait import eventually
from tests.support.webhooks.receiver import WebhookReceiver

PATIENCE: Final = 180.0
"""Seconds until a client gives up on an operation: a lost timer is found after more than a minute."""
QUIET: Final = 120.0
"""Seconds from the last disaster until the system must be quiet."""
_SOON: Final = 20.0
_WORK: Final = 150.0
_EVENTS: Final = 60.0
_SHARED: Final = re.compile(r": (?:held its resource from|still worked when)")
_SPARE: Final = ": armed, and ended: "
_OUTCOMES: Final = (Succeeded, Failed, Canceled)

STEADY_JOBS: Final = tuple(job for job in JOBS if job.action != "crash")
"""What clients do: all but actions that end their runner, since here runners end for other reasons."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much load a round has."""

    clients: int
    ends: int
    """Operations that end before a disaster, and after the recovery."""
    seconds: float
    """How long a disaster lasts that has a duration."""
    strikes: int = 1
    """How often a disaster comes in one round, if it can come again."""


SHORT: Final = Size(clients=6, ends=12, seconds=1.5)
LONG: Final = Size(clients=16, ends=50, seconds=8.0)


class RoundResult(msgspec.Struct, kw_only=True):
    """What one round of a scenario was like."""

    scenario: str
    seed: int
    skipped: str = ""
    """Why the round was not played."""
    seconds: float = 0.0
    """Duration of the whole round."""
    accepted: int = 0
    """Operations with a 202."""
    polls: int = 0
    """Statuses that clients got."""
    lost: int = 0
    """Accepted operations that are not in the journal, and of which opstream does not say so."""
    gone: int = 0
    """Accepted operations whose events were destroyed on the only disk, as opstream says."""
    doubled: int = 0
    """Operations with two requests or two ends, and attempts that were executed twice."""
    backwards: int = 0
    """Statuses that went back."""
    strikes: int = 0
    """How often the disaster came."""
    aways: list[float] = []
    """For each strike the most seconds from the first refused submit to the next one that is served."""
    longest: float = 0.0
    """Most seconds until a submit was answered with 202."""
    slowest: float = 0.0
    """Most seconds from a 202 to the end of a quick operation."""
    repeated: int = 0
    """Events that the subscriber got more than once, which at-least-once allows."""
    restarts: int = 0
    """Services that ended by themselves and were started again."""
    operator: list[str] = []
    """What an operator had to do."""
    notes: list[str] = []
    breaches: list[str] = []


class Stage:
    """What a scenario plays on.

    Args:
        system: runs, and is ready.
        result: of the round.
        random: drawn from the seed.
        size: of the load.
        say: prints a line.
        receiver: where webhooks are posted, if the system has that service.
    """

    def __init__(
        self,
        system: DisasterSystem,
        result: RoundResult,
        random: Random,
        size: Size,
        say: Callable[[str], None],
        receiver: WebhookReceiver | None = None,
    ) -> None:
        self.system = system
        self.result = result
        self.random = random
        self.size = size
        self.receiver = receiver
        self.clients = Clients([], seed=0, jobs=())
        self.probe = Probe([], self.clients, "")
        self.gone: set[str] = set()
        """Operations whose events are destroyed, as opstream says."""
        self.excused = ""
        """A text of tracebacks that are right in this disaster; without one none is."""
        self.has_lost_locks = False
        """True if locks were destroyed, so that operations may have had a resource at the same time."""
        self.ignored: frozenset[str] = frozenset()
        """Members of an ended operation's status that the versions in a round show otherwise."""
        self.has_spare_timers = False
        """True if timers of ended operations may be left, which do nothing when they fire."""
        self.is_restored = False
        """`opstream restore` ran, which ends attempts whose runner was lost with everything."""
        self.told: dict[str, ClientView] = {}
        """What clients know of each operation, once a load is over."""
        self._say = say
        self._begin = time.monotonic()
        self._loads = itertools.count(1)

    @property
    def cluster(self) -> RoutedCluster:
        """The cluster of a scenario that has one."""
        assert self.system.cluster is not None
        return self.system.cluster

    @property
    def folder(self) -> Path:
        """The system's."""
        return self.system.folder

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self._say(f"[{time.monotonic() - self._begin:6.1f} s] {text}")

    def operator(self, text: str) -> None:
        """Note what an operator does."""
        self.say(f"operator: {text}")
        self.result.operator.append(text)

    async def run(self, name: str, *options: str, status: int | None = 0) -> str:
        """Run a command as an operator, who looks at its exit status unless it is None; return what it printed."""
        self.operator(" ".join(("opstream", name, *options)))
        done = await self.system.command(name, *options)
        printed = done.stdout + done.stderr
        self.expect(
            status is None or done.returncode == status,
            f"opstream {name} ended with {done.returncode}, not {status}: {printed}",
        )
        return printed

    def breach(self, text: str) -> None:
        """Note that something is not as it must be."""
        self.say(f"BREACH: {text.splitlines()[-1]}")
        self.result.breaches.append(text)

    async def notice(self, probe: Callable[[], Awaitable[bool]], text: str, within: float = 30.0) -> None:
        """Wait until opstream says what has happened; note a breach if it does not."""
        try:
            await eventually(probe, within=within, poll=0.2)
        except AssertionError:
            self.breach(f"{text}, not even after {within:g} s")
        else:
            self.say("opstream says so")

    def expect(self, is_true: object, text: str) -> None:
        """Note a breach unless something is true."""
        if not is_true:
            self.breach(text)

    @asynccontextmanager
    async def load(self, jobs: tuple[Job, ...] = STEADY_JOBS) -> AsyncIterator[None]:
        """Have clients submit, repeat, poll and cancel; at the end they finish what they have begun."""
        number, seed = next(self._loads), self.result.seed
        async with (
            Clients(self.system.apis, seed=seed * 10 + number, jobs=jobs, patience=PATIENCE) as clients,
            self.system.supervised(),
        ):
            self.clients = clients
            async with clients.busy(self.size.clients):
                self.probe = Probe(self.system.apis, clients, f"probe-{seed}-{number}")
                async with self.probe as probe:
                    yield
                self.say(f"no more submits; {clients.ended} operations have ended")
            self.result.longest = max(self.result.longest, probe.longest)
            self.result.slowest = max(self.result.slowest, probe.slowest)
            self.result.polls += clients.polls
            self.result.breaches += clients.problems
            self.told |= clients.told

    async def work(self) -> None:
        """Wait until so many more operations have ended as the size says."""
        goal = self.clients.ended + self.size.ends
        await eventually(lambda: self.clients.ended >= goal, within=_WORK, poll=0.05)
        self.say(f"{self.clients.ended} operations have ended")

    @asynccontextmanager
    async def struck(self) -> AsyncIterator[None]:
        """Measure one strike, from the disaster until clients work on after the recovery."""
        before = len(self.probe.outages)
        self.result.strikes += 1
        yield
        await self.work()
        self.result.aways.append(max(self.probe.outages[before:], default=0.0))

    async def served(self, within: float = _WORK) -> None:
        """Wait until the last submit was served."""
        await eventually(lambda: not self.probe.is_refused, within=within, poll=0.02)

    async def refused(self, within: float = 30.0) -> None:
        """Wait until the last submit was refused."""
        await eventually(lambda: self.probe.is_refused, within=within, poll=0.02)

    async def left(self) -> FinalState:
        """Wait until the system is quiet, and read all that it has stored."""
        return await gather_quiet(self.system.nats, within=_SOON if self.has_spare_timers else QUIET)

    def waiting(self, slack: float) -> list[str]:
        """Open operations whose next attempt is more than `slack` seconds away, or that wait for a slot of a rate."""
        far = (datetime.now(UTC) + timedelta(seconds=slack)).isoformat()
        last = {one: view.seen[-1] for one, view in self.clients.told.items() if view.seen}
        return [
            one
            for one, status in last.items()
            if status["status"] not in ENDED and (status.get("retryAt", "") > far or status.get("waitingFor") == "Rate")
        ]

    def victim(self) -> Broker:
        """Any node of the cluster."""
        return self.random.choice(self.cluster.live)

    async def check(self, *, is_verified: bool = True) -> None:
        """Check all that must hold after a recovery, and fill in the figures."""
        await self.system.settle()
        self.say("everything is ready")
        left = await self.left()
        self.say(f"quiet, with {len(left.operations)} operations")
        marks = [mark for mark in read_marks(self.folder) if mark.operation not in self.gone]
        told = {one: view for one, view in self.told.items() if one not in self.gone}
        for one in self.gone:
            left.evidence.view.pop(one, None)
            left.operations.pop(one, None)
        left.evidence.messages = [
            one for one in left.evidence.messages if not self.gone.intersection(one.subject.split(".")[1:2])
        ]
        result = self.result
        left.evidence.ignored = self.ignored
        left.evidence.is_restored = self.is_restored
        found = find_breaches(left, told, marks)
        if self.has_lost_locks:
            shared = [one for one in found if _SHARED.search(one)]
            result.notes += [f"{len(shared)} times two operations had a resource"] if shared else []
            found = [one for one in found if one not in shared]
        if self.has_spare_timers:
            spare = [one for one in found if _SPARE in one]
            result.notes += [f"{len(spare)} timers of ended operations are left, and do nothing"] if spare else []
            found = [one for one in found if one not in spare]
        result.breaches += found
        accepted = {one for one, view in self.told.items() if view.is_accepted}
        result.accepted = len(accepted)
        result.gone = len(accepted & self.gone)
        result.lost = len(accepted - self.gone - left.operations.keys())
        result.doubled = _doubled(left, [(mark.operation, mark.attempt) for mark in marks if mark.what == "begin"])
        result.backwards = sum(len(list(_going_back(view.seen, self.ignored))) for view in self.told.values())
        result.restarts = self.system.restarts.total()
        result.breaches += [one for one in self.system.tracebacks() if not (self.excused and self.excused in one)]
        await self._check_events(left)
        if is_verified:
            result.breaches += await self.system.verified()

    async def _check_events(self, left: FinalState) -> None:
        """Check that the subscriber, and the receiver of webhooks, got the event that ended each operation."""
        wanted = {
            event.id: event.operation_id
            for history in left.evidence.histories().values()
            for event in decoded(history)
            if isinstance(event.data, _OUTCOMES)
        }
        received: list[str] = []

        def missing() -> set[str]:
            path = self.folder / RECEIVED
            received[:] = path.read_text(encoding="utf-8").split() if path.exists() else []
            return wanted.keys() - set(received)

        try:
            await eventually(lambda: not missing(), within=_EVENTS, poll=0.2)
        except AssertionError:
            self.breach(f"the subscriber never got {len(missing())} of {len(wanted)} ends: {sorted(missing())[:5]}")
        self.result.repeated = len(received) - len(set(received))
        if self.receiver is not None:
            receiver = self.receiver
            ids = set(wanted.values())

            def undelivered() -> set[str]:
                return ids - {msgspec.json.decode(one.body)["subject"] for one in receiver.received}

            try:
                await eventually(lambda: not undelivered(), within=_EVENTS, poll=0.2)
            except AssertionError:
                self.breach(f"webhooks never delivered {len(undelivered())} ends: {sorted(undelivered())[:5]}")


def _doubled(left: FinalState, calls: list[tuple[str, int]]) -> int:
    """Operations with two requests or two ends, and attempts with two calls."""
    found = len(calls) - len(set(calls))
    for history in left.evidence.histories().values():
        names = [message.subject.rpartition(".")[2] for message in history]
        ends = sum(name in {"succeeded", "failed", "canceled"} for name in names)
        found += (ends > 1) + (names.count("requested") > 1)
    return found
