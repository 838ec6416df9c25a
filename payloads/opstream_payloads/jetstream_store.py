"""Payloads in JetStream's object store, in the form of NATS ADR-20: chunks first, then the metadata that names them.

No role may make a consumer, so chunks are read by batched direct gets, some at a time, and only removed by purges of
their subjects (docs/adr/0075).
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import msgspec

from opstream_journal import BrokerRefused, Connection, EventTooLarge, JournalError, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.payloads.object_meta import CHUNK, STRIDE, ObjectMeta, decode_object_meta, object_meta
from opstream_schemas.payloads.object_subjects import (
    PAYLOADS_STREAM,
    StoredChunks,
    chunks_nuid,
    chunks_of_day_filter,
    chunks_subject,
    metadata_subject,
    parse_chunks_subject,
)
from opstream_schemas.payloads.payload_ref import PayloadKey

from .errors import PayloadDamaged, PayloadMissing, StoreUnavailable
from .pieces import MeasuredPieces
from .store import StoredPayload

PAGE: Final = 8
"""Chunks that are read with one request: 2 MiB."""
PATIENCE: Final = 30.0
"""Seconds for which one message is tried again, longer than the election of a leader."""

_HEADER_ROOM: Final = 8 * 1024
_READ_TIMEOUT: Final = 10.0
_PAUSE: Final = 0.2
_PAGE_TRIES: Final = 3
_SUBJECTS: Final = 256
_MESSAGE_ID: Final = re.compile(rb"\r\nNats-Msg-Id: ([^\r\n]+)\r\n", re.IGNORECASE)


class _ObjectState(msgspec.Struct, frozen=True):
    first_ts: str = ""
    messages: int = 0
    subjects: dict[str, int] = {}
    num_subjects: int = 0


class _ObjectInfo(msgspec.Struct, frozen=True):
    total: int = 0
    state: _ObjectState = _ObjectState()
    error: rpc.JetStreamErrorBody | None = None


class _ObjectsPurged(msgspec.Struct, frozen=True):
    purged: int = 0
    error: rpc.JetStreamErrorBody | None = None


_decode_info: Final = msgspec.json.Decoder(_ObjectInfo).decode
_decode_purged: Final = msgspec.json.Decoder(_ObjectsPurged).decode


class JetStreamStore:
    """The store over one connection.

    Args:
        connection: the connection, which is up.
        now: returns the time, with time zone.
        patience: see `PATIENCE`.
    """

    def __init__(self, connection: Connection, now: Callable[[], datetime], *, patience: float = PATIENCE) -> None:
        self._connection = connection
        self._now = now
        self._patience = patience
        self._reader = BatchReader(connection)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def stop(self) -> None:
        """Unsubscribe from it."""
        await self._reader.stop()

    async def put(self, key: PayloadKey, pieces: MeasuredPieces, media_type: str) -> None:  # noqa: ARG002
        """See `PayloadStore.put`."""
        upload = _Upload(self._connection, chunks_nuid(key, self._now().astimezone(UTC).date(), secrets.token_hex(4)))
        try:
            async for piece in pieces:
                await upload.add(piece, self._patience)
            await upload.end(self._patience)
            stored = await self._list_subjects(upload.subject)
            if stored.get(upload.subject) != len(upload.sequences):
                raise StoreUnavailable(f"the broker has not kept all chunks of payload {key}: try again")
            body = object_meta(
                key,
                upload.nuid,
                size=pieces.size,
                sha256=pieces.sha256,
                sequences=upload.sequences[::STRIDE],
                chunks=len(upload.sequences),
                chunk_size=upload.chunk_size,
                at=self._now(),
            )
            await _publish(self._connection, metadata_subject(key), body, f"{upload.nuid}.end", self._patience)
        except JournalError as error:
            raise StoreUnavailable(f"payload {key} is not stored: {error}") from error

    async def get(self, key: PayloadKey, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """See `PayloadStore.get`."""
        meta = await self._read_metadata(key)
        if meta is None:
            raise PayloadMissing(f"the object store of the broker has no payload {key}")
        end = min(start + length, meta.size)
        size = max(meta.options.max_chunk_size, 1)
        number, last = start // size, (end - 1) // size
        sequences = meta.sequences
        mark = min(number // STRIDE, len(sequences) - 1) if sequences else 0
        at, sequence = mark * STRIDE if sequences else 0, sequences[mark] if sequences else 1
        while start < end:
            page = await self._read_chunks(key, meta, at, min(PAGE, last + 1 - at), sequence)
            for message in page:
                if message.message_id != f"{meta.nuid}.{at}":
                    raise _missing_chunk(key, meta, at)
                begin = at * size
                piece = message.data[max(0, start - begin) : end - begin]
                at, sequence = at + 1, message.seq + 1
                if begin + len(message.data) > start and piece:
                    start = begin + len(message.data)
                    yield piece
            if at > last:
                return

    async def stat(self, key: PayloadKey) -> StoredPayload | None:
        """See `PayloadStore.stat`."""
        meta = await self._read_metadata(key)
        return None if meta is None else _stored(key, meta, self._now())

    async def delete(self, keys: Sequence[PayloadKey]) -> None:
        """See `PayloadStore.delete`. The metadata goes first: chunks without it are found as unfinished."""
        for key in keys:
            try:
                meta = await self._read_metadata(key)
            except PayloadDamaged:
                meta = None
            await self._purge(metadata_subject(key))
            if meta is not None:
                await self._purge(chunks_subject(meta.nuid))

    async def older_than(self, moment: datetime) -> AsyncGenerator[list[StoredPayload], None]:
        """See `PayloadStore.older_than`. The day of the first chunk counts."""
        async for chunks, metas in self._walk(moment):
            found = []
            for one in chunks:
                meta = metas.get(one.key)
                if meta is not None and meta.nuid == one.nuid:
                    found.append(StoredPayload(one.key, meta.size, _beginning(one.day)))
            if found:
                yield found

    async def remove_unfinished(self, moment: datetime) -> int:
        """See `PayloadStore.remove_unfinished`."""
        removed = 0
        async for chunks, metas in self._walk(moment):
            for one in chunks:
                meta = metas.get(one.key)
                if meta is not None and meta.nuid == one.nuid:
                    continue
                first = await self._read_metadata(one.key)
                if first is None or first.nuid != one.nuid:
                    await self._purge(chunks_subject(one.nuid))
                    removed += 1
        return removed

    async def presigned(self, key: PayloadKey, lifetime: timedelta) -> str:
        """Return nothing: clients do not reach the broker."""
        del key, lifetime
        return ""

    async def _walk(
        self, moment: datetime
    ) -> AsyncGenerator[tuple[list[StoredChunks], dict[PayloadKey, ObjectMeta]], None]:
        """Yield what began on days that were over at a moment, some at a time, with the metadata that there is."""
        last = moment.astimezone(UTC).date() - timedelta(days=1)
        state = await self._info({})
        if not state.state.messages:
            return
        # The clock of a writer may have been a day behind that of the broker, by which the first message is dated.
        day = datetime.fromisoformat(state.state.first_ts).date() - timedelta(days=1)
        while day <= last:
            found = []
            for subject in await self._list_subjects(chunks_of_day_filter(day)):
                try:
                    found.append(parse_chunks_subject(subject))
                except InvalidName:
                    continue  # an object of another program, which is its own to remove
            for start in range(0, len(found), _SUBJECTS):
                some = found[start : start + _SUBJECTS]
                yield some, await self._read_metadata_of(some)
            day += timedelta(days=1)

    async def _read_metadata_of(self, chunks: Sequence[StoredChunks]) -> dict[PayloadKey, ObjectMeta]:
        """Return the metadata of payloads, from any replica. What it lacks is looked up again before it counts."""
        subjects = {metadata_subject(one.key): one.key for one in chunks}
        try:
            messages = await self._reader.read_last(
                PAYLOADS_STREAM, list(subjects), batch=_SUBJECTS, timeout=_READ_TIMEOUT
            )
        except JournalError as error:
            raise StoreUnavailable(f"the object store of the broker can't be read: {error}") from error
        found: dict[PayloadKey, ObjectMeta] = {}
        for message in messages:
            meta = _decoded(message.data)
            if meta is not None:
                found[subjects[message.subject]] = meta
        return found

    async def _read_metadata(self, key: PayloadKey) -> ObjectMeta | None:
        """Return the metadata of a payload, from the leader; None without one.

        Raises:
            StoreUnavailable: no leader answered.
            PayloadDamaged: it can't be read.
        """
        try:
            # The first one: who may store payloads could publish another, and hide this one.
            message = await rpc.get_next(self._connection, PAYLOADS_STREAM, metadata_subject(key), 1)
        except JournalError as error:
            raise StoreUnavailable(f"the object store of the broker can't be read: {error}") from error
        if message is None:
            return None
        try:
            meta = decode_object_meta(message.data)
        except InvalidEvent as error:
            raise PayloadDamaged(f"payload {key}: {error}") from error
        return None if meta.deleted else meta

    async def _read_chunks(
        self, key: PayloadKey, meta: ObjectMeta, at: int, count: int, sequence: int
    ) -> list[rpc.StoredMessage]:
        """Return chunks from number `at` on, at least one.

        Raises:
            StoreUnavailable: the broker did not answer.
            PayloadDamaged: the chunk is missing.
        """
        subject = chunks_subject(meta.nuid)
        request: dict[str, Any] = {"next_by_subj": subject, "seq": sequence, "batch": count}
        try:
            for _ in range(_PAGE_TRIES):
                page = await self._reader.read(PAYLOADS_STREAM, request, timeout=_READ_TIMEOUT)
                if page:
                    return page
                await self._connection.sleep(_PAUSE)  # a replica that is behind
            message = await rpc.get_next(self._connection, PAYLOADS_STREAM, subject, sequence)
        except JournalError as error:
            raise StoreUnavailable(f"the object store of the broker can't be read: {error}") from error
        if message is None:
            raise _missing_chunk(key, meta, at)
        return [msgspec.structs.replace(message, message_id=_message_id(message))]

    async def _list_subjects(self, subjects: str) -> dict[str, int]:
        """Return how many messages there are on each subject that a filter matches, from the leader."""
        found: dict[str, int] = {}
        while True:
            page = await self._info({"subjects_filter": subjects, "offset": len(found)})
            found |= page.state.subjects
            if not page.state.subjects or len(found) >= page.total:
                return found

    async def _info(self, request: dict[str, Any]) -> _ObjectInfo:
        info = _decode_info(await self._call(f"$JS.API.STREAM.INFO.{PAYLOADS_STREAM}", request))
        _raise_refusal(info.error)
        return info

    async def _purge(self, subject: str) -> None:
        purged = _decode_purged(await self._call(f"$JS.API.STREAM.PURGE.{PAYLOADS_STREAM}", {"filter": subject}))
        _raise_refusal(purged.error)

    async def _call(self, subject: str, request: dict[str, Any]) -> bytes:
        try:
            answer = await rpc.call(
                self._connection, subject, msgspec.json.encode(request) if request else b"", timeout=_READ_TIMEOUT
            )
        except JournalError as error:
            raise StoreUnavailable(f"the object store of the broker does not answer: {error}") from error
        return answer.data


class _Upload:
    """One try to store a payload: chunks of one size but for the last, one after another."""

    def __init__(self, connection: Connection, nuid: str) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self.nuid = nuid
        self.subject = chunks_subject(nuid)
        self.chunk_size = min(CHUNK, connection.nc.max_payload - _HEADER_ROOM)
        self.sequences: list[int] = []

    async def add(self, piece: bytes, patience: float) -> None:
        self._buffer += piece
        while len(self._buffer) >= self.chunk_size:
            chunk = bytes(self._buffer[: self.chunk_size])
            del self._buffer[: self.chunk_size]
            await self._store(chunk, patience)

    async def end(self, patience: float) -> None:
        """Store the rest. A payload has one chunk at least, by whose subject a walk finds it."""
        if self._buffer or not self.sequences:
            await self._store(bytes(self._buffer), patience)
            self._buffer.clear()

    async def _store(self, chunk: bytes, patience: float) -> None:
        message_id = f"{self.nuid}.{len(self.sequences)}"
        self.sequences.append(await _publish(self._connection, self.subject, chunk, message_id, patience))


async def _publish(connection: Connection, subject: str, data: bytes, message_id: str, patience: float) -> int:
    """Publish a message until it is stored, and return its stream sequence.

    After an answer that was lost the leader says whether it is the last one of its subject. So the order of messages is
    that of the calls, and none is there twice: the broker knows the id of a late first copy.

    Raises:
        JournalUnavailable: not stored within `patience` seconds, as far as is known.
        JournalError: the broker refuses it for good.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + patience
    while True:
        try:
            return await rpc.publish(connection, subject, data, {"Nats-Msg-Id": message_id})
        except JournalUnavailable as error:
            if clock() >= until:
                raise
            failure = error
        except EventTooLarge as error:
            raise StoreUnavailable(f"the broker takes no chunks of {len(data)} bytes: {error}") from error
        if not await connection.wait_connected(max(0.0, until - clock())):
            raise failure
        await connection.sleep(_PAUSE)
        try:
            last = await rpc.get_last(connection, PAYLOADS_STREAM, subject)
        except JournalUnavailable:
            continue
        if last is not None and _message_id(last) == message_id:
            return last.seq


def _message_id(message: rpc.StoredMessage) -> str:
    """Return the id of a message that the leader returned; empty for none."""
    found = _MESSAGE_ID.search(message.hdrs)
    return found[1].decode("latin-1") if found else ""


def _missing_chunk(key: PayloadKey, meta: ObjectMeta, at: int) -> PayloadDamaged:
    return PayloadDamaged(f"payload {key} lacks chunk {at + 1} of {meta.chunks}: restore it from a backup")


def _decoded(data: bytes) -> ObjectMeta | None:
    try:
        meta = decode_object_meta(data)
    except InvalidEvent:
        return None
    return None if meta.deleted else meta


def _stored(key: PayloadKey, meta: ObjectMeta, now: datetime) -> StoredPayload:
    try:
        day = parse_chunks_subject(chunks_subject(meta.nuid)).day
    except InvalidName:
        return StoredPayload(key, meta.size, now)
    return StoredPayload(key, meta.size, _beginning(day))


def _beginning(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _raise_refusal(error: rpc.JetStreamErrorBody | None) -> None:
    if error is not None:
        refused = BrokerRefused(error.code, error.err_code, error.description)
        raise StoreUnavailable(f"the object store of the broker can't be used: {refused}") from refused
