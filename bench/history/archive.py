"""What a million operations take on disk and in the broker's memory: in the journal, and in the archive.

The events are opstream's own bytes, headers and subjects, five for each operation (requested,
started, progressed twice, succeeded), written without waiting for the disk: that changes neither bytes nor memory. Each
layout's memory is that of a broker that has no other stream.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import uuid_utils
from nats.js.api import StoreCompression, StreamConfig, StreamSource

from bench.harness import broker_state
from bench.harness.process_usage import BenchFailed, process_usage
from bench.harness.progress import Progress
from bench.harness.requests import make_request
from bench.throughput.load import BODY
from opstream.local.nats_server import Settings, configuration, find_binary
from opstream.local.ports import ListenAddress, free_ports, is_broker, local_url, wait_until
from opstream_journal import Connection, JournalUnavailable
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.archive import ArchiveSizing, archive_stream
from opstream_journal.provisioning.topology import Sizing, streams
from opstream_schemas import subjects
from opstream_schemas.events import Event, EventData, Progressed, Started, Succeeded, encode_event, recorded_event
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import first_event, fold_for_reader, next_event

ARCHIVE: Final = "archive"
KIND: Final = Kind("bench", "noop")
EVENTS: Final = 5
"""Of each operation."""

_HOST: Final = "127.0.0.1"
_JOURNAL: Final = subjects.OPERATIONS_STREAM
_S2: Final = "OPERATIONS_S2"
_PLAIN: Final = "ARCHIVE_PLAIN"
LAYOUTS: Final = {
    _JOURNAL: "journal",
    _S2: "journal, if it were compressed",
    _PLAIN: "archive, if it were not compressed",
    subjects.ARCHIVE_STREAM: "archive",
}
_BATCH: Final = 400
"""Operations whose events are interleaved, as if they ran at the same time."""
_SETTLE: Final = 5.0
"""Seconds after a start until memory is read."""
_START_TIMEOUT: Final = 120.0
_COPY_TIMEOUT: Final = 600.0
_GARBAGE: Final = "30"
"""Of Go's garbage collector, as `opstream broker` sets it."""


class StreamLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Disk and memory of one stream."""

    name: str
    bytes: int
    """As the broker counts them, before compression."""
    disk: int
    """Bytes of its files."""
    rss: int
    """Bytes of a broker with only this stream, less those of a broker without streams."""
    start: float
    """Seconds until that broker takes connections."""
    copied: float
    """Seconds that copying from the journal took; 0 for the journal."""


class ArchiveFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures."""

    operations: int
    empty: int
    """Bytes of memory of a broker without a stream."""
    loaded: int
    """Bytes of memory, right after the journal was filled."""
    layouts: list[StreamLayout]


def measure_archive(operations: int, progress: Progress) -> ArchiveFigures:
    """Fill a journal, copy it, and measure all copies.

    Raises:
        BenchFailed: the broker did not start or failed.
        CommandError: there is no free port, or no nats-server.
    """
    with tempfile.TemporaryDirectory(prefix="opstream-bench-") as name:
        return asyncio.run(_measure(_UnsyncedBroker(Path(name)), operations, progress))


async def _measure(broker: _UnsyncedBroker, operations: int, progress: Progress) -> ArchiveFigures:
    with broker.started():
        await broker.ready()
        empty = await broker.settled_memory()
        async with broker_state.connected(broker.url) as connection:
            for config in streams(Sizing()):
                await admin.create_stream(connection, config)
            progress.begin("filling", operations)
            await _fill(connection, operations, progress)
            progress.end()
            loaded = process_usage(broker.pid).rss
            sizes = {_JOURNAL: (await broker_state.stream_state(connection, _JOURNAL)).bytes}
            copied = {_JOURNAL: 0.0}
            for config in _copies():
                copied[str(config.name)] = await _copy(connection, config, operations, progress)
                sizes[str(config.name)] = (await broker_state.stream_state(connection, str(config.name))).bytes
    layouts = []
    for name, label in LAYOUTS.items():
        progress.say(f"starting a broker with only the {label}")
        with broker.only_stream(name), broker.started():
            began = time.monotonic()
            await broker.ready()
            start = time.monotonic() - began
            rss = max(0, await broker.settled_memory() - empty)
        disk = sum(path.stat().st_size for path in (broker.store / name).rglob("*") if path.is_file())
        layouts.append(
            StreamLayout(name=name, bytes=sizes[name], disk=disk, rss=rss, start=start, copied=copied[name]),
        )
    return ArchiveFigures(operations=operations, empty=empty, loaded=loaded, layouts=layouts)


def _copies() -> list[StreamConfig]:
    archive = archive_stream(ArchiveSizing(), replicas=1)
    plain = msgspec.convert(archive.as_dict(), dict[str, Any]) | {"name": _PLAIN, "compression": "none"}
    mirror = StreamConfig(name=_S2, mirror=StreamSource(name=_JOURNAL), compression=StoreCompression.S2)
    return [archive, StreamConfig.from_response(plain), mirror]


