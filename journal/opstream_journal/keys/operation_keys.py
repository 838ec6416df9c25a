"""The keys of confidential operations: the bucket `operation_keys`.

A key is made before the first event of its operation, and destroyed after the last. It is never in a backup: a copy
that outlives an erasure would undo it.

An erasure takes three steps, each safe to repeat: the record that says who and why (`pending`), the removal of the
wrapped key, which the broker overwrites on its disk, and the record again, as done. The process that finds it pending
goes on.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from opstream_journal.errors import (
    BrokerRefused,
    JournalUnavailable,
    KeyMissing,
    KeyUnusable,
    NotProvisioned,
    OperationErased,
)
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.jetstream.connection import Connection
from opstream_journal.missing_streams import missing_stream_text
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_schemas import subjects
from opstream_schemas.errors import SealBroken, UnknownKek
from opstream_schemas.event_types.erasure import Erasure
from opstream_schemas.names import Kind
from opstream_schemas.seals.operation_key import KEY_BYTES, Draw, OperationKey
from opstream_schemas.seals.wrapped_key import KeyEntry, decode_entry, encode_entry, wrap_key

from .keks import NO_KEK, KekRing

KEYS_STREAM: Final = subjects.bucket_stream(subjects.OPERATION_KEYS_BUCKET)

_TRIES: Final = 8
_PAGE: Final = 500
_CONFLICTS: Final = frozenset({10071, 10164})
_REPLICA_DELAYS: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between reads of a key that a replica does not have yet."""
_PREFIX: Final = subjects.bucket_subject(subjects.OPERATION_KEYS_BUCKET, "")


class _StoredKey(msgspec.Struct, frozen=True):
    """What the bucket has under a name."""

    revision: int
    """Stream sequence; 0 for nothing."""
    data: bytes = b""


_NOTHING: Final = _StoredKey(0)


class NamedEntry(msgspec.Struct, frozen=True):
    """A value of the bucket, with its name (`subjects.operation_key`)."""

    name: str
    revision: int
    data: bytes


