"""Runs the parts about scale. They are long, so `make bench` runs them only when they are named."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench.harness.progress import Progress
from bench.scale.backlog import BACKLOG, BacklogFigures, backlog_lines, measure_backlog
from bench.scale.cluster import CLUSTER, ClusterFigures, cluster_lines, measure_cluster
from bench.scale.floors import FLOORS, FloorFigures, floor_lines, measure_floors
from bench.scale.long_journal import LONG_JOURNAL, LongJournalFigures, long_journal_lines, measure_long_journal

PARTS: Final = (FLOORS, CLUSTER, LONG_JOURNAL, BACKLOG)


class ScalePlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure."""

    copies: tuple[int, ...]
    """Of each event, on as many servers."""
    delays: tuple[float, ...]
    """Seconds that each sync takes longer."""
    kept: int
    """Operations in the long journal."""
    waiting: int
    """Requests in the queue."""
    folder: Path | None
    """Keeps the long journal; None for a temporary folder."""


class ScaleFigures(msgspec.Struct, kw_only=True):
    """The figures; empty for parts that were not selected."""

    floors: list[FloorFigures] = []
    clusters: list[ClusterFigures] = []
    journals: list[LongJournalFigures] = []
    backlog: list[BacklogFigures] = []


def measure_scale(parts: Collection[str], plan: ScalePlan, progress: Progress) -> ScaleFigures:
    """Measure the selected parts.

    Raises:
        BenchFailed: a process did not start or failed, or there is no strace.
        CommandError: there is no free port, or no nats-server.
    """
    return ScaleFigures(
        floors=measure_floors(plan.copies, plan.delays, progress.say) if FLOORS in parts else [],
        clusters=measure_cluster(plan.copies, plan.delays, progress) if CLUSTER in parts else [],
        journals=measure_long_journal(plan.kept, plan.folder, progress) if LONG_JOURNAL in parts else [],
        backlog=measure_backlog(plan.waiting, progress) if BACKLOG in parts else [],
    )


def scale_lines(found: ScaleFigures) -> Iterator[str]:
    """The tables of what was measured."""
    yield from floor_lines(found.floors)
    yield from cluster_lines(found.clusters)
    yield from long_journal_lines(found.journals)
    yield from backlog_lines(found.backlog)
