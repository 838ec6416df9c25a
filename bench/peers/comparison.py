"""The tables of the part `peers`, in Markdown: a column for each peer, each figure the median of its rounds.

Runs for which the machine was not as free as for the others are left out (`comparable`), and counted in the last row.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from bench.harness.table import MIB
from bench.peers.benchmark import PeerFigures, PeerRun, PeersFigures
from bench.peers.probe import MEASURED, Mode

TOLERANCE: Final = 0.15
"""By how much the work before a run may have taken more or less time than the median, as a share."""
NOTHING: Final = "-"
DOUBTFUL: Final = "*"
"""Behind a figure whose runs were all made while the machine was busier or freer than usual."""


class _Row(NamedTuple):
    name: str
    mode: Mode
    figure: Callable[[PeerRun], float]
    digits: int


_ROWS: Final = (
    _Row("burst, operations/s", Mode.BURST, lambda r: r.rate, 0),
    _Row("burst: submits/s", Mode.BURST, lambda r: r.submit_rate, 0),
    _Row("closed loop, operations/s", Mode.CLOSED, lambda r: r.rate, 0),
    _Row("closed loop: submit to result, p50 ms", Mode.CLOSED, lambda r: r.total_p50, 0),
    _Row("closed loop: submit to result, p99 ms", Mode.CLOSED, lambda r: r.total_p99, 0),
    _Row("one at a time: submit, p50 ms", Mode.ALONE, lambda r: r.submit_p50, 2),
    _Row("one at a time: submit to result, p50 ms", Mode.ALONE, lambda r: r.total_p50, 2),
    _Row("one at a time: submit to result, p99 ms", Mode.ALONE, lambda r: r.total_p99, 2),
    _Row("processor time in the burst, ms an operation", Mode.BURST, lambda r: sum(r.cpu.values()), 2),
    _Row("processor time in the closed loop, ms an operation", Mode.CLOSED, lambda r: sum(r.cpu.values()), 2),
    _Row("the client's in the burst, ms an operation", Mode.BURST, lambda r: r.client_cpu, 2),
    _Row("the client's in the closed loop, ms an operation", Mode.CLOSED, lambda r: r.client_cpu, 2),
    _Row("GETs an operation in the burst", Mode.BURST, lambda r: r.polls, 2),
    _Row("GETs an operation in the closed loop", Mode.CLOSED, lambda r: r.polls, 2),
)


def spread(figures: Sequence[float], digits: int) -> str:
    """The median, and the least and the most in brackets if there are several; `NOTHING` without any."""
    if not figures:
        return NOTHING
    middle, least, most = (f"{one:,.{digits}f}" for one in (statistics.median(figures), min(figures), max(figures)))
    return middle if len(figures) == 1 else f"{middle} ({least}-{most})"


def comparable(runs: Iterable[PeerRun], usual: float) -> list[PeerRun]:
    """The runs before which the fixed work took `usual` milliseconds, give or take `TOLERANCE`."""
    return [run for run in runs if abs(run.calibration - usual) <= usual * TOLERANCE]


def usual_calibration(found: PeersFigures) -> float:
    """The median of the fixed work before all runs of all peers, in milliseconds; 0 without any."""
    return statistics.median(
        [r.calibration for one in found.peers for runs in one.runs.values() for r in runs] or [0.0]
    )


def markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table in Markdown; the first row holds the heads."""
    for number, row in enumerate(rows):
        yield f"| {' | '.join(row)} |"
        if not number:
            yield "|" + "---|" * len(row)


def peers_lines(found: PeersFigures | None) -> Iterator[str]:
    """The tables, if the part was measured."""
    if found is None:
        return
    plan, usual = found.plan, usual_calibration(found)
    yield ""
    yield (
        f"{plan.clients} clients; bursts and closed loops of {plan.operations:,} operations, {plan.samples:,} one at a "
        f"time; medians (least-most) of {plan.rounds} rounds, in which the peers took turns"
        + (f"; each fsync takes {plan.fsync_us:,} us longer." if plan.fsync_us else ".")
    )
    yield ""
    yield from markdown(list(_comparison(found.peers, usual)))
    yield ""
    yield from markdown(list(_processes(found.peers, usual)))
    yield ""
    yield (
        f"The fixed work before each run took {usual:.0f} ms (median). Runs before which it took {TOLERANCE:.0%} more "
        f"or less are left out; where that leaves none, the figure has a {DOUBTFUL} and is not comparable."
    )
    yield from (f"{one.peer}: {one.about}." for one in found.peers)
    yield from (f"FAILED {one.peer}, {failure}" for one in found.peers for failure in one.failures)


def _comparison(peers: Sequence[PeerFigures], usual: float) -> Iterator[list[str]]:
    yield ["", *(one.peer for one in peers)]
    for row in _ROWS:
        yield [row.name, *(_cell(one.runs.get(row.mode, ()), row.figure, row.digits, usual) for one in peers)]
    yield ["memory after start, MiB (PSS)", *(spread(_sums(one.started), 0) for one in peers)]
    yield ["memory after load, MiB (PSS)", *(spread(_sums(one.loaded), 0) for one in peers)]
    yield ["runs that count, of all", *(_counted(one, usual) for one in peers)]


def _processes(peers: Sequence[PeerFigures], usual: float) -> Iterator[list[str]]:
    """A row for each process of each peer."""
    yield [
        "process",
        *(f"{mode}: processor time, ms an operation" for mode in MEASURED),
        "memory after start, MiB (PSS)",
        "after load",
    ]
    for one in peers:
        for name in one.started[-1] if one.started else ():
            figure = partial(_cpu_of, name)
            times = [_cell(one.runs.get(mode, ()), figure, 2, usual) for mode in MEASURED]
            memory = [spread([sizes.get(name, 0) / MIB for sizes in each], 0) for each in (one.started, one.loaded)]
            yield [f"{one.peer}: {name}", *times, *memory]


def _cell(runs: Sequence[PeerRun], figure: Callable[[PeerRun], float], digits: int, usual: float) -> str:
    kept = comparable(runs, usual)
    return spread([figure(run) for run in kept or runs], digits) + (DOUBTFUL if runs and not kept else "")


def _cpu_of(name: str, run: PeerRun) -> float:
    return run.cpu.get(name, 0.0)


def _sums(memories: Sequence[dict[str, int]]) -> list[float]:
    return [sum(sizes.values()) / MIB for sizes in memories]


def _counted(one: PeerFigures, usual: float) -> str:
    runs = [run for each in one.runs.values() for run in each]
    return f"{len(comparable(runs, usual))} of {len(runs)}"
