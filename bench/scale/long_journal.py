"""The part `long-journal`: opstream with a long journal beside opstream with an empty one, in turn.

The journal is filled on a broker that does not sync, the view by `opstream rebuild`, and the consumers' messages are
acknowledged unread. Then the same store gets a broker that syncs each write.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from bench.harness.figures import percentiles
from bench.harness.process_usage import BenchFailed
from bench.harness.progress import Progress
from bench.harness.system import ROOT, RUNNER, SERVICES, BenchSystem
from bench.harness.table import MIB, Rows, figure_table
from bench.history import journal_fill
from bench.runners.drain import ACTIONS
from bench.scale.servers import Servers
from bench.scale.skipped_events import SkippedEvents
from bench.throughput.benchmark import CHUNK
from bench.throughput.load import Load, LoadResult
from opstream_schemas import subjects

LONG_JOURNAL: Final = "long-journal"

_ROUNDS: Final = 3
_OPERATIONS: Final = 1_500
_SAMPLES: Final = 200
_CLIENTS: Final = 64
_SETTLE: Final = 20.0
"""Seconds after the start until memory is read: longer than the duplicate window."""
_DONE: Final = "filled"
"""A file in the folder of a journal that is complete."""


class LongJournalFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One journal; medians of the rounds."""

    stored: int
    """Operations in the journal before."""
    rate: float
    """Operations a second, over HTTP."""
    submit: float
    """Milliseconds, p50 of one at a time."""
    total: float
    """Milliseconds from submit to Succeeded, p50 of one at a time."""
    total_p99: float
    cpu: dict[str, float]
    """Milliseconds an operation, by process."""
    started: dict[str, int]
    """Bytes of memory by process, after the start."""
    loaded: dict[str, int]
    """After the rounds."""
    start: float
    """Seconds until the broker was healthy."""


_ROWS: Final[Rows[LongJournalFigures]] = (
    ("operations/s", lambda f: f.rate, "{:,.0f}"),
    ("alone: submit, p50 ms", lambda f: f.submit, "{:.2f}"),
    ("alone: submit to Succeeded, p50 ms", lambda f: f.total, "{:.2f}"),
    ("alone: submit to Succeeded, p99 ms", lambda f: f.total_p99, "{:.2f}"),
    *((f"processor time, {name}, ms/operation", lambda f, n=name: f.cpu[n], "{:.2f}") for name in SERVICES),
    ("processor time, all of these, ms/operation", lambda f: sum(f.cpu.values()), "{:.2f}"),
    *((f"{name} after its start, MiB", lambda f, n=name: f.started[n] / MIB, "{:.0f}") for name in SERVICES),
    *((f"{name} after the rounds, MiB", lambda f, n=name: f.loaded[n] / MIB, "{:.0f}") for name in SERVICES),
    ("the broker was healthy after, s", lambda f: f.start, "{:.1f}"),
)


def measure_long_journal(stored: int, folder: Path | None, progress: Progress) -> list[LongJournalFigures]:
    """Measure with an empty journal and with a long one.

    Args:
        stored: operations in the long journal.
        folder: keeps the long journal for the next time; None for a temporary one.
        progress: shows progress.

    Raises:
        BenchFailed: a process did not start or failed.
        CommandError: there is no free port, or no nats-server.
    """
    with contextlib.ExitStack() as stack:
        made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="opstream-bench-")))
        long = (folder or made).absolute() / "long"
        if not (long / _DONE).exists():
            long.mkdir(parents=True)
            _fill(long, stored, progress)
        benches = []
        for name, count in ((made / "empty", 0), (long, int((long / _DONE).read_text()))):
            name.mkdir(exist_ok=True)
            progress.say(f"starting a broker and services, {count:,} operations in the journal")
            benches.append(_JournalBench(stack, name, count))
        for number in range(_ROUNDS + 1):
            for bench in benches:
                bench.round(is_warm_up=not number)
            progress.say(f"round {number}: {' beside '.join(f'{bench.last_rate:,.0f}/s' for bench in benches)}")
        return [bench.figures() for bench in benches]


def long_journal_lines(found: Sequence[LongJournalFigures]) -> Iterator[str]:
    """The table, if it was measured."""
    if found:
        yield f"\nby operations in the journal, medians of {_ROUNDS} rounds"
        yield from figure_table([f"{one.stored:,}" for one in found], _ROWS, found)
        empty, long = found
        for name, first, last in (("start", empty.started, long.started), ("rounds", empty.loaded, long.loaded)):
            grown = (last["broker"] - first["broker"]) / max(1, long.stored) / 1024
            yield f"  broker, KiB an operation more, after the {name}: {grown:.2f}"


