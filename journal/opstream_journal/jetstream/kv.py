"""The keys of a bucket: resource locks and rates, and who has access. A key changes by compare-and-set.

Reads come from the leader unless said otherwise. A decision by an old value costs a conflict at best; at worst it
misses an operation that waits.
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
"""A write removes the previous value. The stream's limit per subject would do so, too, but a broker that is killed
restores a value that went by the limit, once its successor was removed."""
_CONFLICTS: Final = frozenset({10071, 10164})
_STORE_FAILED: Final = 10077
_BATCH: Final = 500
_REPLICA_TRIES: Final = 3


class _PurgeReply(msgspec.Struct):
    """JetStream's answer to a purge."""

    purged: int = 0
    error: rpc.JetStreamErrorBody | None = None


_decode_purged: Final = msgspec.json.Decoder(_PurgeReply).decode


class KeyValueEntry(msgspec.Struct, frozen=True):
    """The value of a key."""

    revision: int
    """Stream sequence of the value, needed to change it; 0 for a missing key."""
    data: bytes
    """Empty for a missing or removed key."""


ABSENT: Final = KeyValueEntry(0, b"")


class KeyValueBucket:
    """A bucket over one connection, by default `holds`.

    Args:
        connection: the connection.
        jitter: draws a delay from `[low, high]` seconds.
        bucket: its name.
    """

    def __init__(
        self, connection: Connection, jitter: Callable[[float, float], float], bucket: str = subjects.HOLDS_BUCKET
    ) -> None:
        self._connection = connection
        self._jitter = jitter
        self._bucket = bucket
        self._stream = subjects.bucket_stream(bucket)
        self._prefix = subjects.bucket_subject(bucket, "")
        self._reader = BatchReader(connection)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def stop(self) -> None:
        """Unsubscribe from it."""
        await self._reader.stop()

    async def get(self, key: str) -> KeyValueEntry:
        """Return the value of a key, from the leader.

        Raises:
            JournalUnavailable: no leader answered.
            BrokerRefused: another error.
        """
        message = await rpc.get_last(self._connection, self._stream, self._prefix + key)
        return ABSENT if message is None else KeyValueEntry(message.seq, message.data)

    async def put(self, key: str, data: bytes) -> None:
        """Set a key, whatever its value is.

        Raises:
            JournalUnavailable: not acknowledged; it may be stored nevertheless.
            JournalFull: the broker has no room.
            BrokerRefused: another error.
        """
        await self._publish(key, data, {})

    async def replace(self, key: str, data: bytes, revision: int) -> bool:
        """Set a key if it still has `revision` (0: if it is missing). Return False if it has another one.

        Raises:
            JournalUnavailable, JournalFull, BrokerRefused: see `put`.
        """
        return await self._publish(key, data, {"Nats-Expected-Last-Subject-Sequence": str(revision)})

    async def remove(self, key: str, revision: int) -> bool:
        """Remove a key if it still has `revision`. Return False if it has another one.

        This purges the key up to the revision. A delete marker with a TTL would not do: once the TTL has run out, a
        broker that is killed forgets the marker and restores the value (docs/adr/0016).

        Raises:
            JournalUnavailable: not acknowledged; it may be gone nevertheless.
            BrokerRefused: the broker refused.
        """
        request = {"filter": self._prefix + key, "seq": revision + 1}
        answer = await rpc.call(self._connection, f"$JS.API.STREAM.PURGE.{self._stream}", msgspec.json.encode(request))
        try:
            purged = _decode_purged(answer.data)
        except msgspec.MsgspecError as wrong:
            raise JournalUnavailable(
                f"the answer about {self._stream} is not JetStream's", maybe_stored=True
            ) from wrong
        if purged.error is not None:
            raise BrokerRefused(purged.error.code, purged.error.err_code, purged.error.description)
        return purged.purged > 0

    async def find_latest(self, pattern: str) -> tuple[str, KeyValueEntry] | None:
        """Return the key that was changed last among those that match, from the leader; None if it was removed.

        Raises:
            JournalUnavailable: no leader answered.
            BrokerRefused: another error.
        """
        message = await rpc.get_last(self._connection, self._stream, self._prefix + pattern)
        if message is None or not message.data:
            return None
        return self._key(message), KeyValueEntry(message.seq, message.data)

    async def read_all(self, pattern: str) -> dict[str, bytes]:
        """Return the values of all keys that match, as new as the leader had them at the time of the call.

        Raises:
            JournalUnavailable: no leader answered, or the replicas are far behind.
            BrokerRefused: another error.
        """
        subject = self._prefix + pattern
        for _ in range(_REPLICA_TRIES):
            last = await rpc.get_last(self._connection, self._stream, subject)
            if last is None:
                return {}
            found = await self._read_pages(subject)
            # A key that is set again moves to the end: so with the last message of the leader, all others are here.
            if found and max(message.seq for message in found) >= last.seq:
                return self._existing_values(found)
            await self._connection.sleep(self._jitter(0.01, 0.1))
        return self._existing_values(await self._read_from_leader(subject))

    async def read_all_from_replica(self, pattern: str) -> dict[str, bytes]:
        """Return the same from any replica, so on a cluster perhaps an older state: to show, not to decide by.

        Raises:
            JournalUnavailable: no replica answered.
            BrokerRefused: another error.
        """
        return self._existing_values(await self._read_pages(self._prefix + pattern))

    async def _publish(self, key: str, data: bytes, headers: dict[str, str]) -> bool:
        subject = self._prefix + key
        try:
            await rpc.publish(self._connection, subject, data, headers | _ROLLUP)
        except BrokerRefused as refused:
            if refused.err_code in _CONFLICTS:
                return False
            if refused.err_code == _STORE_FAILED:
                raise JournalFull(f"the broker has no room in the bucket {self._bucket}") from refused
            raise
        return True

    async def _read_pages(self, subject: str) -> list[rpc.StoredMessage]:
        found: list[rpc.StoredMessage] = []
        while True:
            # A short page is not the end: the broker also cuts a batch by its bytes.
            sequence = found[-1].seq + 1 if found else 1
            request = {"next_by_subj": subject, "seq": sequence, "batch": _BATCH}
            page = await self._reader.read(self._stream, request)
            if not page:
                return found
            found += page

    async def _read_from_leader(self, subject: str) -> list[rpc.StoredMessage]:
        found: list[rpc.StoredMessage] = []
        while True:
            message = await rpc.get_next(self._connection, self._stream, subject, found[-1].seq + 1 if found else 1)
            if message is None:
                return found
            found.append(message)

    def _existing_values(self, messages: list[rpc.StoredMessage]) -> dict[str, bytes]:
        last = {self._key(message): message.data for message in messages}
        return {key: data for key, data in last.items() if data}

    def _key(self, message: rpc.StoredMessage) -> str:
        return message.subject.removeprefix(self._prefix)