class OperationKeys:
    """Makes, finds and destroys keys.

    Args:
        connection: the connection.
        ring: the key-encryption keys; None for a process without, which can destroy keys, and use none.
        is_direct: read from any replica, by the name of the key alone: a login of a runner may read the keys of its
            own actions, and no others. What was erased a moment ago may still be found so.
        draw: makes keys.
    """

    def __init__(
        self, connection: Connection, ring: KekRing | None, *, is_direct: bool = False, draw: Draw = os.urandom
    ) -> None:
        self._connection = connection
        self._ring = ring
        self._is_direct = is_direct
        self._draw = draw

    @property
    def is_able(self) -> bool:
        """Return True if this process has a key-encryption key."""
        return self._ring is not None

    async def make(self, kind: Kind, operation_id: str) -> OperationKey:
        """Return the key of an operation that is about to begin: a new one, or that of the same request sent before.

        Raises:
            OperationErased: an operation of this id was.
            KeyUnusable: this process has no KEK, or not the one that has wrapped the key.
            NotProvisioned: there is no such bucket.
            JournalError: the broker did not answer, or refused.
        """
        ring = self._needed_ring(operation_id)
        name = subjects.operation_key(kind, operation_id)
        secret = self._draw(KEY_BYTES)
        if await self._write(name, encode_entry(wrap_key(ring.current, operation_id, secret, self._draw)), 0):
            crash_point(CrashPoint.API_KEY_MADE)
            return OperationKey(operation_id, secret, self._draw)
        return await self.find(kind, operation_id)

    async def find(self, kind: Kind, operation_id: str) -> OperationKey:
        """Return the key of an operation.

        Raises:
            OperationErased: it was destroyed.
            KeyMissing: it is not on this broker.
            KeyUnusable, NotProvisioned, JournalError: as `make`.
        """
        name = subjects.operation_key(kind, operation_id)
        found = await (self._read_direct(name) if self._is_direct else self._read(name))
        if not found.revision:
            raise KeyMissing(
                f"the key of operation {operation_id} is not on this broker, and no record says that it was erased: "
                "bring it back with 'opstream keys import' (docs/confidential.md)"
            )
        entry = _decoded(operation_id, found.data)
        if entry.erased is not None:
            if entry.pending and not self._is_direct:
                await self._finish(name, found.revision, entry.erased)
            raise OperationErased(operation_id, entry.erased)
        ring = self._needed_ring(operation_id)
        try:
            return OperationKey(operation_id, await ring.unwrap(operation_id, entry), self._draw)
        except (UnknownKek, SealBroken) as error:
            raise KeyUnusable(str(error)) from error

    async def erase(self, kind: Kind, operation_id: str, erasure: Erasure) -> Erasure:
        """Destroy the key of an operation, and leave a record in its place.

        Returns:
            The record: the first one, if it was erased before.

        Raises:
            NotProvisioned: there is no such bucket.
            JournalError: the broker did not answer, or refused. Repeated, it goes on.
        """
        return await self.put_erased(subjects.operation_key(kind, operation_id), erasure)

    async def name_of(self, operation_id: str) -> str | None:
        """Return the name of an operation's key, or of the record in its place; None without either.

        Raises:
            NotProvisioned, JournalError: as `erase`.
        """
        subject = f"{_PREFIX}*.*.{operation_id}"
        try:
            message = await rpc.get_last(self._connection, KEYS_STREAM, subject)
        except BrokerRefused as refused:
            raise _explained(refused) from refused
        return None if message is None else message.subject.removeprefix(_PREFIX)

    async def put_erased(self, name: str, erasure: Erasure) -> Erasure:
        """Do the same for a key by its name (`subjects.operation_key`), whether or not there is one."""
        for _ in range(_TRIES):
            found = await self._read(name)
            known = _erasure_of(found.data)
            if known is not None:
                if known.pending:
                    await self._finish(name, found.revision, known.erased or erasure)
                return known.erased or erasure
            sequence = await self._publish(name, encode_entry(KeyEntry(erased=erasure, pending=True)), found.revision)
            if sequence:
                crash_point(CrashPoint.API_ERASURE_RECORDED)
                await self._finish(name, sequence, erasure)
                return erasure
        raise JournalUnavailable(f"the key {name} keeps changing", maybe_stored=False)

    async def entries(self) -> AsyncIterator[NamedEntry]:
        """Yield all values, oldest first; of a name perhaps an older one, too.

        Raises:
            NotProvisioned: there is no such bucket.
            JournalError: the broker did not answer, or refused.
        """
        reader = BatchReader(self._connection)
        await reader.start()
        try:
            sequence = 0
            while page := await self._page(reader, sequence + 1):
                for message in page:
                    yield NamedEntry(message.subject.removeprefix(_PREFIX), message.seq, message.data)
                sequence = page[-1].seq
        finally:
            await reader.stop()

    async def rewrap(self, entry: NamedEntry) -> bool:
        """Wrap a key by the present KEK, and destroy what was wrapped by another one.

        Returns:
            False if there was nothing to do.

        Raises:
            KeyUnusable: this process has no KEK, or not the one that has wrapped it.
            JournalError: the broker did not answer, or refused.
        """
        operation_id = subjects.parse_operation_key(entry.name)[1]
        ring = self._needed_ring(operation_id)
        found = await self._read(entry.name)
        if found.revision != entry.revision:
            return False  # an older value, or one that has changed since: it comes later
        decoded = _decoded(operation_id, found.data)
        if decoded.erased is not None:
            if decoded.pending:
                await self._finish(entry.name, found.revision, decoded.erased)
            return False
        if decoded.kek == ring.current.id:
            return False
        try:
            secret = await ring.unwrap(operation_id, decoded)
        except (UnknownKek, SealBroken) as error:
            raise KeyUnusable(str(error)) from error
        wrapped = encode_entry(wrap_key(ring.current, operation_id, secret, self._draw))
        sequence = await self._publish(entry.name, wrapped, found.revision)
        if sequence:
            await self._destroy_before(entry.name, sequence)
        return bool(sequence)

    async def put_wrapped(self, name: str, data: bytes) -> bool:
        """Store a wrapped key of an export, if there is nothing under its name. Return whether it was stored.

        Raises:
            KeyUnusable: it is no wrapped key.
            JournalError: the broker did not answer, or refused.
        """
        if _decoded(name, data).erased is not None:
            raise KeyUnusable(f"{name} is a record of an erasure, and no key")
        return await self._write(name, data, 0)

    def _needed_ring(self, operation_id: str) -> KekRing:
        if self._ring is None:
            raise KeyUnusable(f"operation {operation_id} is confidential, and this process can't open it: {NO_KEK}")
        return self._ring

    async def _finish(self, name: str, revision: int, erasure: Erasure) -> None:
        await self._destroy_before(name, revision)
        await self._write(name, encode_entry(KeyEntry(erased=erasure)), revision, rolls_up=True)

    async def _destroy_before(self, name: str, revision: int) -> None:
        """Remove what was under a name before: the broker overwrites it on its disk."""
        while True:
            message = await rpc.get_next(self._connection, KEYS_STREAM, _PREFIX + name, 1)
            if message is None or message.seq >= revision:
                return
            await admin.delete_message(self._connection, KEYS_STREAM, message.seq)

    async def _read(self, name: str) -> _StoredKey:
        try:
            message = await rpc.get_last(self._connection, KEYS_STREAM, _PREFIX + name)
        except BrokerRefused as refused:
            raise _explained(refused) from refused
        return _NOTHING if message is None else _StoredKey(message.seq, message.data)

    async def _read_direct(self, name: str) -> _StoredKey:
        for delay in (*_REPLICA_DELAYS, 0.0):
            message = await rpc.get_direct(self._connection, KEYS_STREAM, _PREFIX + name)
            if message is not None:
                return _StoredKey(message.seq, message.data)
            await self._connection.sleep(delay)
        return _NOTHING

    async def _page(self, reader: BatchReader, sequence: int) -> list[rpc.StoredMessage]:
        request = {"next_by_subj": f"{_PREFIX}>", "seq": sequence, "batch": _PAGE}
        try:
            return await reader.read(KEYS_STREAM, request)
        except BrokerRefused as refused:
            raise _explained(refused) from refused

    async def _write(self, name: str, data: bytes, revision: int, *, rolls_up: bool = False) -> bool:
        return bool(await self._publish(name, data, revision, rolls_up=rolls_up))

    async def _publish(self, name: str, data: bytes, revision: int, *, rolls_up: bool = False) -> int:
        """Store a value if its name still has `revision`; return its own, or 0 if the name has another one."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        if rolls_up:
            headers["Nats-Rollup"] = "sub"
        try:
            return await rpc.publish(self._connection, _PREFIX + name, data, headers)
        except BrokerRefused as refused:
            if refused.err_code in _CONFLICTS:
                return 0
            raise _explained(refused) from refused
        except JournalUnavailable as error:
            if not rpc.has_no_responders(error):
                raise
            raise NotProvisioned(missing_stream_text(KEYS_STREAM)) from error


def _decoded(operation_id: str, data: bytes) -> KeyEntry:
    try:
        return decode_entry(operation_id, data)
    except SealBroken as error:
        raise KeyUnusable(str(error)) from error


def _erasure_of(data: bytes) -> KeyEntry | None:
    """Return a record of an erasure; None for a key, for one that is damaged, and for nothing."""
    try:
        entry = decode_entry("", data)
    except SealBroken:
        return None
    return entry if entry.erased is not None else None


def _explained(refused: BrokerRefused) -> BrokerRefused | NotProvisioned:
    if refused.err_code != rpc.STREAM_NOT_FOUND:
        return refused
    return NotProvisioned(missing_stream_text(KEYS_STREAM))
