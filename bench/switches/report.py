"""The tables of the part `throughput` with `--with`, and whether what is switched on costs more than it may."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Final

from bench.harness.table import table
from bench.releases.comparison import Turn
from bench.releases.report import AGREEMENT, CPU, RATE, ROWS

from .comparison import SwitchFigures, names_of

ALLOWED: Final = 0.03
"""The part of its rate that a system may lose by what is switched on."""


def switch_lines(found: SwitchFigures | None) -> Iterator[str]:
    """A table for each combination, if they were measured, and its verdict."""
    if found is None:
        return
    plan = found.plan
    for switches, turns in zip(plan.combinations, found.switched, strict=True):
        name = names_of(switches)
        yield ""
        yield (
            f"with {name} beside nothing: {plan.clients} clients, {plan.turns} turns of {plan.operations:,} operations "
            f"and {plan.samples:,} one at a time; medians, and the median of the turns' ratios"
        )
        yield from table(["nothing", "with", "ratio"], [row.cells(found.plain, turns, "{:.3f}") for row in ROWS])
        yield f"  operations a second: {_verdict(RATE.ratios(found.plain, turns))}"
        yield f"  processor time: {_processor(found.plain, turns)}"


def _verdict(ratios: Sequence[float]) -> str:
    ratio, least = statistics.median(ratios), 1 - ALLOWED
    is_held = ratio >= least
    agreeing = sum((one >= least) == is_held for one in ratios)
    if agreeing < AGREEMENT * len(ratios):
        return f"not decided ({ratio:.3f} times, but only {agreeing} of {len(ratios)} turns agree): use more turns"
    return f"{ratio:.3f} times: {'HELD' if is_held else 'NOT HELD'} (it may lose {ALLOWED:.0%})"


def _processor(plain: Sequence[Turn], turns: Sequence[Turn]) -> str:
    more = [CPU.figure(now) - CPU.figure(before) for before, now in zip(plain, turns, strict=True)]
    return f"{statistics.median(more) * 1000:+.0f} µs an operation, {min(more) * 1000:+.0f} to {max(more) * 1000:+.0f}"
