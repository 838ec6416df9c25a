"""The view: one snapshot for each operation in the bucket `operations`. The projector writes it, the API reads it.

A snapshot is only as new as its `stream_sequence`. A reader that needs a newer state compares that with the operation's
last sequence in the journal. `SnapshotStore` serves single operations, `SnapshotReader` many, and `RawSnapshots` those
who compare all of the view with the journal and remove what does not belong there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from opstream_journal.errors import BrokerRefused, EventTooLarge, JournalFull
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_publish import BatchMessage, publish_batch
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.stream_info import stream_api_request
from opstream_journal.operation_reads import read_last_sequences
from opstream_schemas import subjects
from opstream_schemas.events import Instant
from opstream_schemas.operation.state import FOLD_VERSION, TERMINAL_STATUSES, Operation

logger = logging.getLogger(__name__)

VIEW_STREAM: Final = subjects.bucket_stream(subjects.VIEW_BUCKET)
_CONFLICTS: Final = frozenset({10071, 10164})
_STORE_FAILED: Final = 10077
_READ_TIMEOUT: Final = 5.0
_BULK_TIMEOUT: Final = 10.0
_SNAPSHOTS: Final = 256
"""Snapshots in one request; the broker accepts up to 1,024 subjects (NATS ADR-31)."""
_PAGE_BYTES: Final = 1024 * 1024

_PREFIX: Final = subjects.bucket_subject(subjects.VIEW_BUCKET, "")
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)

encode_snapshot: Final = msgspec.json.Encoder().encode
"""Encodes an operation as the view stores it."""

_decode: Final = msgspec.json.Decoder(Operation).decode


class SnapshotCore(msgspec.Struct, frozen=True, rename="camel"):
    """The fields that every version of the fold writes."""

    id: str
    status: str
    position: int
    stream_sequence: int
    fold_version: int
    created_at: Instant
    started_at: Instant | None = None
    finished_at: Instant | None = None

    @property
    def is_ended(self) -> bool:
        """Return True if the operation has an outcome."""
        return self.status in TERMINAL_STATUSES

    @property
    def recorded_at(self) -> datetime:
        """Return a time at which the last event was recorded, or an earlier one."""
        return self.finished_at or self.started_at or self.created_at


_decode_core: Final = msgspec.json.Decoder(SnapshotCore).decode


class SnapshotEntry(msgspec.Struct, frozen=True):
    """The view's entry for an operation."""

    revision: int
    """Stream sequence of the entry, needed to replace it; 0 for no entry."""
    operation: Operation | None
    """None for no entry, and for an entry of another fold version, which must be folded again."""


NO_ENTRY: Final = SnapshotEntry(0, None)


class SnapshotWrite(NamedTuple):
    """A snapshot to store; the arguments of `SnapshotStore.put`."""

    operation: Operation
    revision: int
    ttl: float | None = None


