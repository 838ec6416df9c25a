"""Copies everything that opstream has on a broker, while the system works."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from opstream._version import __version__
from opstream.terminal.progress_bar import ProgressBar
from opstream_journal import BrokerRefused, Connection, NotProvisioned
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.scans.stream_scan import CREATED
from opstream_journal.missing_streams import missing_stream_text
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.wire.received_message import parse_headers
from opstream_schemas.integrity.archive_subjects import ARCHIVE_SOURCE_HEADER, parse_archive_origin
from opstream_schemas.subjects import ARCHIVE_STREAM
from opstream_schemas.text import format_count

from .backup_folder import BackupFile, NewBackup
from .manifest import FORMAT, FileRecord, Manifest, StreamRecord
from .snapshot_transfer import Snapshot, SnapshotReceiver
from .stream_plan import JOURNAL, PlannedStream, backup_order, required_streams
from .stream_tail import read_tail

Checkpoint = Callable[[], Awaitable[Sequence[str]]]
"""Signs a checkpoint in the folder of the backup, and returns the names of its files."""

_TRIES: Final = 8
_RETRY_DELAY: Final = 0.5
_MEBIBYTE: Final = 1024 * 1024


class BackupMaker:
    """Makes one backup. Use it once.

    Args:
        connection: the connection.
        folder: is entered.
        bar: shows the progress.
        checkpoint: called right before the journal is copied, so that all that it covers is in the copy; None for no
            checkpoint.
    """

    def __init__(
        self, connection: Connection, folder: NewBackup, bar: ProgressBar, checkpoint: Checkpoint | None = None
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._bar = bar
        self._checkpoint = checkpoint

    async def run(self) -> Manifest:
        """Copy all streams. The manifest is not written yet.

        Raises:
            NotProvisioned: a stream is missing without which no service works.
            JournalError: the broker was lost, was silent, or refused.
            CommandError: the folder can't be written to, or the checkpoint was not made.
        """
        began_at = datetime.now(UTC)
        required = required_streams()
        records: list[StreamRecord] = []
        checkpoint: tuple[FileRecord, ...] = ()
        try:
            for planned in backup_order():
                info = await admin.stream_info(self._connection, planned.name)
                if info is None:
                    if planned.name in required:
                        raise NotProvisioned(missing_stream_text(planned.name))
                    continue
                if planned.name == JOURNAL and self._checkpoint is not None:
                    checkpoint = tuple(self._folder.adopt(name) for name in await self._checkpoint())
                records.append(await self._copy(planned, info))
        except OSError as error:
            raise self._folder.explain(error) from error
        return Manifest(
            format=FORMAT,
            opstream_version=__version__,
            server_version=str(self._connection.nc._server_info.get("version", "")),  # noqa: SLF001 - nats-py raises for a version that it can't parse
            began_at=began_at,
            ended_at=datetime.now(UTC),
            streams=tuple(records),
            checkpoint=checkpoint,
        )

    async def _copy(self, planned: PlannedStream, info: dict[str, Any]) -> StreamRecord:
        began = time.monotonic()
        name = planned.name
        consumers = await admin.consumer_configs(self._connection, name) if planned.has_consumers else []
        self._bar.begin(f"bytes of {name}", int(info["state"]["bytes"]))
        snapshot, written = await self._copy_snapshot(planned)
        tail, count = None, 0
        if planned.has_tail:
            tail, count = await self._copy_tail(self._folder.create(f"{name}.tail"), name, snapshot)
        self._bar.end()
        record = _record(info, snapshot, written, tail, count, consumers)
        if name == ARCHIVE_STREAM:
            copied = await self._copied(snapshot.last_sequence)
            record = msgspec.structs.replace(record, copied=copied)
        self._bar.print_line(_line(record, time.monotonic() - began))
        return record

    async def _copy_snapshot(self, planned: PlannedStream) -> tuple[Snapshot, FileRecord]:
        """Write the snapshot of a stream; once more if the broker could not end it.

        A cluster ends it with an error if one of the stream's consumers has gone meanwhile, as those of readers do.
        """
        for left in reversed(range(_TRIES)):
            file = self._folder.create(f"{planned.name}.snapshot")
            try:
                receiver = SnapshotReceiver(self._connection, planned.name, self._writer(file))
                return await receiver.receive(has_consumers=planned.has_consumers), file.finish()
            except BrokerRefused:
                if not left:
                    raise
            self._folder.discard(f"{planned.name}.snapshot")
            await self._connection.sleep(_RETRY_DELAY)
        raise RuntimeError("the last try raises")

    def _writer(self, file: BackupFile) -> Callable[[bytes], None]:
        def write(chunk: bytes) -> None:
            file.write(chunk)
            self._bar.show(file.bytes)

        return write

    async def _copied(self, last: int) -> int:
        """Return the journal's sequence of the archive's last message in the snapshot; 0 for an empty one."""
        message = await rpc.get_next(self._connection, ARCHIVE_STREAM, ">", last) if last else None
        if message is None:
            return 0
        headers = parse_headers(self._connection.nc, message.hdrs) or {}
        return parse_archive_origin(headers[ARCHIVE_SOURCE_HEADER]).sequence

    async def _copy_tail(self, file: BackupFile, name: str, snapshot: Snapshot) -> tuple[FileRecord, int]:
        count = 0
        async for line in read_tail(self._connection, name, snapshot.last_sequence):
            file.write(line)
            count += 1
        return file.finish(), count


def _record(
    info: dict[str, Any],
    snapshot: Snapshot,
    written: FileRecord,
    tail: FileRecord | None,
    count: int,
    consumers: Sequence[dict[str, Any]],
) -> StreamRecord:
    state = snapshot.state
    messages, last = int(state["messages"]), int(state["last_seq"])
    return StreamRecord(
        name=info["config"]["name"],
        created=(info["config"].get("metadata") or {}).get(CREATED, info["created"]),
        first=int(state["first_seq"]) if messages else last + 1,
        last=last,
        messages=messages,
        bytes=int(state["bytes"]),
        snapshot=written,
        tail=tail,
        tail_messages=count,
        config=snapshot.config,
        state=state,
        consumers=tuple(one for one in consumers if one.get("durable_name")),
    )


def _line(record: StreamRecord, seconds: float) -> str:
    size = record.snapshot.bytes + (record.tail.bytes if record.tail is not None else 0)
    later = f" and {format_count(record.tail_messages, 'later one')}" if record.tail_messages else ""
    return (
        f"{record.name}: {format_count(record.messages, 'message')}{later}, up to sequence {record.last}, "
        f"{size / _MEBIBYTE:,.1f} MiB in {seconds:.1f} s"
    )