class _JournalBench:
    def __init__(self, stack: contextlib.ExitStack, folder: Path, stored: int) -> None:
        began = time.monotonic()
        self._servers = stack.enter_context(Servers(folder, 1))
        self._start = time.monotonic() - began
        self._system = stack.enter_context(BenchSystem(folder))
        self._system.use_servers(self._servers.urls)
        self._system.start_services(concurrency=_CLIENTS)
        self._stored = stored
        time.sleep(_SETTLE)
        self._started = self._memory()
        self._rates: list[float] = []
        self._submits: list[float] = []
        self._totals: list[float] = []
        self._late: list[float] = []
        self._cpu: list[dict[str, float]] = []
        self.last_rate = 0.0

    def round(self, *, is_warm_up: bool) -> None:
        alone = self._load(clients=1, operations=_SAMPLES, is_alone=True)
        before = self._processor_time()
        together = self._load(clients=_CLIENTS, operations=_OPERATIONS, is_alone=False)
        self._system.wait_for_snapshots()
        after = self._processor_time()
        self.last_rate = together.operations / together.seconds
        if not is_warm_up:
            self._rates.append(self.last_rate)
            self._submits.append(percentiles(alone.submits).p50)
            self._totals.append(percentiles(alone.totals).p50)
            self._late.append(percentiles(alone.totals).p99)
            self._cpu.append({name: (after[name] - before[name]) * 1000 / _OPERATIONS for name in SERVICES})

    def figures(self) -> LongJournalFigures:
        return LongJournalFigures(
            stored=self._stored,
            rate=median(self._rates),
            submit=median(self._submits),
            total=median(self._totals),
            total_p99=median(self._late),
            cpu={name: median(one[name] for one in self._cpu) for name in SERVICES},
            started=self._started,
            loaded=self._memory(),
            start=self._start,
        )

    def _load(self, *, clients: int, operations: int, is_alone: bool) -> LoadResult:
        task = Load(port=self._system.port, clients=clients, operations=operations, is_alone=is_alone)
        return msgspec.json.decode(self._system.run_child("bench.throughput.load", task), type=LoadResult)

    def _processor_time(self) -> dict[str, float]:
        used = {name: usage.cpu for name, usage in self._system.usage().items()}
        return used | {"broker": self._servers.usage().cpu}

    def _memory(self) -> dict[str, int]:
        used = {name: usage.rss for name, usage in self._system.usage().items()}
        return used | {"broker": self._servers.usage().rss}


def _fill(folder: Path, stored: int, progress: Progress) -> None:
    with Servers(folder, 1, is_syncing=False) as servers, BenchSystem(folder) as system:
        system.use_servers(servers.urls)
        system.provision()
        # Started once, so that its consumer exists.
        system.start_runner(RUNNER, concurrency=1, actions=ACTIONS)
        system.stop(RUNNER)
        progress.begin("filling the journal", stored)
        for done in range(0, stored, CHUNK):
            task = journal_fill.JournalFill(nats_url=system.nats_url, operations=min(CHUNK, stored - done))
            system.run_child("bench.history.journal_fill", task)
            progress.show(done + task.operations)
        progress.end()
        progress.say(f"the broker has {servers.usage().rss / MIB:,.0f} MiB; filling the view")
        command = [sys.executable, "-P", "-m", "opstream", "rebuild", "--nats", system.nats_url]
        rebuilt = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if rebuilt.returncode:
            raise BenchFailed(f"'opstream rebuild' failed:\n{rebuilt.stderr.decode(errors='replace')[-2_000:]}")
        consumers = [
            subjects.PROJECTOR_CONSUMER,
            subjects.PROJECTOR_DEADLINES_CONSUMER,
            subjects.WEBHOOKS_CONSUMER,
            subjects.runner_consumer(journal_fill.KIND),
        ]
        progress.say("acknowledging the events that the services have left")
        skipped = SkippedEvents(nats_url=system.nats_url, port=servers.ports[0], consumers=consumers)
        system.run_child("bench.scale.skipped_events", skipped)
    (folder / _DONE).write_text(str(stored))
