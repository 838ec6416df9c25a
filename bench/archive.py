"""What a million operations cost on the disk and in the broker's memory: in the journal, and in the archive.

Caller: `__main__.py`. The events are opstream's own bytes, headers and subjects, five for each operation (requested,
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

from bench import journal
from bench.load import BODY
from bench.progress import Progress
from bench.request import make_request
from bench.usage import BenchFailed, process_usage
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
"""Operations that are written together, event by event, as they would run beside one another."""
_SETTLE: Final = 5.0
"""Seconds after a start until memory is looked at."""
_START_TIMEOUT: Final = 120.0
_COPY_TIMEOUT: Final = 600.0
_GARBAGE: Final = "30"
"""As `opstream broker` has it."""


class StreamLayout(msgspec.Struct, frozen=True, kw_only=True):
    """What one stream takes."""

    name: str
    bytes: int
    """As the broker counts them, before compression."""
    disk: int
    """Bytes of its files."""
    rss: int
    """Bytes of a broker that was started with this stream alone, less those of one without a stream."""
    start: float
    """Seconds until that broker takes connections."""
    copied: float
    """Seconds that copying from the journal took; 0 for the journal."""


class ArchiveFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    operations: int
    empty: int
    """Bytes of memory of a broker without a stream."""
    loaded: int
    """Bytes of memory, right after the journal was filled."""
    layouts: list[StreamLayout]


def measure_archive(operations: int, progress: Progress) -> ArchiveFigures:
    """Fill a journal, copy it, and weigh all copies.

    Raises:
        BenchFailed: the broker did not start, or did not do it.
        Failure: there is no free port, or no nats-server.
    """
    with tempfile.TemporaryDirectory(prefix="opstream-bench-") as name:
        return asyncio.run(_measure(_UnsyncedBroker(Path(name)), operations, progress))


async def _measure(broker: _UnsyncedBroker, operations: int, progress: Progress) -> ArchiveFigures:
    with broker.started():
        await broker.ready()
        empty = await broker.settled_memory()
        async with journal.connected(broker.url) as link:
            for config in streams(Sizing()):
                await admin.create_stream(link, config)
            progress.begin("filling", operations)
            await _fill(link, operations, progress)
            progress.end()
            loaded = process_usage(broker.pid).rss
            sizes = {_JOURNAL: (await journal.stream_state(link, _JOURNAL)).bytes}
            copied = {_JOURNAL: 0.0}
            for config in _copies():
                copied[str(config.name)] = await _copy(link, config, operations, progress)
                sizes[str(config.name)] = (await journal.stream_state(link, str(config.name))).bytes
    layouts = []
    for name, told in LAYOUTS.items():
        progress.say(f"starting a broker with nothing but the {told}")
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


async def _copy(link: Connection, config: StreamConfig, operations: int, progress: Progress) -> float:
    """Seconds until the broker has copied everything."""
    name = str(config.name)
    if not await admin.create_stream(link, config):
        raise BenchFailed(f"the broker has a stream {name} already")
    began = time.monotonic()
    progress.begin(f"copying into {name}", operations)
    while (done := await _message_count(link, name)) < operations * EVENTS:
        if time.monotonic() - began > _COPY_TIMEOUT:
            raise BenchFailed(f"{name} holds {done} events after {_COPY_TIMEOUT:g} s")
        progress.show(done // EVENTS)
        await asyncio.sleep(0.2)
    progress.end()
    return time.monotonic() - began


async def _message_count(link: Connection, name: str) -> int:
    """Events of a stream; 0 where the broker has no time to tell."""
    try:
        return (await journal.stream_state(link, name)).messages
    except JournalUnavailable:
        return 0


async def _fill(link: Connection, operations: int, progress: Progress) -> None:
    """Write the events as the journal does, without waiting for each; the broker's counts tell that all are there."""
    written = 0
    for start in range(0, operations, _BATCH):
        lives = [_operation_events() for _ in range(min(_BATCH, operations - start))]
        before = [0] * len(lives)
        for step in range(EVENTS):
            for place, life in enumerate(lives):
                event, payload = life[step]
                headers = {
                    "Nats-Msg-Id": event.id,
                    "Nats-Expected-Last-Subject-Sequence": str(before[place]),
                    "Nats-Expected-Last-Subject-Sequence-Subject": subjects.operation_filter(event.operation_id),
                }
                subject = subjects.event_subject(event.operation_id, KIND, event.data.name)
                await link.nc.publish(subject, payload, headers=headers)
                written += 1
                before[place] = written
        until = time.monotonic() + _START_TIMEOUT
        while (await journal.stream_state(link, _JOURNAL)).last_seq < written:
            if time.monotonic() > until:
                raise BenchFailed(f"the journal does not hold {written} events")
        progress.show(start + len(lives))


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
    life = [(event, encode_event(event))]
    operation = fold_for_reader(None, [recorded_event(event, life[0][1], 1)])
    for number, data in enumerate(datas, start=2):
        assert operation is not None
        event = next_event(operation, data, id=_new_id(), source=f"opstream/runner/{runner}", time=now)
        life.append((event, encode_event(event)))
        operation = fold_for_reader(operation, [recorded_event(event, life[-1][1], number)])
    return life


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
        """Without any stream but one."""
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
        """Wait until it takes connections."""
        async with asyncio.timeout(_START_TIMEOUT):
            await wait_until(lambda: is_broker(_HOST, self._port))

    async def settled_memory(self) -> int:
        """Bytes of its memory, a while after its start."""
        await asyncio.sleep(_SETTLE)
        return process_usage(self.pid).rss
