"""What it costs to read the whole history: `opstream replay` in each format, `opstream export`.

The events are published without an append's expected version, which is faster. Each command is a process of its own,
and its time includes its start. Its output is discarded.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from bench.harness import broker_state
from bench.harness.process_usage import BenchFailed, process_usage
from bench.harness.progress import Progress
from bench.harness.requests import make_request
from bench.harness.system import ROOT, BenchSystem
from bench.harness.table import MIB, Rows, figure_table
from bench.throughput.load import BODY
from opstream_journal import Connection
from opstream_journal.provisioning.provision import provision
from opstream_journal.provisioning.topology import Sizing
from opstream_schemas import subjects
from opstream_schemas.events import Event, EventData, Progressed, Started, Succeeded, digest, encode_event
from opstream_schemas.names import Kind

REPLAY: Final = "replay"
PARTS: Final = (REPLAY,)

EVENTS: Final = 200_000

_KIND: Final = Kind("bench", "noop")
_EVENTS_EACH: Final = 4
"""Events of an operation."""
_AT_ONCE: Final = 1_000
_LOOK: Final = 0.05
_TIMEOUT: Final = 600.0
_COMMANDS: Final = {
    "cloudevents": ("replay", "--format", "cloudevents"),
    "records": ("replay", "--format", "records"),
    "table": ("replay", "--format", "table"),
    "a quarter": ("replay", "--format", "cloudevents", "--type", "succeeded"),
    "export": ("export",),
}


class ReplayFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One way to read it."""

    name: str
    events: int
    """Events that were read."""
    seconds: float
    cpu: float
    """Seconds of the process."""
    broker_cpu: float
    """Seconds of the broker meanwhile."""
    peak: int
    """Bytes of memory at the peak."""
    written: int
    """Bytes of the file; 0 for what was printed."""

    @property
    def rate(self) -> float:
        """Events a second, the start included."""
        return self.events / self.seconds


def measure_replay(parts: tuple[str, ...], progress: Progress, events: int = EVENTS) -> list[ReplayFigures]:
    """Read a journal of `events` events in each way, if the part is selected.

    Raises:
        BenchFailed: a command failed.
        CommandError: there is no free port, or no nats-server.
    """
    if REPLAY not in parts:
        return []
    with tempfile.TemporaryDirectory(prefix="opstream-bench-") as name, BenchSystem(Path(name)) as system:
        system.start_broker()
        asyncio.run(_fill(system.nats_url, events, progress))
        found = []
        for what, command in _COMMANDS.items():
            one = _read(system, Path(name) / "events.parquet", what, command, events)
            found.append(one)
            progress.say(f"{what}: {one.rate:,.0f} events/s, {one.peak / MIB:.0f} MiB at the most")
        return found


def replay_lines(found: list[ReplayFigures]) -> Iterator[str]:
    """The table."""
    if found:
        yield "\nthe whole journal is read"
        yield from figure_table([one.name for one in found], _ROWS, found)


_ROWS: Final[Rows[ReplayFigures]] = (
    ("events", lambda f: f.events, "{:,.0f}"),
    ("events/s", lambda f: f.rate, "{:,.0f}"),
    ("seconds", lambda f: f.seconds, "{:.1f}"),
    ("processor time, us an event", lambda f: f.cpu / f.events * 1e6, "{:.0f}"),
    ("processor time, broker, us an event", lambda f: f.broker_cpu / f.events * 1e6, "{:.0f}"),
    ("memory at the most, MiB", lambda f: f.peak / MIB, "{:.0f}"),
    ("file, bytes an event", lambda f: f.written / f.events, "{:.0f}"),
)


async def _fill(url: str, events: int, progress: Progress) -> None:
    async with broker_state.connected(url) as connection:
        await provision(connection, Sizing())
        progress.begin("filling the journal", events // _EVENTS_EACH)
        waiting: list[tuple[str, bytes]] = []
        done = 0
        for number in range(events // _EVENTS_EACH):
            waiting += _operation(f"0199f3c2-0000-7000-8000-{number:012x}")
            if len(waiting) >= _AT_ONCE or number == events // _EVENTS_EACH - 1:
                for subject, payload in waiting:
                    await connection.nc.publish(subject, payload)
                done += len(waiting)
                await _wait_stored(connection, done)
                waiting = []
                progress.show(done // _EVENTS_EACH)
        progress.end()


async def _wait_stored(connection: Connection, events: int) -> None:
    until = time.monotonic() + _TIMEOUT
    while (await broker_state.stream_state(connection, subjects.OPERATIONS_STREAM)).messages < events:
        if time.monotonic() > until:
            raise BenchFailed(f"{events:,} events were not stored within {_TIMEOUT:g} s")
        await asyncio.sleep(_LOOK / 10)


def _operation(operation_id: str) -> Iterator[tuple[str, bytes]]:
    """Subjects and bytes of four events, as the services would record them."""
    now = datetime.now(UTC)
    datas: tuple[EventData, ...] = (
        make_request(_KIND, BODY, now),
        Started(attempt=1, runner="bench-1-0199f3c2", token="t" * 32, ticket=1, lease=30.0),
        Progressed(percent=50.0, message="half of it is done"),
        Succeeded(result=msgspec.Raw(b'{"transaction":"0199f3c2","files":2}')),
    )
    previous = ""
    for position, data in enumerate(datas, start=1):
        event = Event(
            id=f"{operation_id}-{position}",
            source="opstream/bench",
            operation_id=operation_id,
            time=now + timedelta(milliseconds=position),
            position=position,
            previous_hash=previous,
            data=data,
        )
        payload = encode_event(event)
        previous = digest(payload)
        yield subjects.event_subject(operation_id, _KIND, data.name), payload


def _read(system: BenchSystem, path: Path, what: str, command: tuple[str, ...], events: int) -> ReplayFigures:
    target = (str(path),) if command[0] == "export" else ()
    arguments = [sys.executable, "-P", "-m", "opstream", *command, *target, "--nats", system.nats_url]
    before, began, peak = system.usage()["broker"].cpu, time.perf_counter(), 0
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    cpu = 0.0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max(peak, *(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
        if time.perf_counter() - began > _TIMEOUT:
            process.kill()
        time.sleep(_LOOK)
        cpu = _cpu(process.pid, cpu)
    seconds = time.perf_counter() - began
    _, errors = process.communicate()
    if process.returncode:
        raise BenchFailed(f"opstream {' '.join(command)} failed:\n{errors.decode(errors='replace')}")
    return ReplayFigures(
        name=what,
        events=events // _EVENTS_EACH if "--type" in command else events,
        seconds=seconds,
        cpu=cpu,
        broker_cpu=system.usage()["broker"].cpu - before,
        peak=peak,
        written=path.stat().st_size if target else 0,
    )


def _cpu(pid: int, last: float) -> float:
    """Processor seconds so far; the last figure once the process has ended."""
    try:
        return process_usage(pid).cpu
    except (BenchFailed, StopIteration):
        return last
