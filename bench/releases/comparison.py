"""The part `release`: this checkout and an earlier version, loaded in turns of a few seconds.

Both systems run all the time, so what else the machine does slows both. Runs of a minute, one after the other, differ
by up to a third on the same code; medians of such turns by less than 3 %.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench.harness.figures import percentiles
from bench.harness.system import SERVICES, WEBHOOKS, BenchSystem
from bench.throughput.load import Load, LoadResult

from .sources import environment_of, unpack

RELEASE: Final = "release"
PROCESSES: Final = (*SERVICES, WEBHOOKS)
OPERATIONS: Final = 1_500
"""In a turn; they take about three seconds."""
SAMPLES: Final = 150
"""Operations in a turn that are timed one at a time."""

_WARM_UP: Final = 600


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One load of one version."""

    rate: float
    """Operations a second, from the first submit to all Succeeded."""
    polls: float
    """For each operation."""
    alone: float
    """From submit to Succeeded, one operation at a time: p50 in milliseconds."""
    cpu: dict[str, float]
    """Milliseconds for each operation, by process, until all snapshots were written."""
    rss: int
    """Bytes of all processes together, at the end of the turn."""


class ReleaseFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The turns of both versions; those with the same index came one after the other."""

    version: str
    """The earlier one."""
    clients: int
    before: list[Turn]
    now: list[Turn]


def compare_release(version: str, *, clients: int, turns: int, say: Callable[[str], None]) -> ReleaseFigures:
    """Load this checkout and an earlier version in turns.

    Args:
        version: the earlier one, of `sources.BEFORE`.
        clients: HTTP clients.
        turns: of each version.
        say: prints a line of progress.

    Raises:
        BenchFailed: the earlier version is not in this checkout's history; a process did not start or failed.
        CommandError: there is no free port, or no nats-server.
    """
    with tempfile.TemporaryDirectory(prefix="opstream-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        say(f"starting broker, api, runner, projector and webhooks of version {version}, and of this checkout")
        sources = unpack(version, folder)
        folders = [folder / "before", folder / "now"]
        for one in folders:
            one.mkdir()
        old = BenchSystem(folders[0], sources=sources, environment=environment_of(sources))
        before = Side(stack.enter_context(old), clients)
        now = Side(stack.enter_context(BenchSystem(folders[1])), clients)
        before.warm_up()
        now.warm_up()
        figures = ReleaseFigures(version=version, clients=clients, before=[], now=[])
        for number in range(turns):
            sides = [(before, figures.before), (now, figures.now)]
            for side, found in sides if number % 2 == 0 else sides[::-1]:  # neither always runs on the other's wake
                found.append(side.turn())
            say(
                f"turn {number + 1} of {turns}: {version} {figures.before[-1].rate:,.0f}/s, "
                f"this checkout {figures.now[-1].rate:,.0f}/s"
            )
        return figures


class Side:
    """One of the systems that are loaded in turns.

    Args:
        system: nothing of it runs yet; everything is started.
        clients: HTTP clients.
    """

    def __init__(self, system: BenchSystem, clients: int) -> None:
        self._clients = clients
        self._system = system
        self._system.start_broker()
        self._system.start_services(concurrency=clients)
        self._system.start_webhooks()

    def warm_up(self, operations: int = _WARM_UP) -> None:
        """Load it, so that its caches are filled and its code was run."""
        self._load(operations)
        self._load(operations // 5, is_alone=True)
        self._system.wait_for_snapshots()

    def turn(self, operations: int = OPERATIONS, samples: int = SAMPLES) -> Turn:
        """Load it once.

        Raises:
            BenchFailed: a process ended or failed.
        """
        begin = self._system.usage()
        result = self._load(operations)
        self._system.wait_for_snapshots()
        end = self._system.usage()
        alone = self._load(samples, is_alone=True)
        self._system.wait_for_snapshots()
        return Turn(
            rate=result.operations / result.seconds,
            polls=result.polls / result.operations,
            alone=percentiles(alone.totals).p50,
            cpu={name: (end[name].cpu - begin[name].cpu) * 1000 / result.operations for name in PROCESSES},
            rss=sum(usage.rss for usage in end.values()),
        )

    def _load(self, operations: int, *, is_alone: bool = False) -> LoadResult:
        clients = 1 if is_alone else self._clients
        load = Load(
            port=self._system.port, clients=clients, operations=operations, is_alone=is_alone, key=self._system.key
        )
        return msgspec.json.decode(self._system.run_child("bench.throughput.load", load), type=LoadResult)
