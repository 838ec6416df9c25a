"""The table of the part `release`, and what it says."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from bench.harness.table import MIB, table

from .comparison import OPERATIONS, PROCESSES, SAMPLES, ReleaseFigures, Turn

NOISE: Final = 0.03
"""A median ratio that differs by less from 1 says nothing."""
AGREEMENT: Final = 0.8
"""Nor does one that fewer of the turns agree with: other work came and went meanwhile."""


class Row(NamedTuple):
    """A figure of turns."""

    name: str
    figure: Callable[[Turn], float]
    form: str
    is_better_higher: bool = False

    def ratios(self, before: Sequence[Turn], now: Sequence[Turn]) -> list[float]:
        """Of the turns that came one after the other."""
        pairs = zip(before, now, strict=True)
        return [self.figure(later) / max(self.figure(earlier), 1e-9) for earlier, later in pairs]

    def cells(self, before: Sequence[Turn], now: Sequence[Turn], form: str = "{:.2f}") -> list[str]:
        """Its line: both medians, and the median of the ratios."""
        medians = [statistics.median(map(self.figure, turns)) for turns in (before, now)]
        return [self.name, *map(self.form.format, medians), form.format(statistics.median(self.ratios(before, now)))]


RATE: Final = Row("operations/s", lambda t: t.rate, "{:,.0f}", is_better_higher=True)
_ALONE: Final = Row("one at a time: submit to Succeeded, p50 ms", lambda t: t.alone, "{:.2f}")
CPU: Final = Row("processor time, all of these, ms/operation", lambda t: sum(t.cpu.values()), "{:.2f}")
_RSS: Final = Row("memory (RSS), all of these, MiB", lambda t: t.rss / MIB, "{:.0f}")
ROWS: Final = (
    RATE,
    Row("  polls for each operation", lambda t: t.polls, "{:.2f}"),
    _ALONE,
    *(Row(f"processor time, {name}, ms/operation", lambda t, n=name: t.cpu[n], "{:.3f}") for name in PROCESSES),
    CPU,
    _RSS,
)
_JUDGED: Final = {"operations a second": RATE, "one at a time": _ALONE, "processor time": CPU, "memory": _RSS}


def release_lines(found: ReleaseFigures | None) -> Iterator[str]:
    """The table of the part `release`, if it was measured, and whether this checkout is better or worse."""
    if found is None:
        return
    yield ""
    yield (
        f"compared with version {found.version}: {found.clients} clients, {len(found.now)} turns of {OPERATIONS:,} "
        f"operations and {SAMPLES} one at a time; medians, and the median of the turns' ratios"
    )
    yield from table([found.version, "now", "ratio"], [row.cells(found.before, found.now) for row in ROWS])
    for name, row in _JUDGED.items():
        yield f"  {name}: {_verdict(row, row.ratios(found.before, found.now), found.version)}"


def _verdict(row: Row, ratios: list[float], version: str) -> str:
    ratio = statistics.median(ratios)
    if abs(ratio - 1) < NOISE:
        return f"as in {version} (less than {NOISE:.0%} apart)"
    agreeing = sum((one > 1) == (ratio > 1) for one in ratios)
    if agreeing < AGREEMENT * len(ratios):
        return f"not decided ({ratio:.2f} times, but only {agreeing} of {len(ratios)} turns agree): use more turns"
    return f"{'better' if (ratio > 1) == row.is_better_higher else 'WORSE'} than {version}, {ratio:.2f} times"
