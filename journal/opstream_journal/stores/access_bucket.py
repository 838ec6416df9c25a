"""The bucket `access`: records of API keys, and the secret of the installation (docs/adr/0046).

A record is bytes here; `opstream_api.access.keys` knows what is in it. No key is ever removed: a revoked one stays,
with the time at which it was revoked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from opstream_journal.errors import BrokerRefused, JournalError, JournalUnavailable, NotProvisioned
from opstream_journal.jetstream.connection import Connection, end_task
from opstream_journal.jetstream.kv import KeyValueBucket, KeyValueEntry
from opstream_journal.jetstream.rpc import STREAM_NOT_FOUND
from opstream_journal.outage_log import OutageLog
from opstream_schemas import subjects

logger = logging.getLogger(__name__)

SECRET_BYTES: Final = 32
REFRESH_INTERVAL: Final = 0.5
"""Seconds between two looks at the newest record, for the notifications that are lost."""

_SECRET_KEY: Final = "secret"  # noqa: S105 - a name
_RECORDS: Final = subjects.access_key("*")
_TRIES: Final = 5


class AccessBucket:
    """The bucket over one connection.

    Args:
        connection: the connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bucket = KeyValueBucket(connection, random.uniform, subjects.ACCESS_BUCKET)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._bucket.start()

    async def stop(self) -> None:
        """Unsubscribe from it."""
        await self._bucket.stop()

    async def secret(self) -> bytes:
        """Return the secret of the installation. The first call of all processes makes it, once and for ever.

        With another one, no client would find its operations. So it is never changed, and belongs into a backup.

        Raises:
            NotProvisioned: there is no such bucket.
            JournalError: the broker did not answer, or refused.
        """
        for _ in range(_TRIES):
            with _missing_bucket_explained():
                entry = await self._bucket.get(_SECRET_KEY)
                if len(entry.data) == SECRET_BYTES:
                    return entry.data
                if entry.data:
                    raise NotProvisioned(
                        f"the secret in the bucket {subjects.ACCESS_BUCKET} is damaged ({len(entry.data)} bytes): "
                        "restore the bucket from a backup"
                    )
                # Of two processes one creates it, and both read that one.
                await self._bucket.replace(_SECRET_KEY, secrets.token_bytes(SECRET_BYTES), entry.revision)
        raise JournalUnavailable("the secret of the installation can't be read", maybe_stored=False)

    async def records(self) -> Mapping[str, bytes]:
        """Return all records by the ids of their API keys.

        Raises:
            NotProvisioned: there is no such bucket.
            JournalError: the broker did not answer, or refused.
        """
        prefix = subjects.access_key("")
        with _missing_bucket_explained():
            found = await self._bucket.read_all(_RECORDS)
        return {key.removeprefix(prefix): data for key, data in found.items()}

    async def last_revision(self) -> int:
        """Return the revision of the record that was changed last, from the leader; 0 without one.

        Raises:
            NotProvisioned: there is no such bucket.
            JournalError: the broker did not answer, or refused.
        """
        with _missing_bucket_explained():
            latest = await self._bucket.find_latest(_RECORDS)
        return 0 if latest is None else latest[1].revision

    async def record(self, key_id: str) -> KeyValueEntry:
        """Return the record of one API key, from the leader; empty if there is none.

        Raises:
            NotProvisioned: there is no such bucket.
            JournalError: the broker did not answer, or refused.
        """
        with _missing_bucket_explained():
            return await self._bucket.get(subjects.access_key(key_id))

    async def put_record(self, key_id: str, data: bytes, revision: int) -> bool:
        """Store a record if it still has `revision`, 0 for a new one. Return False if it has another one.

        Raises:
            NotProvisioned: there is no such bucket.
            JournalError: the broker did not answer, or refused.
        """
        with _missing_bucket_explained():
            return await self._bucket.replace(subjects.access_key(key_id), data, revision)


@contextlib.contextmanager
def _missing_bucket_explained() -> Iterator[None]:
    """Say what to do about a broker that was not provisioned by this version."""
    try:
        yield
    except BrokerRefused as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        raise NotProvisioned(
            f"the broker has no bucket {subjects.ACCESS_BUCKET} for API keys: run 'opstream provision --update'"
        ) from error


class AccessWatch:
    """Keeps a listener up to date with all records: within moments of a change, and within a second without notice.

    A notification only causes a read, as in `ActionCatalog`.

    Args:
        connection: the connection.
        bucket: the records, started.
        on_records: called with all records, at the start and after each change.
    """

    def __init__(
        self, connection: Connection, bucket: AccessBucket, on_records: Callable[[Mapping[str, bytes]], None]
    ) -> None:
        self._connection = connection
        self._bucket = bucket
        self._on_records = on_records
        self._notified = asyncio.Event()
        self._revision = -1
        """Of the newest record that was read."""
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read all records and begin to watch. After an error, call it again.

        Raises:
            NotProvisioned: there is no such bucket.
            JournalError: the broker did not answer, or refused.
        """
        if self._subscription is None:
            subject = subjects.bucket_subject(subjects.ACCESS_BUCKET, _RECORDS)
            self._subscription = await self._connection.nc.subscribe(subject, cb=self._on_notification)
            self._connection.on_reconnect(self._notified.set)
        await self._refresh()
        self._task = asyncio.create_task(self._watch(), name="access watch")

    async def stop(self) -> None:
        """Stop watching."""
        if self._subscription is None:
            return
        if self._task is not None:
            await end_task(self._task)
        self._connection.remove_reconnect_callback(self._notified.set)
        if not self._connection.nc.is_closed:
            await self._subscription.unsubscribe()
        self._subscription = None

    async def _refresh(self) -> None:
        revision = await self._bucket.last_revision()
        if revision != self._revision:
            self._on_records(await self._bucket.records())  # which has at least what the leader had at that revision
            self._revision = revision

    async def _watch(self) -> None:
        outage = OutageLog(logger, "API keys can't be read, the known ones stay in use", "API keys can be read again")
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_INTERVAL):
                    await self._notified.wait()
            self._notified.clear()
            try:
                await self._refresh()
            except JournalError as error:
                outage.failed(error)
            else:
                outage.recovered()

    async def _on_notification(self, _message: Msg) -> None:
        self._notified.set()
