"""Reads a stream in its order by an ephemeral consumer. `stream_scan` makes another one if it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Final

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.stream_info import stream_api_request
from opstream_journal.wire.received_message import ReceivedMessage

from .scanned_message import ScannedMessage

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
