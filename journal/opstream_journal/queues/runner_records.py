"""Presence records: which runners of an action are there, and when it had one last (docs/adr/0060).

A runner writes a record for each of its actions every few seconds. It removes it when it stops, and the broker removes
that of one that was killed. A second record for each action stays, so that it is known since when there is no runner.

Who reads takes the broker's time, so no clock of a runner matters. A runner of 0.5.0 or earlier has no record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from opstream_journal.errors import BrokerRefused, JournalUnavailable, NotProvisioned
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.jetstream.connection import Connection
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidName
from opstream_schemas.events import Instant
from opstream_schemas.names import Kind

from .message_ages import MessageAges, stored_at

WRITE_INTERVAL: Final = 5.0
"""Seconds between two records of one runner for one action."""
LIFETIME: Final = 3 * WRITE_INTERVAL
"""Seconds after which a record that was not written again says nothing: its runner is gone, or stands still."""
LAST_INTERVAL: Final = 60.0
"""Seconds between two records of one runner that there was one; a stop is recorded at once."""
MISSING: Final = (
    f"the broker has no stream {subjects.bucket_stream(subjects.RUNNERS_BUCKET)}, or this login may not use it: run "
    "'opstream provision --update', and 'opstream broker-config' again if each role has its own login"
)

_STREAM: Final = subjects.bucket_stream(subjects.RUNNERS_BUCKET)
_PREFIX: Final = subjects.bucket_subject(subjects.RUNNERS_BUCKET, "")
_TIMEOUT: Final = 2.0
_TOO_MANY: Final = 413
"""The broker answers with 1,024 records at most (NATS ADR-31)."""
_NAME_LIMIT: Final = 128
_NOT_IN_TOKENS: Final = re.compile(r"[^A-Za-z0-9_-]+")


class RunnerRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """That a runner offers an action."""

    runner: str
    """Its name, as `started` events have it."""
    host: str = ""
    pid: int = 0
    version: int
    """The action's, as this runner has it."""
    slots: int
    """Attempts that it runs at once at most."""
    free: int
    """How many more it could begin when it wrote this."""
    since: Instant
    """When it began to take operations, by its own clock."""


class ActionRunners(msgspec.Struct, frozen=True):
    """The runners of an action at one moment."""

    runners: tuple[RunnerRecord, ...] = ()
    """Those that are there."""
    seen_at: float = 0.0
    """Unix seconds of the broker at which one was there last, to the minute; 0 if it is not known."""

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of the action that they have, in order."""
        return tuple(sorted({one.version for one in self.runners}))


NO_RUNNERS: Final = ActionRunners()
"""Of an action of which there is no record."""


def has_no_runner(presence: ActionRunners | None, *, num_waiting: int, num_ack_pending: int) -> bool:
    """Return True if no runner takes operations of an action.

    Args:
        presence: what its records say; None if they can't be read.
        num_waiting: requests of runners for messages, as the action's consumer has them.
        num_ack_pending: messages that are with runners, as the consumer has them. The broker counts those of a runner
            that was killed, too, until another one takes them.
    """
    if num_waiting:
        return False
    if not num_ack_pending:
        return True
    # A runner of 0.5.0 has no record, so without a trace of one that has, the consumer decides alone.
    return presence is not None and not presence.runners and bool(presence.seen_at)


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(RunnerRecord).decode


class PresenceWriter:
    """Writes the records of one runner.

    Args:
        connection: the connection.
        name: the runner's name.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._token = _NOT_IN_TOKENS.sub("-", name)[-_NAME_LIMIT:]

    async def write(self, kind: Kind, record: RunnerRecord, *, is_noted: bool) -> None:
        """Say that this runner offers an action; it holds for `LIFETIME` seconds.

        Args:
            kind: the action.
            record: what to say.
            is_noted: whether to note for later that there was a runner, too.

        Raises:
            NotProvisioned: there is no such stream, or this login may not write to it.
            JournalUnavailable: not acknowledged; it may be stored nevertheless.
            JournalFull: the account or the server has no room.
            BrokerRefused: the broker refused.
        """
        key = subjects.presence_key(kind, self._token)
        await self._publish(key, _encode(record), {"Nats-TTL": str(int(LIFETIME))})
        if is_noted:
            await self._publish(subjects.last_presence_key(kind), b"{}", {})

    async def remove(self, kind: Kind) -> None:
        """Say that this runner does not offer an action any more, and note when.

        Raises:
            NotProvisioned, JournalUnavailable, JournalFull, BrokerRefused: as `write`.
        """
        await self._publish(subjects.last_presence_key(kind), b"{}", {})
        await self._publish(subjects.presence_key(kind, self._token), b"", {"Nats-TTL": "1"})

    async def _publish(self, key: str, data: bytes, headers: dict[str, str]) -> None:
        subject = _PREFIX + key
        try:
            await rpc.publish(self._connection, subject, data, headers, timeout=_TIMEOUT)
        except JournalUnavailable as error:
            self._connection.unanswered.remove(subject)  # no service is unwell because of this stream
            if rpc.has_no_responders(error):
                raise NotProvisioned(MISSING) from error
            raise


class RunnerRecords:
    """Reads the records, from any replica: to show, not to decide by.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._reader = BatchReader(connection)
        self._messages = MessageAges(connection)

    async def start(self) -> None:
        """Subscribe to the inboxes for reads."""
        await self._reader.start()
        await self._messages.start()

    async def stop(self) -> None:
        """Unsubscribe from them."""
        await self._reader.stop()
        await self._messages.stop()

    async def of(self, kind: Kind) -> ActionRunners:
        """Return the runners of an action, with one request.

        Raises:
            NotProvisioned: there is no such stream, or this login may not read it.
            JournalUnavailable: no replica answered, or not in time.
            BrokerRefused: another error.
        """
        return (await self._read(subjects.presence_filter(kind))).get(kind, NO_RUNNERS)

    async def all(self) -> dict[Kind, ActionRunners]:
        """Return the runners of each action that has, or had, one. Raises as `of` does."""
        return await self._read(f"{_PREFIX}>")

    async def _read(self, subject_filter: str) -> dict[Kind, ActionRunners]:
        try:
            try:
                messages = await self._reader.read(_STREAM, {"multi_last": [subject_filter]}, timeout=_TIMEOUT)
            except BrokerRefused as refused:
                if refused.code != _TOO_MANY:
                    raise
                messages = [one async for page in self._messages.pages(_STREAM, subject_filter) for one in page]
        except JournalUnavailable as error:
            if rpc.has_no_responders(error):
                raise NotProvisioned(MISSING) from error
            raise
        return group_records(messages, self._messages.now)


def group_records(messages: Iterable[rpc.StoredMessage], now: float) -> dict[Kind, ActionRunners]:
    """Return what stored records say, by action. What can't be read is passed over.

    Args:
        messages: of the stream of the bucket `runners`.
        now: Unix seconds of the broker. A record that is older than `LIFETIME` counts for nothing: a broker that was
            away may still have it.
    """
    runners: dict[Kind, list[RunnerRecord]] = {}
    seen: dict[Kind, float] = {}
    for message in messages:
        try:
            kind, is_alive = subjects.parse_presence_subject(message.subject)
        except InvalidName:
            continue
        at = stored_at(message)
        seen[kind] = max(seen.get(kind, 0.0), at)
        if not is_alive or not message.data or now - at > LIFETIME:
            continue
        try:
            runners.setdefault(kind, []).append(_decode(message.data))
        except (msgspec.MsgspecError, RecursionError):
            continue
    return {kind: ActionRunners(tuple(runners.get(kind, ())), at) for kind, at in seen.items()}