class SnapshotStore:
    """The view over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.last_revision = 0
        """The highest revision that was stored here; 0 for none."""

    async def get(self, operation_id: str) -> SnapshotEntry:
        """Return the snapshot from any replica, so on a cluster perhaps an older one.

        Raises:
            JournalUnavailable: no replica answered.
        """
        subject = subjects.bucket_subject(subjects.VIEW_BUCKET, operation_id)
        message = await rpc.get_direct(self._connection, VIEW_STREAM, subject)
        return NO_ENTRY if message is None else _entry(message)

    async def get_newest(self, operation_id: str) -> SnapshotEntry:
        """Return the snapshot from the leader. After a conflict, a write must be based on it.

        Raises:
            JournalUnavailable: no leader answered.
        """
        subject = subjects.bucket_subject(subjects.VIEW_BUCKET, operation_id)
        message = await rpc.get_last(self._connection, VIEW_STREAM, subject)
        return NO_ENTRY if message is None else _entry(message)

    async def put(self, operation: Operation, revision: int, *, ttl: float | None = None) -> int | None:
        """Replace the snapshot if it still has `revision` (0: if there is none).

        Args:
            operation: the state to store.
            revision: of the entry to replace.
            ttl: seconds until the entry expires, at least 1, cut to whole seconds; None for never.

        Returns:
            The new revision; None if another writer was first.

        Raises:
            JournalUnavailable: not acknowledged; it may be stored nevertheless.
            JournalFull: the broker has no room.
            EventTooLarge: the snapshot does not fit the broker's `max_payload`.
            BrokerRefused: another error of the broker.
        """
        try:
            stored = await rpc.publish(self._connection, *_batch_message(SnapshotWrite(operation, revision, ttl)))
        except BrokerRefused as refused:
            if refused.err_code in _CONFLICTS:
                return None
            if refused.err_code == _STORE_FAILED:
                raise JournalFull("the broker has no room for the view") from refused
            raise
        self.last_revision = max(self.last_revision, stored)
        return stored

    async def put_batch(self, writes: Sequence[SnapshotWrite]) -> Sequence[int] | None:
        """Put the snapshots of up to 1,000 different operations, all or none. Much faster than as many `put`.

        Returns:
            The new revisions; None if none was written: another writer was first with one of them, one is too large, or
            the stream allows no batches.

        Raises:
            JournalUnavailable: not acknowledged; all may be stored nevertheless.
        """
        try:
            stored = await publish_batch(self._connection, [_batch_message(one) for one in writes])
        except (BrokerRefused, EventTooLarge, JournalFull) as error:
            logger.debug("%d snapshots are not written as a batch: %s", len(writes), error)
            return None
        self.last_revision = max(self.last_revision, stored[-1])
        return stored


class SnapshotReader:
    """Reads many snapshots with few requests.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._reader = BatchReader(connection)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def stop(self) -> None:
        """Unsubscribe from the inbox."""
        await self._reader.stop()

    async def get(self, operation_ids: Sequence[str]) -> dict[str, SnapshotEntry]:
        """Return the snapshots of the operations that have one, from any replica.

        Raises:
            JournalUnavailable: no replica answered, or not in time.
            BrokerRefused: another error.
        """
        filters = [f"{_PREFIX}{one}" for one in operation_ids]
        messages = await self._reader.read_last(VIEW_STREAM, filters, batch=_SNAPSHOTS, timeout=_READ_TIMEOUT)
        return {operation_id_of(message.subject): _entry(message) for message in messages}

    async def page(self, revision: int, count: int) -> list[SnapshotEntry]:
        """Return at most `count` entries from a revision on, in the order of revisions, from any replica.

        Fewer are no end: the broker also cuts a page by its bytes. An empty page is the end.

        Raises:
            JournalUnavailable: no replica answered, or not in time.
            BrokerRefused: another error.
        """
        request = {"next_by_subj": ">", "seq": revision, "batch": count, "max_bytes": _PAGE_BYTES}
        return [_entry(message) for message in await self._reader.read(VIEW_STREAM, request, timeout=_READ_TIMEOUT)]


class RawSnapshot:
    """An entry of the view as it is stored, decoded on demand."""

    __slots__ = ("data", "operation_id", "revision")

    def __init__(self, operation_id: str, revision: int, data: bytes) -> None:
        self.operation_id = operation_id
        self.revision = revision
        self.data = data

    @property
    def operation(self) -> Operation | None:
        """The operation; None if this version can't trust the entry (`problem` says why)."""
        return None if self.problem else _decode(self.data)

    @property
    def problem(self) -> str:
        """The reason why this version can't trust the entry; empty if it can."""
        try:
            operation = _decode(self.data)
        except _UNREADABLE:
            core = self.core
            if core is not None and core.fold_version != FOLD_VERSION:
                return f"of fold version {core.fold_version}, this is {FOLD_VERSION}"
            return "not readable"
        if not operation.is_current:
            return f"of fold version {operation.fold_version}, this is {FOLD_VERSION}"
        return "" if operation.id == self.operation_id else f"of operation {operation.id}"

    @property
    def core(self) -> SnapshotCore | None:
        """What any version can read of it; None if it is no snapshot of this operation."""
        try:
            core = _decode_core(self.data)
        except _UNREADABLE:
            return None
        return core if core.id == self.operation_id else None

    @property
    def as_read_here(self) -> Operation | None:
        """The operation, whichever version of the fold wrote it; None if this one can't read all of it."""
        try:
            operation = _decode(self.data)
        except _UNREADABLE:
            return None
        return operation if operation.id == self.operation_id else None

    @property
    def sequence(self) -> int | None:
        """The stream sequence up to which any version folded it; None if it is no snapshot of this operation."""
        core = self.core
        return None if core is None else core.stream_sequence


