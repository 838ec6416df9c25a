"""The part `backlog`: submits at a steady rate while many requests wait, first without a runner, then while one drains.

The queue is filled in the API's form, straight in the journal. The projector folds it and, half a minute later,
schedules a deadline for each request.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.harness.figures import Latency
from bench.harness.progress import Progress
from bench.harness.system import RUNNER, SERVICES, BenchSystem
from bench.harness.table import MIB, Rows, figure_table
from bench.runners import queue_fill
from bench.runners.drain import ACTIONS, CONCURRENCY
from bench.scale.steady_submits import SteadySubmits, SteadySubmitsResult
from bench.throughput.benchmark import CHUNK

BACKLOG: Final = "backlog"

_RATE: Final = 100.0
_SUBMITS: Final = 1_500
_IN_FLIGHT: Final = 64
_PROJECTOR_TIMEOUT: Final = 1_800.0


class BacklogFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Submits at one moment of the queue's life."""

    name: str
    waiting: int
    """Requests in the queue when the first was submitted, at the most."""
    latency: Latency
    """Milliseconds, from the moment at which a submit was to be sent."""
    over_25_ms: float
    """Share of the submits."""
    cpu: dict[str, float]
    """Shares of a core, by process."""
    rss: dict[str, int]
    """Bytes, by process, at the end."""


_ROWS: Final[Rows[BacklogFigures]] = (
    ("waiting", lambda f: f.waiting, "{:,}"),
    ("submit, p50 ms", lambda f: f.latency.p50, "{:.2f}"),
    ("submit, p99 ms (aim: at most 25)", lambda f: f.latency.p99, "{:.2f}"),
    ("submit, max ms", lambda f: f.latency.max, "{:.2f}"),
    ("slower than 25 ms, share", lambda f: f.over_25_ms, "{:.4f}"),
    *((f"{name}, share of a core", lambda f, n=name: f.cpu.get(n, 0.0), "{:.2f}") for name in (*SERVICES, "load")),
    *((f"{name}, MiB", lambda f, n=name: f.rss.get(n, 0) / MIB, "{:.0f}") for name in SERVICES),
)


def measure_backlog(waiting: int, progress: Progress) -> list[BacklogFigures]:
    """Submit beside an empty queue, and at three moments of a full one.

    Raises:
        BenchFailed: a process did not start or failed.
        CommandError: there is no free port, or no nats-server.
    """
    with tempfile.TemporaryDirectory(prefix="opstream-bench-") as folder, BenchSystem(Path(folder)) as system:
        system.start_broker()
        system.start_all_but_runner()
        # Started once, so that its action is announced and its consumer exists.
        system.start_runner(RUNNER, concurrency=CONCURRENCY, actions=ACTIONS)
        system.stop(RUNNER)
        found = [_submit(system, progress, "empty queue", 0)]
        _fill(system, waiting, progress)
        found.append(_submit(system, progress, "just filled", waiting))
        progress.say("the projector folds the requests, and schedules their deadlines half a minute later")
        system.wait_for_projector(_PROJECTOR_TIMEOUT)
        found.append(_submit(system, progress, "full queue", waiting))
        system.start_runner(RUNNER, concurrency=CONCURRENCY, actions=ACTIONS)
        found.append(_submit(system, progress, "drained", waiting))
        return found


def backlog_lines(found: Sequence[BacklogFigures]) -> Iterator[str]:
    """The table, if it was measured."""
    if found:
        yield f"\nsubmits at {_RATE:g} a second while requests wait"
        yield from figure_table([one.name for one in found], _ROWS, found)


def _fill(system: BenchSystem, waiting: int, progress: Progress) -> None:
    progress.begin("filling the queue", waiting)
    for done in range(0, waiting, CHUNK):
        count = min(CHUNK, waiting - done)
        task = queue_fill.QueueFill(nats_url=system.nats_url, operations=count, in_flight=_IN_FLIGHT)
        system.run_child("bench.runners.queue_fill", task)
        progress.show(done + count)
    progress.end()


def _submit(system: BenchSystem, progress: Progress, name: str, waiting: int) -> BacklogFigures:
    before = system.usage()
    task = SteadySubmits(port=system.port, rate=_RATE, submits=_SUBMITS)
    result = msgspec.json.decode(system.run_child("bench.scale.steady_submits", task), type=SteadySubmitsResult)
    after = system.usage()
    used = {process: (after[process].cpu - before[process].cpu) / result.seconds for process in after}
    progress.say(f"{name}: submit p50 {result.latency.p50:.2f} ms, p99 {result.latency.p99:.2f} ms")
    return BacklogFigures(
        name=name,
        waiting=waiting,
        latency=result.latency,
        over_25_ms=result.over_25_ms,
        cpu=used | {"load": result.cpu / result.seconds},
        rss={process: usage.rss for process, usage in after.items()},
    )