async def _copy(connection: Connection, config: StreamConfig, operations: int, progress: Progress) -> float:
    """Copy the journal into a stream; return the seconds it took."""
    name = str(config.name)
    if not await admin.create_stream(connection, config):
        raise BenchFailed(f"the broker has a stream {name} already")
    began = time.monotonic()
    progress.begin(f"copying into {name}", operations)
    while (done := await _message_count(connection, name)) < operations * EVENTS:
        if time.monotonic() - began > _COPY_TIMEOUT:
            raise BenchFailed(f"{name} holds {done} events after {_COPY_TIMEOUT:g} s")
        progress.show(done // EVENTS)
        await asyncio.sleep(0.2)
    progress.end()
    return time.monotonic() - began


async def _message_count(connection: Connection, name: str) -> int:
    """Number of events in a stream; 0 if the broker does not answer in time."""
    try:
        return (await broker_state.stream_state(connection, name)).messages
    except JournalUnavailable:
        return 0


async def _fill(connection: Connection, operations: int, progress: Progress) -> None:
    """Write events as the journal does, but without waiting for each; the stream's state shows when all are stored."""
    written = 0
    for start in range(0, operations, _BATCH):
        histories = [_operation_events() for _ in range(min(_BATCH, operations - start))]
        before = [0] * len(histories)
        for step in range(EVENTS):
            for index, history in enumerate(histories):
                event, payload = history[step]
                headers = {
                    "Nats-Msg-Id": event.id,
                    "Nats-Expected-Last-Subject-Sequence": str(before[index]),
                    "Nats-Expected-Last-Subject-Sequence-Subject": subjects.operation_filter(event.operation_id),
                }
                subject = subjects.event_subject(event.operation_id, KIND, event.data.name)
                await connection.nc.publish(subject, payload, headers=headers)
                written += 1
                before[index] = written
        until = time.monotonic() + _START_TIMEOUT
        while (await broker_state.stream_state(connection, _JOURNAL)).last_seq < written:
            if time.monotonic() > until:
                raise BenchFailed(f"the journal does not hold {written} events")
        progress.show(start + len(histories))


def _operation_events() -> list[tuple[Event, bytes]]:
    """The events of one operation, and their bytes."""
    now = datetime.now(UTC)
    runner = "a-host-12345-abcdef"
    datas: tuple[EventData, ...] = (
        Started(attempt=1, runner=runner, token=_new_id(), ticket=1_234_567, lease=30.0),
        Progressed(percent=33.0, message="copying unchanged files"),
        Progressed(percent=66.0, message="copying changed files"),
        Succeeded(result=msgspec.Raw(BODY)),
    )
    event = first_event(_new_id(), make_request(KIND, BODY, now), id=_new_id(), source="opstream/api", time=now)
    history = [(event, encode_event(event))]
    operation = fold_for_reader(None, [recorded_event(event, history[0][1], 1)])
    for number, data in enumerate(datas, start=2):
        assert operation is not None
        event = next_event(operation, data, id=_new_id(), source=f"opstream/runner/{runner}", time=now)
        history.append((event, encode_event(event)))
        operation = fold_for_reader(operation, [recorded_event(event, history[-1][1], number)])
    return history


def _new_id() -> str:
    return str(uuid_utils.uuid7())


class _UnsyncedBroker:
    """nats-server with the configuration of `opstream broker`, but without a sync for every write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self._port,) = free_ports([ListenAddress(_HOST, 0, "")])
        self._config = folder / "nats.conf"
        text = configuration(Settings(host=_HOST, port=self._port, data_dir=folder), self._port, folder)
        self._config.write_text(text.replace("sync_interval: always", "sync_interval: 2m"), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return local_url("nats", _HOST, self._port)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def store(self) -> Path:
        """Where the streams' folders are."""
        return self._folder / "jetstream" / "$G" / "streams"

    @contextmanager
    def started(self) -> Iterator[None]:
        environment = os.environ | {"GOGC": _GARBAGE}
        with (self._folder / "log").open("ab") as log:
            command = [find_binary(), "--config", str(self._config)]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            self._process.terminate()
            self._process.wait(_START_TIMEOUT)

    @contextmanager
    def only_stream(self, name: str) -> Iterator[None]:
        """Move all streams but one away while the context is open."""
        aside = self._folder / "aside"
        aside.mkdir()
        others = [path.name for path in self.store.iterdir() if path.name != name]
        for other in others:
            shutil.move(self.store / other, aside / other)
        yield
        for other in others:
            shutil.move(aside / other, self.store / other)
        aside.rmdir()

    async def ready(self) -> None:
        """Wait until it accepts connections."""
        async with asyncio.timeout(_START_TIMEOUT):
            await wait_until(lambda: is_broker(_HOST, self._port))

    async def settled_memory(self) -> int:
        """Bytes of its memory, some seconds after the start."""
        await asyncio.sleep(_SETTLE)
        return process_usage(self.pid).rss
