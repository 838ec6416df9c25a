"""Reads a stream in its order, page after page, for a login that may not make consumers (ADR 0050)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import nats.errors

from opstream_journal.errors import JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.jetstream.connection import Connection

from .live_feed import LiveFeed
from .scanned_message import ScannedMessage, nanoseconds_of

logger = logging.getLogger(__name__)

_PAGE: Final = 500
_PAGE_BYTES: Final = 4 * 1024 * 1024
_PAGE_TIMEOUT: Final = 10.0
_POLLS: Final = (0.001, 0.025)
"""Seconds between two looks at the end of a stream: after a message, and the most that they grow to."""
_LOOK: Final = 1.0
"""Seconds without a message after which it looks whether there is one, while the broker tells what it stores."""


class DirectReader:
    """Reads page after page by direct get, from any replica, and asks the leader where a page is empty.

    One that waits, without filters, also hears of what the broker republishes. As long as that has no gap it asks for a
    page only once a second, to find out if it hears nothing more.

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
        self._feed: LiveFeed | None = None
        self.is_lost = False
        """True once the broker did not answer, or the connection was lost: the stream may be another one now."""
        connection.on_disconnect(self._mark_lost)

    async def close(self) -> None:
        """Stop reading. Call it once."""
        self._connection.remove_disconnect_callback(self._mark_lost)
        feed, self._feed = self._feed, None
        if feed is not None:
            await feed.close()
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await reader.stop()

    async def next_batch(self, *, is_waiting: bool) -> list[ScannedMessage]:
        """Wait for messages and return them. None: the stream has no more (unless `is_waiting`), or `is_lost`."""
        pause = _POLLS[0]
        try:
            while True:
                found = await self._next_messages(is_waiting=is_waiting)
                if self.is_lost:
                    return []  # the messages may be of another stream than those before
                if found:
                    self._since = None
                    self._next = found[-1].sequence + 1
                    if wanted := [one for one in found if self._is_wanted(one.subject)]:
                        return wanted
                elif not is_waiting:
                    return []
                else:
                    await self._pause(pause)
                    pause = min(2 * pause, _POLLS[1])
        except JournalUnavailable as error:
            logger.debug("scanning %s: %s", self._stream, error)
            self.is_lost = True
            return []

    async def _next_messages(self, *, is_waiting: bool) -> list[ScannedMessage]:
        if is_waiting and self._feed is None and not self._filters:
            self._feed = await LiveFeed.open(self._connection, self._stream)
        if self._feed is not None and (live := await self._feed.take(self._next, patience=_LOOK)):
            return live
        page = await self._read_page()
        if not page and not is_waiting and (one := await self._read_from_leader()) is not None:
            page = [one]
        if page and self._feed is not None:
            self._feed.doubt()
        return [_scanned(one) for one in page]

    async def _pause(self, seconds: float) -> None:
        """Wait until there may be more."""
        if self._feed is None:
            await self._connection.sleep(seconds)
        else:
            await self._feed.wait(seconds)

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
    return ScannedMessage(message.seq, message.subject, message.data, nanoseconds_of(message.time))
