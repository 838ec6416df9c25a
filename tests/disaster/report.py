"""The report of disasters: a table for people, and JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from tests.disaster.stage import RoundResult

_COLUMNS: Final = (
    "scenario",
    "times",
    "accepted",
    "polls",
    "lost",
    "gone",
    "doubled",
    "backwards",
    "away s",
    "longest submit s",
    "slowest end s",
    "restarts",
    "what the operator did",
)


def table(results: Sequence[RoundResult]) -> str:
    """One row for each scenario, in Markdown. Times are the median and the worst."""
    rows = [_COLUMNS, *(_row(name, [one for one in results if one.scenario == name]) for name in _names(results))]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(_COLUMNS) + "|", *lines[1:]])


def breaches(results: Sequence[RoundResult]) -> list[str]:
    """Every breach, with its scenario and seed."""
    return [f"{one.scenario}, seed {one.seed}: {breach}" for one in results for breach in one.breaches]


def write_json(results: Sequence[RoundResult], path: Path) -> None:
    """Write all rounds."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")


def _names(results: Sequence[RoundResult]) -> Iterator[str]:
    yield from dict.fromkeys(one.scenario for one in results)


def _row(name: str, rounds: list[RoundResult]) -> tuple[str, ...]:
    if skipped := next((one.skipped for one in rounds if one.skipped), ""):
        return (name, "skipped", *[""] * (len(_COLUMNS) - 3), skipped)
    sums = [sum(getattr(one, figure) for one in rounds) for figure in _SUMMED]
    times = [
        [away for one in rounds for away in one.aways] or [0.0],
        [one.longest for one in rounds],
        [one.slowest for one in rounds],
    ]
    steps = dict.fromkeys(step for one in rounds for step in one.operator + one.notes)
    return (
        name,
        str(sum(one.strikes for one in rounds)),
        *map(str, sums),
        *(f"{median(one):.1f}, {max(one):.1f}" for one in times),
        str(sum(one.restarts for one in rounds)),
        "; ".join(steps) or "nothing",
    )


_SUMMED: Final = ("accepted", "polls", "lost", "gone", "doubled", "backwards")
