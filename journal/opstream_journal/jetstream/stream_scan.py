"""Reads a whole stream in order: from a place, to its end or for ever. Callers: what rebuilds, verifies and replays.

Every message comes exactly once, from an ephemeral consumer that acknowledges nothing. Whatever goes wrong with it (a
lost connection, a deleted consumer, silence, a message that is missing), it is made anew behind the last message that
came. Memory stays flat: the broker sends no more than was asked for, and asking follows reading.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from opstream_journal.errors import JournalUnavailable, StreamReplaced

from .connection import Connection
from .ordered_consumer import OrderedConsumer, ScannedMessage, StreamBounds, StreamLimits, stream_api_request

logger = logging.getLogger(__name__)

OUTAGE_TIMEOUT: Final = 60.0
"""Seconds that a scan waits for a broker that is away."""

_INACTIVE_THRESHOLD: Final = 30.0
"""Seconds after which the broker deletes a consumer from which nobody pulls."""
_RETRY_DELAY: Final = 0.25
_LEADER_LAG: Final = 5.0
"""Seconds for which a leader may be behind what a consumer was sent before."""


class StreamIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A stream, as its leader has it."""

    name: str
    created: str
    """When it was made, as the broker writes it: it stays when a backup is restored, and differs when the stream was
    made anew."""
    max_age: float
    """Seconds after which messages expire; 0 for never."""
    first: int
    """Of a stream that holds nothing, the sequence that comes next."""
    last: int


async def stream_bounds(link: Connection, stream: str) -> StreamBounds:
    """Where a stream begins and ends now, as its leader has it.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: no leader answered.
        RequestRefused: the broker refused.
    """
    info = await stream_api_request(link, stream, f"STREAM.INFO.{stream}")
    found = info.state or StreamBounds(0, 0, 0)
    return found if found.messages else StreamBounds(found.last + 1, found.last, 0)


async def stream_identity(link: Connection, stream: str) -> StreamIdentity:
    """Ask for a stream.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: no leader answered.
        RequestRefused: the broker refused.
    """
    info = await stream_api_request(link, stream, f"STREAM.INFO.{stream}")
    edges = info.state or StreamBounds(1, 0, 0)
    return StreamIdentity(
        name=stream,
        created=info.created,
        max_age=(info.config or StreamLimits()).max_age / 1e9,
        first=edges.first if edges.messages else edges.last + 1,
        last=edges.last,
    )


async def scan_stream(
    link: Connection,
    stream: str,
    *,
    first: int = 1,
    since: datetime | None = None,
    last: int | None = None,
    filters: Sequence[str] = (),
    is_following: bool = False,
    patience: float = OUTAGE_TIMEOUT,
) -> AsyncGenerator[list[ScannedMessage], None]:
    """The messages of a stream in its order, in batches that are not empty.

    Args:
        link: the connection.
        stream: its name.
        first: the stream sequence to begin with, or the next one that is there.
        since: nothing that the broker stored before is wanted.
        last: the stream sequence to end with; None for the last one that there is when the scan begins.
        filters: subject filters that don't overlap; none: everything, which the broker gives the fastest.
        is_following: whether to go on for ever with what comes later; `last` is not looked at then.
        patience: seconds that the broker may be away.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: the broker was away for longer than `patience`.
        StreamReplaced: the stream is not the one any more that was read so far.
        RequestRefused: the broker refused.
    """
    end = float("inf") if is_following else (await stream_bounds(link, stream)).last if last is None else last
    reader = StreamScan(link, stream, filters, first=max(first, 1), since=since, patience=patience)
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
    """One scan's consumers, one after the other.

    Args: as for `scan`.
    """

    def __init__(
        self,
        link: Connection,
        stream: str,
        filters: Sequence[str],
        *,
        first: int,
        since: datetime | None,
        patience: float,
    ) -> None:
        self._link = link
        self._stream = stream
        self._filters = list(filters)
        self._since = since
        self._patience = patience
        self.next_sequence = first
        """Where a consumer begins that is made now."""
        self._consumer: OrderedConsumer | None = None
        self._stream_created = ""
        self._last_read = 0

    async def next_batch(self, *, is_waiting: bool) -> list[ScannedMessage]:
        """The next messages. None are left if it is empty, unless it waits for more."""
        while True:
            feed = self._consumer or await self._open()
            found = await feed.next_batch(is_waiting=is_waiting)
            if found:
                self._since = None  # sequences are exact, and time has done its part
                if found[0].sequence < self.next_sequence:
                    await self._close()
                    continue
                self._last_read = found[-1].sequence
                self.next_sequence = self._last_read + 1
                return found
            if feed.is_lost:
                await self._close()
            elif not is_waiting:
                return []

    async def stop(self) -> None:
        """Read no more."""
        await self._close()

    async def _open(self) -> OrderedConsumer:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        settled = loop.time() + _LEADER_LAG
        while True:
            try:
                await self._check_same_stream(is_settled=loop.time() >= settled)
                feed = await OrderedConsumer.open(self._link, self._stream, self._consumer_config())
            except JournalUnavailable as error:
                left = until - loop.time()
                if left <= 0:
                    raise
                logger.debug("scanning %s: %s", self._stream, error)
                if self._link.is_connected:
                    await self._link.sleep(min(left, _RETRY_DELAY))
                else:
                    await self._link.wait_connected(left)
            else:
                self._consumer = feed
                return feed

    async def _check_same_stream(self, *, is_settled: bool) -> None:
        """A consumer of another stream would wait for sequences that mean something else there, and leave out what
        comes before."""
        info = await stream_api_request(self._link, self._stream, f"STREAM.INFO.{self._stream}")
        last = info.state.last if info.state else 0
        if self._stream_created not in {"", info.created}:
            raise StreamReplaced(f"stream {self._stream} was made anew while it was read, at {info.created}")
        self._stream_created = info.created
        if last < self._last_read:
            text = (
                f"stream {self._stream} ends at sequence {last}, and {self._last_read} had been read: it was set back"
            )
            raise StreamReplaced(text) if is_settled else JournalUnavailable(text, maybe_stored=False)

    async def _close(self) -> None:
        feed, self._consumer = self._consumer, None
        if feed is not None:
            await feed.close()

    def _consumer_config(self) -> dict[str, object]:
        # The broker takes one of them; if it is the time, and `batch` finds that too early, the sequence comes after.
        start: dict[str, object] = {"deliver_policy": "by_start_sequence", "opt_start_seq": self.next_sequence}
        if self._since is not None:
            start = {"deliver_policy": "by_start_time", "opt_start_time": self._since.astimezone(UTC).isoformat()}
        return {
            **start,
            "filter_subjects": self._filters,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(_INACTIVE_THRESHOLD * 1e9),
        }
