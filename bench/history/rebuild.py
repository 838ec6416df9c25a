"""The part `rebuild`: folds a whole journal, writes or compares the snapshots, and makes an index of them.

Nothing else runs on the broker. The journal is filled directly, so there are no snapshots at first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench.harness.process_usage import BenchFailed
from bench.harness.progress import Progress
from bench.harness.system import ROOT, BenchSystem
from bench.harness.table import MIB, Rows, figure_table
from bench.history import journal_fill
from bench.history.journal_fill import EVENTS
from bench.throughput.benchmark import CHUNK
from opstream_index.errors import IndexUnavailable
from opstream_index.sqlite_store import SqliteReader

REBUILD: Final = "rebuild"
OPERATIONS: Final = 30_000
"""In the journal, by default."""

_POLL: Final = 0.02
_INDEX_TIMEOUT: Final = 3_600.0
"""Seconds for an index of millions of operations."""
_REBUILD: Final = ("-P", "-m", "opstream", "rebuild", "--nats")
_VERIFY: Final = ("-P", "-m", "opstream", "verify", "--nats")


class RebuildFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one command."""

    name: str
    events: int
    seconds: float
    """From the start of its process to its end."""
    cpu: float
    """Microseconds an event: the process itself."""
    broker_cpu: float
    rss: int
    """Bytes that the process had at its peak."""

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


_ROWS: Final[Rows[RebuildFigures]] = (
    ("events/s (aim: 15,000)", lambda f: f.rate, "{:,.0f}"),
    ("seconds, start and end of the process included", lambda f: f.seconds, "{:.1f}"),
    ("processor time, us/event", lambda f: f.cpu, "{:.1f}"),
    ("processor time, broker, us/event", lambda f: f.broker_cpu, "{:.1f}"),
    ("memory at the peak, MiB", lambda f: f.rss / MIB, "{:.0f}"),
)


def measure_rebuild(operations: int, progress: Progress) -> list[RebuildFigures]:
    """Fill a journal, rebuild the snapshots twice (all missing, then all right), verify them, and make an index.

    Args:
        operations: of three events each.
        progress: shows progress.

    Raises:
        BenchFailed: a process did not start or failed.
    """
    with tempfile.TemporaryDirectory(prefix="opstream-bench-") as folder, BenchSystem(Path(folder)) as system:
        system.start_broker()
        system.provision()
        progress.begin("filling the journal", operations)
        for done in range(0, operations, CHUNK):
            task = journal_fill.JournalFill(nats_url=system.nats_url, operations=min(CHUNK, operations - done))
            system.run_child("bench.history.journal_fill", task)
            progress.show(done + task.operations)
        progress.end()
        found = [
            _run(system, progress, "empty view", operations * EVENTS, *_REBUILD),
            _run(system, progress, "right view", operations * EVENTS, *_REBUILD),
            _run(system, progress, "verify", operations * EVENTS, *_VERIFY),
        ]
        return [*found, _make_index(system, progress, operations, Path(folder, "index.db"))]


def rebuild_lines(found: list[RebuildFigures]) -> Iterator[str]:
    """The table, if it was measured."""
    if found:
        events = found[0].events
        yield f"\na rebuild, a verification, and an index, of {events:,} events of {events // EVENTS:,} operations"
        yield from figure_table([one.name for one in found], _ROWS, found)


def _make_index(system: BenchSystem, progress: Progress, operations: int, path: Path) -> RebuildFigures:
    """Have a projector make an index that is missing, once it has nothing else to do."""
    system.start_projector()
    system.wait_for_snapshots()
    system.stop("projector")
    system.options["projector"] = ("--index", f"sqlite:{path}")
    broker = system.usage()["broker"].cpu
    began = time.perf_counter()
    system.start_projector()
    ready = time.perf_counter()
    reader = SqliteReader(str(path))
    while not _is_complete(reader):
        system.check_processes()
        if time.perf_counter() - began > _INDEX_TIMEOUT:
            raise BenchFailed(f"the index was not complete within {_INDEX_TIMEOUT:g} s")
        time.sleep(_POLL)
    seconds = time.perf_counter() - began
    (count,) = reader.fetch("SELECT count(*) FROM operation")[0]
    reader.close()
    if count != operations:
        raise BenchFailed(f"the index has {count:,} operations of {operations:,}")
    used = system.usage()["projector"]
    progress.say(
        f"index: {operations:,} operations in {seconds:.1f} s, {ready - began:.1f} s of them to be ready "
        f"({operations / seconds:,.0f} operations/s; aim: 5,000)"
    )
    events = operations * EVENTS
    return RebuildFigures(
        name="index",
        events=events,
        seconds=seconds,
        cpu=used.cpu * 1e6 / events,
        broker_cpu=(system.usage()["broker"].cpu - broker) * 1e6 / events,
        rss=used.rss,
    )


def _is_complete(reader: SqliteReader) -> bool:
    try:
        return reader.coverage().is_complete
    except IndexUnavailable:
        return False


def _run(system: BenchSystem, progress: Progress, name: str, events: int, *command: str) -> RebuildFigures:
    broker = system.usage()["broker"].cpu
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command, system.nats_url],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    system.check_processes()
    if process.returncode:
        raise BenchFailed(f"{name}: the command ended with status {process.returncode}")
    found = RebuildFigures(
        name=name,
        events=events,
        seconds=seconds,
        cpu=(used.ru_utime + used.ru_stime) * 1e6 / events,
        broker_cpu=(system.usage()["broker"].cpu - broker) * 1e6 / events,
        rss=used.ru_maxrss * 1024,
    )
    progress.say(f"{name}: {events:,} events in {seconds:.1f} s ({found.rate:,.0f}/s), peak {found.rss / MIB:.0f} MiB")
    return found
