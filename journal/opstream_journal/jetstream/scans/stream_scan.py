"""Reads a whole stream in order: from a sequence or a time, to its end or for ever.

Every message comes exactly once, from an ephemeral consumer without acknowledgements. If the consumer is lost (the
connection broke, the consumer was deleted, a message is missing), the scan creates another one behind the last message.
Memory stays flat: the broker sends no more than was asked for, and asking follows reading.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from nats.errors import NoRespondersError

from opstream_journal.errors import JournalUnavailable, StreamReplaced
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.stream_info import StreamBounds, StreamLimits, stream_api_request
from opstream_schemas.integrity.setback import SequenceRange

from .direct_reader import DirectReader
from .ordered_consumer import HEARTBEAT, OrderedConsumer
from .scanned_message import ScannedMessage

logger = logging.getLogger(__name__)

CREATED: Final = "opstream.created"
"""Key in a restored stream's metadata: when the stream of the backup was created (docs/adr/0051)."""
OUTAGE_TIMEOUT: Final = 60.0
"""Seconds that a scan waits for a broker that is away."""

_INACTIVE_THRESHOLD: Final = 30.0
"""Seconds after which the broker deletes a consumer without pulls."""
_RETRY_DELAY: Final = 0.25
_MAX_GAPS: Final = 10_000
_LEADER_LAG: Final = 5.0
"""Seconds for which a new leader may be behind what the consumer delivered before."""


class StreamIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A stream, as its leader has it."""

    name: str
    created: str
    """The time of its creation, as the broker writes it. A restored backup keeps it, a new stream does not: the broker
    takes a restored stream for a new one, so `opstream restore` notes the time in its metadata."""
    max_age: float
    """Seconds after which messages expire; 0 for never."""
    first: int
    """In an empty stream, the next sequence."""
    last: int
    last_stored_at: str = ""
    """The time at which the broker stored the last message, as it writes it, also if that is gone."""
    missing: int = 0
    """Number of sequences between the first and the last one that have no message."""
    replicas: int = 1

    @property
    def last_stored_time(self) -> datetime | None:
        """Return `last_stored_at` as a time; None if the stream never had a message."""
        if not self.last_stored_at or self.last_stored_at.startswith("0001-"):
            return None
        return datetime.fromisoformat(self.last_stored_at)


async def stream_bounds(connection: Connection, stream: str) -> StreamBounds:
    """Return the first and the last sequence of a stream now, from its leader.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: no leader answered.
        BrokerRefused: the broker refused.
    """
    info = await stream_api_request(connection, stream, f"STREAM.INFO.{stream}")
    found = info.state or StreamBounds(0, 0, 0)
    return found if found.messages else StreamBounds(found.last + 1, found.last, 0)


async def stream_identity(connection: Connection, stream: str) -> StreamIdentity:
    """Return the identity of a stream, from its leader.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: no leader answered.
        BrokerRefused: the broker refused.
    """
    info = await stream_api_request(connection, stream, f"STREAM.INFO.{stream}")
    bounds, limits = info.state or StreamBounds(1, 0, 0), info.config or StreamLimits()
    return StreamIdentity(
        name=stream,
        created=limits.metadata.get(CREATED, info.created),
        max_age=limits.max_age / 1e9,
        first=bounds.first if bounds.messages else bounds.last + 1,
        last=bounds.last,
        last_stored_at=bounds.last_ts,
        missing=bounds.last - bounds.first + 1 - bounds.messages if bounds.messages else 0,
        replicas=limits.num_replicas,
    )


async def lost_bytes(connection: Connection, stream: StreamIdentity) -> int:
    """Return the bytes that the broker has cut from damaged blocks of a stream since it started.

    It is 0 for a stream with replicas, whose servers get from the leader what they have lost and count it still; and
    for one with many gaps, since the broker gives this number only together with a list of them.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: no leader answered.
        BrokerRefused: the broker refused.
    """
    if stream.replicas > 1 or stream.missing > _MAX_GAPS:
        return 0
    request = msgspec.json.encode({"deleted_details": True})
    info = await stream_api_request(connection, stream.name, f"STREAM.INFO.{stream.name}", request)
    return info.state.lost.bytes if info.state is not None and info.state.lost is not None else 0


async def missing_sequences(connection: Connection, stream: StreamIdentity) -> list[SequenceRange] | None:
    """Return the gaps of a stream in order; None if they are too many for the broker's answer.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: no leader answered.
        BrokerRefused: the broker refused.
    """
    if stream.missing > _MAX_GAPS:
        return None
    request = msgspec.json.encode({"deleted_details": True})
    info = await stream_api_request(connection, stream.name, f"STREAM.INFO.{stream.name}", request)
    return [SequenceRange(one, one) for one in sorted(info.state.deleted or ())] if info.state is not None else []


async def scan_stream(
    connection: Connection,
    stream: str,
    *,
    first: int = 1,
    since: datetime | None = None,
    last: int | None = None,
    filters: Sequence[str] = (),
    is_following: bool = False,
    patience: float = OUTAGE_TIMEOUT,
    heartbeat: float = HEARTBEAT,
    is_paged: bool = False,
    is_headers_only: bool = False,
) -> AsyncGenerator[list[ScannedMessage], None]:
    """Yield the messages of a stream in its order, in batches that are not empty.

    Args:
        connection: the connection.
        stream: its name.
        first: the stream sequence to begin with, or the next one that exists.
        since: skip messages that the broker stored before.
        last: the stream sequence to end with; None for the last one when the scan begins.
        filters: subject filters that don't overlap. None: everything, which is the fastest.
        is_following: whether to go on for ever with later messages. Then `last` is ignored.
        patience: seconds that the broker may be away.
        heartbeat: seconds between signs of life of a consumer without messages (`OrderedConsumer.open`).
        is_paged: whether to make no consumer, but ask for page after page: slower, and for any login that may read.
        is_headers_only: whether messages come without their data, where a consumer is made.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: the broker was away for longer than `patience`.
        StreamReplaced: the stream was created again or set back while it was read.
        BrokerRefused: the broker refused.
    """
    end = float("inf") if is_following else (await stream_bounds(connection, stream)).last if last is None else last
    reader = StreamScan(
        connection, stream, filters, first=max(first, 1), since=since, patience=patience, heartbeat=heartbeat
    )
    reader.may_make_consumers = not is_paged
    reader.is_headers_only = is_headers_only
    try:
        while reader.next_sequence <= end:
            batch = await reader.next_batch(is_waiting=is_following)
            if batch and batch[-1].sequence > end:
                batch = [one for one in batch if one.sequence <= end]
                if batch:
                    yield batch
                return
            if batch:
                yield batch
            elif not is_following:
                return
    finally:
        await reader.stop()


class StreamScan:
    """The consumers of one scan, one after the other.

    Args: as for `scan`.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        filters: Sequence[str],
        *,
        first: int,
        since: datetime | None,
        patience: float,
        heartbeat: float,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._filters = list(filters)
        self._since = since
        self._patience = patience
        self._heartbeat = heartbeat
        self.next_sequence = first
        """The sequence at which a new consumer would begin."""
        self._consumer: OrderedConsumer | DirectReader | None = None
        self.may_make_consumers = True
        self.is_headers_only = False
        self._stream_created = ""
        self._last_read = 0

    async def next_batch(self, *, is_waiting: bool) -> list[ScannedMessage]:
        """Return the next messages; none if the scan is at its end."""
        while True:
            consumer = self._consumer or await self._open()
            found = await consumer.next_batch(is_waiting=is_waiting)
            if found:
                self._since = None  # from now on the sequence says where to begin
                if found[0].sequence < self.next_sequence:
                    await self._close()
                    continue
                self._last_read = found[-1].sequence
                self.next_sequence = self._last_read + 1
                return found
            if consumer.is_lost:
                await self._close()
            elif not is_waiting:
                return []

    async def stop(self) -> None:
        """Stop reading and delete the consumer."""
        await self._close()

    async def _open(self) -> OrderedConsumer | DirectReader:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        settled = loop.time() + _LEADER_LAG
        while True:
            try:
                await self._check_same_stream(is_settled=loop.time() >= settled)
                consumer = await self._make_reader()
            except JournalUnavailable as error:
                left = until - loop.time()
                if left <= 0:
                    raise
                logger.debug("scanning %s: %s", self._stream, error)
                if self._connection.is_connected:
                    await self._connection.sleep(min(left, _RETRY_DELAY))
                else:
                    await self._connection.wait_connected(left)
            else:
                self._consumer = consumer
                return consumer

    async def _make_reader(self) -> OrderedConsumer | DirectReader:
        if self.may_make_consumers:
            try:
                return await OrderedConsumer.open(
                    self._connection, self._stream, self._consumer_config(), heartbeat=self._heartbeat
                )
            except JournalUnavailable as error:
                # JetStream has just answered another request, so this one does not reach it from this account.
                if not isinstance(error.__cause__, NoRespondersError):
                    raise
                self.may_make_consumers = False
        return DirectReader(self._connection, self._stream, self._filters, first=self.next_sequence, since=self._since)

    async def _check_same_stream(self, *, is_settled: bool) -> None:
        """Check that the stream is still the same: in another one the sequences belong to other messages.

        Raises:
            StreamReplaced: it is not.
            JournalUnavailable: perhaps it is not; its leader may be behind.
        """
        info = await stream_api_request(self._connection, self._stream, f"STREAM.INFO.{self._stream}")
        last = info.state.last if info.state else 0
        if self._stream_created not in {"", info.created}:
            raise StreamReplaced(f"stream {self._stream} was created again while it was read, at {info.created}")
        self._stream_created = info.created
        if last < self._last_read:
            text = f"stream {self._stream} ends at sequence {last}, but {self._last_read} was read: it was set back"
            raise StreamReplaced(text) if is_settled else JournalUnavailable(text, maybe_stored=False)

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.close()

    def _consumer_config(self) -> dict[str, object]:
        # The broker accepts a sequence or a time. If the time is too early, `next_batch` tries again with the sequence.
        start: dict[str, object] = {"deliver_policy": "by_start_sequence", "opt_start_seq": self.next_sequence}
        if self._since is not None:
            start = {"deliver_policy": "by_start_time", "opt_start_time": self._since.astimezone(UTC).isoformat()}
        return {
            **start,
            "filter_subjects": self._filters,
            "headers_only": self.is_headers_only,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(_INACTIVE_THRESHOLD * 1e9),
        }
