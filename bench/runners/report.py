"""Tables of the parts about runners."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Final

import msgspec

from bench.harness.system import SERVICES
from bench.harness.table import MIB, Rows, figure_table, table
from bench.runners.benchmark import RunnerFigures
from bench.runners.drain import DrainFigures
from bench.runners.priorities import SLOTS, PriorityFigures
from bench.runners.recovery import RecoveryFigures
from opstream_schemas.operation.priority import PRIORITIES

_RECOVERIES: Final[Rows[RecoveryFigures]] = (
    ("operations that were lost", lambda f: f.operations, "{:,}"),
    ("from the kill to the next attempt, p50 s", lambda f: f.next.p50 / 1000, "{:.2f}"),
    ("from the kill to the next attempt, max s", lambda f: f.next.max / 1000, "{:.2f}"),
    ("  what was left of the lease, p50 s", lambda f: f.left.p50 / 1000, "{:.2f}"),
    ("  what was left of the lease, max s", lambda f: f.left.max / 1000, "{:.2f}"),
    ("  the lease, as a share of the whole", lambda f: f.share, "{:.3f}"),
    ("  after the lease, p50 ms", lambda f: f.late.p50, "{:.0f}"),
    ("  after the lease, p99 ms", lambda f: f.late.p99, "{:.0f}"),
    ("  after the lease, max ms", lambda f: f.late.max, "{:.0f}"),
    ("from the first next attempt to the last, s", lambda f: f.span, "{:.2f}"),
    ("from the kill until all had ended, s", lambda f: f.ended, "{:.2f}"),
)
_DRAINS: Final[Rows[DrainFigures]] = (
    ("requests stored, a second", lambda f: f.fill_rate, "{:,.0f}"),
    ("drained, operations/s", lambda f: f.rate, "{:,.0f}"),
    ("  the first tenth", lambda f: f.first_tenth, "{:,.0f}"),
    ("  the last tenth", lambda f: f.last_tenth, "{:,.0f}"),
    ("from the runner's start until all were done, s", lambda f: f.seconds, "{:.1f}"),
    ("  the projector was done after that, s", lambda f: f.projector_lag, "{:.1f}"),
    *(
        (f"processor time, {name}, ms/operation", lambda f, name=name: f.cpu[name], "{:.2f}")
        for name in SERVICES
        if name != "api"
    ),
    ("journal before, MiB", lambda f: f.before.journal_bytes / MIB, "{:.1f}"),
    ("journal after, MiB", lambda f: f.after.journal_bytes / MIB, "{:.1f}"),
    ("journal after, bytes an operation", lambda f: f.after.journal_bytes / f.waiting, "{:,.0f}"),
    ("view after, MiB", lambda f: f.after.view_bytes / MIB, "{:.1f}"),
    ("deadlines armed before", lambda f: f.before.timers, "{:,}"),
    ("deadlines armed after", lambda f: f.after.timers, "{:,}"),
)
_MOMENTS: Final = ("before", "peak", "after")


def runner_lines(found: RunnerFigures) -> Iterator[str]:
    """The tables of all parts that were measured."""
    if found.recoveries:
        yield "\na runner is killed, another one is alive; by lease"
        yield from figure_table([f"{one.lease:g} s" for one in found.recoveries], _RECOVERIES, found.recoveries)
    if found.priorities is not None:
        yield from _priority_lines(found.priorities)
    for one in found.drains:
        yield f"\na runner (concurrency {one.concurrency}) finds a queue; by operations that wait"
        yield from figure_table([f"{one.waiting:,}"], _DRAINS, [one])
        yield "\n  memory, MiB: before the runner came, the most while it drained, and when the projector was done"
        rows = [[name, *(_memory(one, moment, name) for moment in _MOMENTS)] for name in SERVICES if name != "api"]
        yield from table(list(_MOMENTS), rows)


def _priority_lines(found: PriorityFigures) -> Iterator[str]:
    every = sum(found.shares.values())
    yield f"\na saturated runner (concurrency {SLOTS}): attempts that begin while all three priorities wait"
    shares = [[str(one), f"{100 * found.shares[one] / every:.1f}", str(found.gaps[one])] for one in PRIORITIES]
    yield from table(["of 100", "most others between two"], shares)
    yield "\n  from the request to the begin, ms, of what comes behind others"
    waits = [
        [f"{one.arrivals} behind {one.behind}", *(f"{value:,.0f}" for value in msgspec.structs.astuple(one.seconds))]
        for one in found.waits
    ]
    yield from table(["p50", "p99", "max"], waits)
    yield "\n  operations/s of an action that does nothing, median of the rounds"
    rates = [[name or "without priorities", f"{statistics.median(some):,.0f}"] for name, some in found.rates.items()]
    yield from table(["drained"], rates)


def _memory(found: DrainFigures, moment: str, name: str) -> str:
    used = found.rss[moment]
    return f"{used[name] / MIB:.1f}" if name in used else "-"
