"""Two readers of a stream in its order, and requests about streams. `stream_scan` replaces readers that are lost.

One is an ephemeral consumer. The other asks for page after page, for a login that may not make consumers (ADR 0050).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from opstream_journal.errors import BrokerRefused, JournalUnavailable, NoLeader, NotProvisioned
from opstream_journal.missing_streams import missing_stream_text
from opstream_journal.wire.received_message import ReceivedMessage

from . import rpc
from .batch_read import BatchReader
from .connection import Connection

logger = logging.getLogger(__name__)

_FIRST_PULL: Final = 200
_MAX_PULL: Final = 2_000
_MAX_PULLED_BYTES: Final = 16 * 1024 * 1024
_EXPIRES: Final = 30.0
HEARTBEAT: Final = 2.0
"""Seconds between two signs of life of a consumer that has no message."""
_SHORT_REPLY: Final = 9
_IDLE: Final = "100"
_EXPIRED: Final = frozenset({"404", "408"})
_NOT_FOUND: Final = 404
_PAGE: Final = 500
_PAGE_BYTES: Final = 4 * 1024 * 1024
_PAGE_TIMEOUT: Final = 10.0
_POLLS: Final = (0.001, 0.025)
"""Seconds between two looks at the end of a stream: after a message, and the most that they grow to."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class ScannedMessage(msgspec.Struct, frozen=True, gc=False):
    """One message of a scan."""

    sequence: int
    """Sequence in the scanned stream."""
    subject: str
    data: bytes
    nanoseconds: int
    """The time at which the broker stored it, in nanoseconds since 1970."""

    @property
    def stored_at(self) -> datetime:
        """The time of its storing by the broker's clock, in UTC. Cut to microseconds: a scan from then finds it."""
        return datetime.fromtimestamp(self.nanoseconds // 1_000 / 1e6, UTC)


class LostData(msgspec.Struct, frozen=True):
    """What a server has cut from damaged blocks since it started."""

    bytes: int = 0


class StreamBounds(msgspec.Struct, frozen=True):
    """The first and the last sequence of a stream."""

    first: int = msgspec.field(name="first_seq")
    """In an empty stream, the next sequence."""
    last: int = msgspec.field(name="last_seq")
    """In an empty stream, lower than `first`."""
    messages: int
    last_ts: str = ""
    """When the broker stored the last message, also if that is gone."""
    lost: LostData | None = None
    """None if nothing was cut."""
    deleted: list[int] | None = None
    """The sequences between the first and the last one that have no message, if the request asked for them."""


class StreamLimits(msgspec.Struct):
    """What of a stream's configuration lets messages go."""

    max_age: int = 0
    """Nanoseconds; 0 for never."""
    num_replicas: int = 1
    metadata: dict[str, str] = {}


class StreamInfo(msgspec.Struct):
    """JetStream's answer about a stream or a consumer."""

    state: StreamBounds | None = None
    created: str = ""
    config: StreamLimits | None = None
    num_pending: int = 0
    error: rpc.JetStreamErrorBody | None = None


_decode_info: Final = msgspec.json.Decoder(StreamInfo).decode


class OrderedConsumer:
    """One ephemeral consumer, and the messages that it sent and `next_batch` has not returned yet."""

    def __init__(self, connection: Connection, stream: str, name: str, pending: int, heartbeat: float) -> None:
        self._connection = connection
        self._stream = stream
        self._name = name
        self._pending = pending
        self._heartbeat = heartbeat
        self._subscription: Subscription | None = None
        self._received: list[ScannedMessage] = []
        self._arrived = asyncio.Event()
        self._delivered = 0
        self._outstanding = 0
        self._pull_size = _FIRST_PULL
        self.is_lost = False
        """True once the consumer is lost: no more messages come, though there may be more."""

    @classmethod
    async def open(
        cls, connection: Connection, stream: str, config: dict[str, object], *, heartbeat: float = HEARTBEAT
    ) -> OrderedConsumer:
        """Create the consumer.

        Args:
            connection: the connection.
            stream: its name.
            config: of the consumer.
            heartbeat: seconds. It is lost if nothing is heard for twice as long and a second.

        Raises:
            NotProvisioned: there is no such stream.
            JournalUnavailable: no leader answered.
            BrokerRefused: the broker refused.
        """
        inbox = connection.nc.new_inbox()
        name = f"scan_{inbox.rpartition('.')[2]}"
        request = {"stream_name": stream, "config": {**config, "name": name}, "action": "create"}
        info = await stream_api_request(
            connection, stream, f"CONSUMER.CREATE.{stream}.{name}", msgspec.json.encode(request)
        )
        consumer = cls(connection, stream, name, info.num_pending, heartbeat)
        consumer._subscription = await connection.subscribe(inbox, consumer._receive)
        connection.on_disconnect(consumer._mark_lost)
        return consumer

    async def close(self) -> None:
        """Delete the consumer. If that fails, the broker deletes it after a while."""
        self._connection.remove_disconnect_callback(self._mark_lost)
        with contextlib.suppress(nats.errors.Error, OSError):
            if self._subscription is not None and not self._connection.nc.is_closed:
                await self._subscription.unsubscribe()
            if self._connection.is_connected:
                self._connection.sender.send(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}")

    async def next_batch(self, *, is_waiting: bool) -> list[ScannedMessage]:
        """Wait for messages and return them. None: the stream has no more (unless `is_waiting`), or `is_lost`."""
        while not self._received and not self.is_lost and (self._pending or is_waiting):
            await self._pull()
            self._arrived.clear()
            try:
                async with asyncio.timeout(2 * self._heartbeat + 1.0):
                    await self._arrived.wait()
            except TimeoutError:
                self._mark_lost()
        found, self._received = self._received, []
        if found and not self.is_lost:
            size = sum(len(one.data) for one in found) // len(found)
            self._pull_size = min(_MAX_PULL, max(1, _MAX_PULLED_BYTES // max(size, 1)))
            await self._pull()
        return found

    async def _pull(self) -> None:
        """Pull ahead while the caller works on what it has."""
        missing = self._pull_size - self._outstanding
        if missing * 2 < self._pull_size:
            return
        request = {"batch": missing, "expires": int(_EXPIRES * 1e9), "idle_heartbeat": int(self._heartbeat * 1e9)}
        subscription = self._subscription
        if subscription is None:
            return
        self._outstanding += missing
        try:
            self._connection.sender.send(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}",
                msgspec.json.encode(request),
                reply=subscription.subject,
            )
        except (nats.errors.Error, OSError) as error:
            logger.debug("scanning %s: %s", self._stream, error)
            self._mark_lost()

    def _receive(self, message: ReceivedMessage) -> None:
        if not message.reply:  # of a message from the stream this is the place of its ack; its headers are not parsed
            headers = message.headers
            if headers and "Status" in headers:
                self._handle_status(headers["Status"], headers)
        elif not self.is_lost:
            tokens = message.reply.split(".")
            first = 5 if len(tokens) == _SHORT_REPLY else 7
            number = int(tokens[first + 1])
            if number != self._delivered + 1:
                logger.debug("scanning %s: message %s after %s", self._stream, number, self._delivered)
                self._mark_lost()
                return
            self._delivered = number
            self._outstanding -= 1
            self._pending = int(tokens[first + 3])
            self._received.append(
                ScannedMessage(int(tokens[first]), message.subject, message.data, int(tokens[first + 2]))
            )
            self._arrived.set()

    def _handle_status(self, status: str, headers: Mapping[str, str]) -> None:
        if status in _EXPIRED:
            unserved = headers.get("Nats-Pending-Messages")
            self._outstanding = max(0, self._outstanding - int(unserved)) if unserved is not None else 0
        elif status != _IDLE:
            logger.debug("scanning %s: %s %s", self._stream, status, headers.get("Description", ""))
            self._mark_lost()
        self._arrived.set()

    def _mark_lost(self) -> None:
        self.is_lost = True
        self._arrived.set()


class DirectReader:
    """Reads page after page by direct get, from any replica, and asks the leader where a page is empty.

    Args:
        connection: the connection.
        stream: its name.
        filters: subject filters; none for all messages.
        first: the stream sequence to begin with.
        since: skip messages that the broker stored before.
    """

    def __init__(
        self, connection: Connection, stream: str, filters: Sequence[str], *, first: int, since: datetime | None
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._filters = [one.split(".") for one in filters]
        self._filter = filters[0] if len(filters) == 1 else ">"
        self._next = first
        self._since = since
        self._reader: BatchReader | None = None
        self.is_lost = False
        """True once the broker did not answer, or the connection was lost: the stream may be another one now."""
        connection.on_disconnect(self._mark_lost)

    async def close(self) -> None:
        """Stop reading. Call it once."""
        self._connection.remove_disconnect_callback(self._mark_lost)
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await reader.stop()

    async def next_batch(self, *, is_waiting: bool) -> list[ScannedMessage]:
        """Wait for messages and return them. None: the stream has no more (unless `is_waiting`), or `is_lost`."""
        pause = _POLLS[0]
        try:
            while True:
                page = await self._read_page()
                if not page and not is_waiting and (one := await self._read_from_leader()) is not None:
                    page = [one]
                if self.is_lost:
                    return []  # the page may be of another stream than those before
                if page:
                    self._since = None
                    self._next = page[-1].seq + 1
                    found = [_scanned(one) for one in page if self._is_wanted(one.subject)]
                    if found:
                        return found
                elif not is_waiting:
                    return []
                else:
                    await self._connection.sleep(pause)
                    pause = min(2 * pause, _POLLS[1])
        except JournalUnavailable as error:
            logger.debug("scanning %s: %s", self._stream, error)
            self.is_lost = True
            return []

    def _mark_lost(self) -> None:
        self.is_lost = True

    async def _read_page(self) -> list[rpc.StoredMessage]:
        if self._reader is None:
            reader = BatchReader(self._connection)
            await reader.start()
            self._reader = reader
        request: dict[str, object] = {"next_by_subj": self._filter, "batch": _PAGE, "max_bytes": _PAGE_BYTES}
        if self._since is not None:
            request["start_time"] = self._since.astimezone(UTC).isoformat()
        else:
            request["seq"] = self._next
        return await self._reader.read(self._stream, request, timeout=_PAGE_TIMEOUT)

    async def _read_from_leader(self) -> rpc.StoredMessage | None:
        """Return the next message, which a replica that is behind does not have yet; None at the end."""
        if self._since is not None:
            return None
        return await rpc.get_next(self._connection, self._stream, self._filter, self._next)

    def _is_wanted(self, subject: str) -> bool:
        return len(self._filters) < 2 or any(_matches(subject.split("."), one) for one in self._filters)


def _matches(tokens: Sequence[str], pattern: Sequence[str]) -> bool:
    for index, part in enumerate(pattern):
        if part == ">":
            return len(tokens) > index
        if index >= len(tokens) or part not in {"*", tokens[index]}:
            return False
    return len(tokens) == len(pattern)


def _scanned(message: rpc.StoredMessage) -> ScannedMessage:
    microseconds = (datetime.fromisoformat(message.time) - _EPOCH) // _MICROSECOND
    return ScannedMessage(message.seq, message.subject, message.data, microseconds * 1_000)


async def stream_api_request(connection: Connection, stream: str, what: str, payload: bytes = b"") -> StreamInfo:
    """Call the JetStream API for a stream.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: no leader answered.
        BrokerRefused: the broker refused.
    """
    answer = await rpc.call(connection, f"$JS.API.{what}", payload)
    try:
        info = _decode_info(answer.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer about {stream} is not JetStream's", maybe_stored=False) from error
    if info.error is None:
        return info
    if info.error.code == _NOT_FOUND:
        raise NotProvisioned(missing_stream_text(stream))
    if info.error.code == rpc.UNAVAILABLE:
        raise NoLeader(f"{stream}: {info.error.description}")
    raise BrokerRefused(info.error.code, info.error.err_code, info.error.description)
