"""Runs the parts about runners: one that is killed, one that starts with a long queue, and one with priorities."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import msgspec

from bench.harness.progress import Progress
from bench.harness.system import BenchSystem
from bench.runners.drain import Drain, DrainFigures
from bench.runners.priorities import PriorityFigures, measure_priorities
from bench.runners.recovery import RecoveryFigures, measure_recovery

RECOVERY: Final = "recovery"
DRAIN: Final = "drain"
PRIORITY: Final = "priorities"
PARTS: Final = (RECOVERY, DRAIN, PRIORITY)

LOST: Final = 100
"""Operations that the killed runner runs."""


class RunnerFigures(msgspec.Struct, kw_only=True):
    """The figures; empty for parts that were not selected."""

    recoveries: list[RecoveryFigures] = []
    drains: list[DrainFigures] = []
    priorities: PriorityFigures | None = None


def measure_runners(parts: Collection[str], waiting: int, progress: Progress) -> RunnerFigures:
    """Measure the selected parts, each on a broker of its own.

    Args:
        parts: of `PARTS`.
        waiting: operations in the queue.
        progress: shows progress.

    Raises:
        BenchFailed: a process did not start or failed.
        CommandError: there is no free port, or no nats-server.
    """
    found = RunnerFigures()

    def lose_runners(system: BenchSystem) -> None:
        progress.say(f"{LOST} operations will lose their runner, for each lease")
        found.recoveries = measure_recovery(system, LOST)
        for one in found.recoveries:
            progress.say(
                f"a lease of {one.lease:g} s: the next attempt began p50 {one.next.p50 / 1000:.2f} s, max "
                f"{one.next.max / 1000:.2f} s after the kill, p50 {one.late.p50:.0f} ms after the lease"
            )

    def measure_drain(system: BenchSystem) -> None:
        found.drains = [Drain(system, waiting, progress).run()]

    def compare_priorities(system: BenchSystem) -> None:
        found.priorities = measure_priorities(system, progress.say)

    measures: dict[str, Callable[[BenchSystem], None]] = {
        RECOVERY: lose_runners,
        DRAIN: measure_drain,
        PRIORITY: compare_priorities,
    }
    for part in PARTS:
        if part in parts:
            with tempfile.TemporaryDirectory(prefix="opstream-bench-") as name:
                progress.say("starting broker, api and projector")
                with BenchSystem(Path(name)) as system:
                    system.start_broker()
                    system.start_all_but_runner()
                    measures[part](system)
    return found
