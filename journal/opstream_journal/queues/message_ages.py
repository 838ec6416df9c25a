"""When the broker stored the first message of a queue, and all messages of a small stream, with their headers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.rpc import StoredMessage

_PAGE: Final = 500
_PAGE_BYTES: Final = 1024 * 1024


class MessageAges:
    """Reads messages of streams that allow direct gets, from any replica.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = BatchReader(connection)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def stop(self) -> None:
        """Unsubscribe from the inbox."""
        await self._reader.stop()

    @property
    def now(self) -> float:
        """The broker's time in Unix seconds, as `BrokerMonitor` knows it."""
        return datetime.now(UTC).timestamp() - self._connection.clock_skew

    async def age_of_first(self, stream: str, subject_filter: str, sequence: int) -> float:
        """Return how many seconds ago the first message was stored that matches, from a sequence on; 0 without one.

        Raises:
            JournalUnavailable: no replica answered, or not in time.
            BrokerRefused: another error, such as a missing stream.
        """
        request = {"next_by_subj": subject_filter, "seq": sequence, "batch": 1}
        page = await self._reader.read(stream, request)
        return max(0.0, self.now - stored_at(page[0])) if page else 0.0

    async def pages(self, stream: str, subject_filter: str) -> AsyncIterator[list[StoredMessage]]:
        """Yield all messages that match, in stream order, in pages.

        Raises:
            JournalUnavailable, BrokerRefused: as `age_of_first`.
        """
        sequence = 1
        while True:
            request = {"next_by_subj": subject_filter, "seq": sequence, "batch": _PAGE, "max_bytes": _PAGE_BYTES}
            page = await self._reader.read(stream, request)
            if not page:
                return
            yield page
            sequence = page[-1].seq + 1


def stored_at(message: StoredMessage) -> float:
    """Return when the broker stored a message of a batched read, in Unix seconds."""
    return datetime.fromisoformat(message.time).timestamp()
