"""What the broker republishes as it stores it. It may have gaps: its listener reads those (`DirectReader`)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from typing import Final

import nats.errors
from nats.aio.subscription import Subscription

from opstream_journal.jetstream.connection import Connection
from opstream_journal.wire.received_message import ReceivedMessage
from opstream_schemas.subjects import live_filter

from .scanned_message import ScannedMessage, nanoseconds_of

_MAX_WAITING: Final = 20_000
_MAX_WAITING_BYTES: Final = 32 * 1024 * 1024
"""What waits to be taken, at most. Beyond it the feed forgets, and its listener reads."""


class LiveFeed:
    """The messages of a stream from now on, in its order."""

    def __init__(self, stream: str) -> None:
        self._filter = live_filter(stream)
        self._prefix = self._filter.removesuffix(">")
        self._waiting: deque[ScannedMessage] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._subscription: Subscription | None = None
        self.is_proven = False
        """True while messages come without a gap. At first False: perhaps the stream does not republish."""

    @classmethod
    async def open(cls, connection: Connection, stream: str) -> LiveFeed:
        """Listen. Raises as nats-py's `subscribe`."""
        feed = cls(stream)
        feed._subscription = await connection.subscribe(feed._filter, feed.receive)
        return feed

    async def close(self) -> None:
        """Stop listening."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def take(self, first: int, *, patience: float) -> list[ScannedMessage]:
        """Return the messages from a sequence on, up to the next gap; none if that one has not arrived.

        Args:
            first: the stream sequence.
            patience: seconds to wait for it while the feed is proven; else it does not wait.
        """
        found = self._take(first)
        if not found and self.is_proven and not self._waiting:
            await self.wait(patience)
            found = self._take(first)
        self.is_proven = bool(found) or (self.is_proven and not self._waiting)
        return found

    def _take(self, first: int) -> list[ScannedMessage]:
        waiting = self._waiting
        while waiting and waiting[0].sequence < first:
            self._bytes -= len(waiting.popleft().data)
        found = []
        for sequence in itertools.count(first):
            if not waiting or waiting[0].sequence != sequence:
                break
            found.append(waiting.popleft())
            self._bytes -= len(found[-1].data)
        return found

    def doubt(self) -> None:
        """Note that a message was found which had not been heard of."""
        self.is_proven = False

    async def wait(self, seconds: float) -> None:
        """Wait until a message arrives, at most that long."""
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()

    def receive(self, message: ReceivedMessage) -> None:
        """Take a message. One that no stream has republished is ignored."""
        number, time = message.broker_header(b"Nats-Sequence"), message.broker_header(b"Nats-Time-Stamp")
        if number is None or time is None:
            return
        try:
            sequence, nanoseconds = int(number), nanoseconds_of(time)
        except ValueError:
            return
        if self._bytes > _MAX_WAITING_BYTES or len(self._waiting) >= _MAX_WAITING:
            self._waiting.clear()
            self._bytes = 0
        subject = message.subject.removeprefix(self._prefix)
        self._waiting.append(ScannedMessage(sequence, subject, message.data, nanoseconds))
        self._bytes += len(message.data)
        self._arrived.set()
