"""The keys of the bucket `holds`, each changed only by who has seen its last value. Callers: `holds.py`, `pacing.py`.

Reads come from the leader unless said otherwise: a decision that is based on an old value costs a conflict at best, and
at worst somebody who waits is not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from opstream_journal.errors import BrokerRefused, JournalFull, JournalUnavailable
from opstream_schemas import subjects

from . import rpc
from .batch_read import BatchReader
from .connection import Connection

HOLDS_STREAM: Final = subjects.bucket_stream(subjects.HOLDS_BUCKET)

_ROLLUP: Final = {"Nats-Rollup": "sub"}
"""The value before goes as if it was removed. What goes by the stream's own limit does not: a broker that is killed
brings it back once its successor was removed."""
_CONFLICTS: Final = frozenset({10071, 10164})
_STORE_FAILED: Final = 10077
_BATCH: Final = 500
_REPLICA_TRIES: Final = 3


class _PurgeReply(msgspec.Struct):
    """The answer to a purge."""

    purged: int = 0
    error: rpc.JetStreamErrorBody | None = None


_decode_purged: Final = msgspec.json.Decoder(_PurgeReply).decode


class KeyValueEntry(msgspec.Struct, frozen=True):
    """What a key holds."""

    revision: int
    """Needed to change it; 0 for a key that is not there."""
    data: bytes
    """Empty for a key that is not there, or was removed."""


ABSENT: Final = KeyValueEntry(0, b"")


class KeyValueBucket:
    """The bucket over one connection.

    Args:
        link: the connection.
        jitter: draws a wait from `[low, high]` seconds.
    """

    def __init__(self, link: Connection, jitter: Callable[[float, float], float]) -> None:
        self._link = link
        self._jitter = jitter
        self._reader = BatchReader(link)

    async def start(self) -> None:
        """Open the inbox for answers."""
        await self._reader.start()

    async def get(self, key: str) -> KeyValueEntry:
        """A key as the leader has it.

        Raises:
            JournalUnavailable: no leader answered.
            RequestRefused: another error.
        """
        message = await rpc.get_last(self._link, HOLDS_STREAM, subjects.bucket_subject(subjects.HOLDS_BUCKET, key))
        return ABSENT if message is None else KeyValueEntry(message.seq, message.data)

    async def put(self, key: str, data: bytes) -> None:
        """Set a key, whatever it holds.

        Raises:
            JournalUnavailable: not acknowledged; it may be stored all the same.
            JournalFull: the broker has no room.
            RequestRefused: another error.
        """
        await self._publish(key, data, {})

    async def replace(self, key: str, data: bytes, revision: int) -> bool:
        """Set a key if it still has `revision` (0: if it is not there); whether it had.

        Raises:
            JournalUnavailable, JournalFull, RequestRefused: see `put`.
        """
        return await self._publish(key, data, {"Nats-Expected-Last-Subject-Sequence": str(revision)})

    async def remove(self, key: str, revision: int) -> bool:
        """Remove a key if it still has `revision`; whether it had.

        A purge up to the revision, and no marker with a TTL: once that has run out, a broker that is killed forgets it,
        and brings back what it stood for (docs/adr/0016).

        Raises:
            JournalUnavailable: not acknowledged; it may be gone all the same.
            RequestRefused: the broker refused.
        """
        request = {"filter": subjects.bucket_subject(subjects.HOLDS_BUCKET, key), "seq": revision + 1}
        answer = await rpc.call(self._link, f"$JS.API.STREAM.PURGE.{HOLDS_STREAM}", msgspec.json.encode(request))
        try:
            purged = _decode_purged(answer.data)
        except msgspec.MsgspecError as wrong:
            raise JournalUnavailable(
                f"the answer about {HOLDS_STREAM} is not JetStream's", maybe_stored=True
            ) from wrong
        if purged.error is not None:
            raise BrokerRefused(purged.error.code, purged.error.err_code, purged.error.description)
        return purged.purged > 0

    async def find_latest(self, pattern: str) -> tuple[str, KeyValueEntry] | None:
        """The key that was changed last among those that match, as the leader has it; None if it was removed.

        Raises:
            JournalUnavailable: no leader answered.
            RequestRefused: another error.
        """
        message = await rpc.get_last(self._link, HOLDS_STREAM, subjects.bucket_subject(subjects.HOLDS_BUCKET, pattern))
        return (
            None if message is None or not message.data else (_key(message), KeyValueEntry(message.seq, message.data))
        )

    async def read_all(self, pattern: str) -> dict[str, bytes]:
        """What the keys hold that match: all that the leader has at the time of the call, or newer.

        Raises:
            JournalUnavailable: no leader answered, or the replicas are far behind it.
            RequestRefused: another error.
        """
        subject = subjects.bucket_subject(subjects.HOLDS_BUCKET, pattern)
        for _ in range(_REPLICA_TRIES):
            floor = await rpc.get_last(self._link, HOLDS_STREAM, subject)
            if floor is None:
                return {}
            found = await self._read_pages(subject)
            # A message that is stored again moves to the end, so whatever was there is there, or follows.
            if found and max(message.seq for message in found) >= floor.seq:
                return _existing_values(found)
            await self._link.sleep(self._jitter(0.01, 0.1))
        return _existing_values(await self._read_from_leader(subject))

    async def read_all_from_replica(self, pattern: str) -> dict[str, bytes]:
        """As `all`, from any replica, so on a cluster perhaps an older state: to be shown, not to be decided upon.

        Raises:
            JournalUnavailable: nobody answered.
            RequestRefused: another error.
        """
        return _existing_values(await self._read_pages(subjects.bucket_subject(subjects.HOLDS_BUCKET, pattern)))

    async def _publish(self, key: str, data: bytes, headers: dict[str, str]) -> bool:
        subject = subjects.bucket_subject(subjects.HOLDS_BUCKET, key)
        try:
            await rpc.publish(self._link, subject, data, headers | _ROLLUP)
        except BrokerRefused as refused:
            if refused.err_code in _CONFLICTS:
                return False
            if refused.err_code == _STORE_FAILED:
                raise JournalFull("the broker has no room for holds") from refused
            raise
        return True

    async def _read_pages(self, subject: str) -> list[rpc.StoredMessage]:
        found: list[rpc.StoredMessage] = []
        while True:
            # Fewer than asked for is no end: the server also cuts a batch by its bytes.
            sequence = found[-1].seq + 1 if found else 1
            request = {"next_by_subj": subject, "seq": sequence, "batch": _BATCH}
            page = await self._reader.read(HOLDS_STREAM, request)
            if not page:
                return found
            found += page

    async def _read_from_leader(self, subject: str) -> list[rpc.StoredMessage]:
        found: list[rpc.StoredMessage] = []
        while True:
            message = await rpc.get_next(self._link, HOLDS_STREAM, subject, found[-1].seq + 1 if found else 1)
            if message is None:
                return found
            found.append(message)


def _existing_values(messages: list[rpc.StoredMessage]) -> dict[str, bytes]:
    last = {_key(message): message.data for message in messages}
    return {key: data for key, data in last.items() if data}


def _key(message: rpc.StoredMessage) -> str:
    return message.subject.removeprefix(subjects.bucket_subject(subjects.HOLDS_BUCKET, ""))