class RawSnapshots:
    """Reads and removes stored snapshots, many at once.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = BatchReader(connection)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def stop(self) -> None:
        """Unsubscribe from the inbox."""
        await self._reader.stop()

    async def get(self, operation_ids: Sequence[str]) -> dict[str, RawSnapshot]:
        """Return the entries of the operations that have one, from any replica.

        Raises:
            JournalUnavailable: no replica answered, or not in time.
            BrokerRefused: another error.
        """
        filters = [f"{_PREFIX}{one}" for one in operation_ids]
        messages = await self._reader.read_last(VIEW_STREAM, filters, batch=_SNAPSHOTS, timeout=_BULK_TIMEOUT)
        found = (RawSnapshot(operation_id_of(message.subject), message.seq, message.data) for message in messages)
        return {snapshot.operation_id: snapshot for snapshot in found}

    async def get_newest(self, operation_id: str) -> RawSnapshot | None:
        """Return an entry from the leader.

        Raises:
            JournalUnavailable: no leader answered.
        """
        message = await rpc.get_last(self._connection, VIEW_STREAM, f"{_PREFIX}{operation_id}")
        return None if message is None else RawSnapshot(operation_id, message.seq, message.data)

    async def remove(self, operation_id: str, revision: int) -> None:
        """Remove an entry unless it has been replaced meanwhile.

        Raises:
            JournalUnavailable: no leader answered.
            BrokerRefused: another error.
        """
        # A purge up to a sequence leaves no marker behind, and can't remove a newer entry.
        request = {"filter": f"{_PREFIX}{operation_id}", "seq": revision + 1}
        await stream_api_request(
            self._connection, VIEW_STREAM, f"STREAM.PURGE.{VIEW_STREAM}", msgspec.json.encode(request)
        )

    async def last_sequences(self, operation_ids: Sequence[str]) -> dict[str, int]:
        """Return the last stream sequence of each operation that the journal has, from any replica.

        A sequence may be too low if the operation's events are large: then the broker cuts the answer.

        Raises:
            JournalUnavailable: no replica answered, or not in time.
            BrokerRefused: another error.
        """
        return await read_last_sequences(self._reader, operation_ids, timeout=_BULK_TIMEOUT)


def operation_id_of(subject: str) -> str:
    """Return the id of the operation whose snapshot has this subject."""
    return subject.removeprefix(_PREFIX)


def _batch_message(write: SnapshotWrite) -> BatchMessage:
    headers = {"Nats-Expected-Last-Subject-Sequence": str(write.revision)}
    if write.ttl is not None:
        headers["Nats-TTL"] = str(max(1, int(write.ttl)))
    subject = subjects.bucket_subject(subjects.VIEW_BUCKET, write.operation.id)
    return BatchMessage(subject, encode_snapshot(write.operation), headers)


def _entry(message: rpc.StoredMessage) -> SnapshotEntry:
    try:
        operation = _decode(message.data)
    except _UNREADABLE:
        return SnapshotEntry(message.seq, None)
    return SnapshotEntry(message.seq, operation if operation.is_current else None)
