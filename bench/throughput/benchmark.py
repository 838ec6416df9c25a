"""The part `throughput`: opstream beside its floor."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from bench.harness.figures import Latency, percentiles
from bench.harness.process_usage import Usage
from bench.harness.system import SERVICES, BenchSystem
from bench.throughput.floor import Floor, FloorResult
from bench.throughput.load import Load, LoadResult

GROWTH: Final = (10_000, 100_000)
"""Operations in the journal at which growth is measured."""
CHUNK: Final = 10_000
"""Operations of one load while the journal is filled: one line of progress each."""

_WARM_UP: Final = 500
_REST: Final = 1.0
"""Seconds of quiet before memory is read."""
_LONG_REST: Final = 300.0
"""Seconds until the broker has dropped recent message ids and returned unused memory: Go collects the garbage of an
idle process every two minutes."""

Say = Callable[[str], None]


class ThroughputPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure."""

    operations: int
    """In each load."""
    clients: int
    samples: int
    """Operations that are timed one at a time."""
    rounds: int
    is_growing: bool
    """True to fill the journal and measure at each size in `GROWTH`; otherwise once with an empty journal."""


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """A load of many clients."""

    rate: float
    """Operations a second, from the first submit to all Succeeded."""
    submit_rate: float
    """Submits a second, until the last one."""
    polls: float
    """For each operation."""
    view_lag: float
    """Seconds from the last Succeeded until all snapshots were written."""
    view_writes: float
    """For each operation."""
    cpu: dict[str, float]
    """Milliseconds for each operation, by process; `load` is the load generator."""


class ThroughputRound(msgspec.Struct, frozen=True, kw_only=True):
    """The floor and opstream, measured one after the other."""

    floor_rate: float
    """Operations a second."""
    floor_cpu: dict[str, float]
    """Milliseconds for each operation: client and broker."""
    floor_alone: Latency
    """Three publishes, one operation at a time."""
    submit: Latency
    total: Latency
    """From submit to Succeeded, one operation at a time."""
    throughput: Throughput

    @property
    def share(self) -> float:
        """opstream's rate as a part of the floor's."""
        return self.throughput.rate / self.floor_rate


class MemoryUse(msgspec.Struct, frozen=True):
    """Memory of the processes."""

    stored: int
    """Operations in the journal."""
    rss: dict[str, int]
    """Bytes, by process."""


class JournalPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The figures with a journal of some size."""

    before: MemoryUse
    rested: MemoryUse | None
    """After some minutes of quiet; only where growth is measured."""
    rounds: list[ThroughputRound]
    after: MemoryUse


def measure_throughput(plan: ThroughputPlan, say: Say) -> list[JournalPoint]:
    """Measure everything that the plan asks for.

    Raises:
        BenchFailed: a process did not start or failed.
        CommandError: there is no free port, or no nats-server.
    """
    with tempfile.TemporaryDirectory(prefix="opstream-bench-") as name:
        folders = Path(name, "floor"), Path(name, "system")
        for folder in folders:
            folder.mkdir()
        say("starting a broker for the floor, and broker, api, runner and projector")
        with BenchSystem(folders[0]) as floor, BenchSystem(folders[1]) as system:
            floor.start_broker()
            system.start_broker()
            system.start_services(concurrency=plan.clients)
            bench = _ThroughputBench(plan, floor, system, say)
            bench.warm_up()
            return [bench.point(stored) for stored in (GROWTH if plan.is_growing else (0,))]


class _ThroughputBench:
    def __init__(self, plan: ThroughputPlan, floor: BenchSystem, system: BenchSystem, say: Say) -> None:
        self._plan = plan
        self._floor = floor
        self._system = system
        self._say = say
        self._stored = 0

    def warm_up(self) -> None:
        self._run_floor(_WARM_UP, samples=1)
        self._load(_WARM_UP)
        self._load(_WARM_UP // 5, is_alone=True)

    def point(self, stored: int) -> JournalPoint:
        while self._stored < stored:
            done = self._load(min(CHUNK, stored - self._stored))
            rate = done.operations / done.seconds
            self._say(f"filling: {self._stored:,} of {stored:,} operations in the journal ({rate:,.0f}/s)")
        before, rested = self._memory(_REST), None
        if self._plan.is_growing:
            self._say(f"{_LONG_REST:g} s of quiet, then memory again")
            rested = self._memory(_LONG_REST)
        rounds = [self._round(f"round {number} of {self._plan.rounds}") for number in range(1, self._plan.rounds + 1)]
        return JournalPoint(before=before, rested=rested, rounds=rounds, after=self._memory(_REST))

    def _round(self, name: str) -> ThroughputRound:
        plan = self._plan
        begin = self._floor.usage()["broker"].cpu
        floor = self._run_floor(plan.operations, samples=plan.samples)
        broker = (self._floor.usage()["broker"].cpu - begin) / (plan.operations + plan.samples)
        floor_rate = floor.operations / floor.seconds
        alone = self._load(plan.samples, is_alone=True)
        total = percentiles(alone.totals)
        throughput = self._throughput()
        self._say(
            f"{name}: floor {floor_rate:,.0f}/s, opstream {throughput.rate:,.0f}/s = "
            f"{throughput.rate / floor_rate:.2f} of it; alone p50 {total.p50:.2f} ms"
        )
        return ThroughputRound(
            floor_rate=floor_rate,
            floor_cpu={"client": floor.cpu * 1000 / floor.operations, "broker": broker * 1000},
            floor_alone=percentiles(floor.alone),
            submit=percentiles(alone.submits),
            total=total,
            throughput=throughput,
        )

    def _throughput(self) -> Throughput:
        written = self._system.wait_for_snapshots().writes
        before = self._system.usage()
        result = self._load(self._plan.operations)
        view = self._system.wait_for_snapshots()
        return Throughput(
            rate=result.operations / result.seconds,
            submit_rate=result.operations / result.submit_seconds,
            polls=result.polls / result.operations,
            view_lag=view.lag,
            view_writes=(view.writes - written) / result.operations,
            cpu=_cpu(before, self._system.usage(), result),
        )

    def _run_floor(self, operations: int, *, samples: int) -> FloorResult:
        floor = Floor(url=self._floor.nats_url, operations=operations, in_flight=self._plan.clients, samples=samples)
        return msgspec.json.decode(self._floor.run_child("bench.throughput.floor", floor), type=FloorResult)

    def _load(self, operations: int, *, is_alone: bool = False) -> LoadResult:
        clients = 1 if is_alone else self._plan.clients
        load = Load(port=self._system.port, clients=clients, operations=operations, is_alone=is_alone)
        result = msgspec.json.decode(self._system.run_child("bench.throughput.load", load), type=LoadResult)
        self._stored += operations
        return result

    def _memory(self, rest: float) -> MemoryUse:
        self._system.wait_for_snapshots()
        time.sleep(rest)
        self._system.check_processes()
        return MemoryUse(self._stored, {name: usage.rss for name, usage in self._system.usage().items()})


def _cpu(before: dict[str, Usage], after: dict[str, Usage], result: LoadResult) -> dict[str, float]:
    used = {name: after[name].cpu - before[name].cpu for name in SERVICES} | {"load": result.cpu}
    return {name: seconds * 1000 / result.operations for name, seconds in used.items()}
