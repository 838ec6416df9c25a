"""The view in bulk, as it is stored: for whoever compares all of it with the journal, or removes what is not its.

Callers: the projector's rebuild and verify. Services in the way of a request use `view.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from opstream_journal.errors import NotProvisioned
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Link
from opstream_journal.jetstream.ordered_consumer import ask
from opstream_schemas import subjects
from opstream_schemas.operation.fold import FOLD_VERSION, Operation

VIEW_STREAM: Final = subjects.bucket_stream(subjects.VIEW_BUCKET)

_TOGETHER: Final = 256
"""Snapshots asked for at once; the broker takes up to 1,024 subjects (NATS ADR-31)."""
_OPERATIONS_TOGETHER: Final = 100
"""Operations asked for at once: the broker refuses an answer of more than 1,024 messages, and each may have eight."""
_TOGETHER_BYTES: Final = 4 * 1024 * 1024
_TIMEOUT: Final = 10.0
_PREFIX: Final = subjects.bucket_subject(subjects.VIEW_BUCKET, "")
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)

encode_snapshot: Final = msgspec.json.Encoder().encode
"""The bytes that the view holds for an operation."""

_decode: Final = msgspec.json.Decoder(Operation).decode


class _Cursor(msgspec.Struct, rename="camel"):
    """What every version of the fold says."""

    stream_sequence: int
    fold_version: int


_decode_cursor: Final = msgspec.json.Decoder(_Cursor).decode


class Snapshot:
    """An entry of the view, decoded only if somebody asks."""

    __slots__ = ("data", "operation_id", "revision")

    def __init__(self, operation_id: str, revision: int, data: bytes) -> None:
        self.operation_id = operation_id
        self.revision = revision
        self.data = data

    @property
    def operation(self) -> Operation | None:
        """What it says; None if this version can't trust it (`problem` tells why)."""
        return None if self.problem else _decode(self.data)

    @property
    def problem(self) -> str:
        """Why this version can't trust it; empty if it can."""
        try:
            operation = _decode(self.data)
        except _UNREADABLE:
            cursor = self._cursor()
            if cursor is not None and cursor.fold_version != FOLD_VERSION:
                return f"of fold version {cursor.fold_version}, this is {FOLD_VERSION}"
            return "not readable"
        if operation.fold_version != FOLD_VERSION:
            return f"of fold version {operation.fold_version}, this is {FOLD_VERSION}"
        return "" if operation.id == self.operation_id else f"of operation {operation.id}"

    @property
    def sequence(self) -> int | None:
        """The stream sequence up to which it was folded, by whatever version; None if it does not say."""
        cursor = self._cursor()
        return None if cursor is None else cursor.stream_sequence

    def _cursor(self) -> _Cursor | None:
        try:
            return _decode_cursor(self.data)
        except _UNREADABLE:
            return None


class Snapshots:
    """The stored snapshots over one connection, which is up.

    Args:
        link: the connection.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._reader = rpc.BatchReader(link)

    async def start(self) -> None:
        """Open the inbox for answers."""
        await self._reader.start()

    async def stop(self) -> None:
        """Close it."""
        await self._reader.stop()

    async def get(self, operation_ids: Sequence[str]) -> dict[str, Snapshot]:
        """Those of these operations that there are, from any replica, with few requests.

        Raises:
            JournalUnavailable: nobody answered, or not in time.
            RequestRefused: another error.
        """
        found: dict[str, Snapshot] = {}
        for start in range(0, len(operation_ids), _TOGETHER):
            missing = {f"{_PREFIX}{one}" for one in operation_ids[start : start + _TOGETHER]}
            while missing:
                request = {"multi_last": list(missing), "max_bytes": _TOGETHER_BYTES}
                messages = await self._reader.read(VIEW_STREAM, request, timeout=_TIMEOUT)
                for message in messages:
                    missing.discard(message.subject)
                    operation_id = message.subject.removeprefix(_PREFIX)
                    found[operation_id] = Snapshot(operation_id, message.seq, message.data)
                if not messages:
                    break  # otherwise there may be more, which did not fit into one answer
        return found

    async def newest(self, operation_id: str) -> Snapshot | None:
        """One as the leader has it.

        Raises:
            JournalUnavailable: no leader answered.
        """
        message = await rpc.get_last(self._link, VIEW_STREAM, f"{_PREFIX}{operation_id}")
        return None if message is None else Snapshot(operation_id, message.seq, message.data)

    async def remove(self, operation_id: str, revision: int) -> None:
        """Remove an entry, but not one that took its place meanwhile.

        Raises:
            JournalUnavailable: no leader answered.
            RequestRefused: another error.
        """
        # A purge up to a sequence leaves no marker behind, and can't touch what is newer.
        request = {"filter": f"{_PREFIX}{operation_id}", "seq": revision + 1}
        await ask(self._link, VIEW_STREAM, f"STREAM.PURGE.{VIEW_STREAM}", msgspec.json.encode(request))

    async def last_sequences(self, operation_ids: Sequence[str]) -> dict[str, int]:
        """The stream sequence of the last event of each operation that the journal knows, from any replica.

        Raises:
            JournalUnavailable: nobody answered, or not in time.
            RequestRefused: another error.
        """
        found: dict[str, int] = {}
        for start in range(0, len(operation_ids), _OPERATIONS_TOGETHER):
            filters = [subjects.operation_filter(one) for one in operation_ids[start : start + _OPERATIONS_TOGETHER]]
            while filters:
                request = {"multi_last": filters, "max_bytes": _TOGETHER_BYTES}
                messages = await self._reader.read(subjects.OPERATIONS_STREAM, request, timeout=_TIMEOUT)
                for message in messages:
                    found[message.subject.split(".", 2)[1]] = message.seq
                before, filters = filters, [one for one in filters if one.split(".", 2)[1] not in found]
                if not messages or len(before) == len(filters):
                    break
        return found


def operation_of(subject: str) -> str:
    """The operation whose snapshot lies under a subject of the view's stream."""
    return subject.removeprefix(_PREFIX)


class _Floor(msgspec.Struct):
    stream_seq: int = 0


class _ConsumerState(msgspec.Struct):
    ack_floor: _Floor = msgspec.field(default_factory=_Floor)


async def projected(link: Link) -> int:
    """The stream sequence up to which the projectors have written everything; 0 if there is no consumer of theirs.

    Raises:
        JournalUnavailable: JetStream did not answer.
    """
    stream, consumer = subjects.OPERATIONS_STREAM, subjects.PROJECTOR_CONSUMER
    answer = await rpc.call(link, f"$JS.API.CONSUMER.INFO.{stream}.{consumer}")
    try:
        return msgspec.json.decode(answer.data, type=_ConsumerState).ack_floor.stream_seq
    except msgspec.MsgspecError as error:
        raise NotProvisioned(f"the answer about consumer {consumer} is not JetStream's: {error}") from error
