"""The history of an operation: all events so far as JSON, or a stream of Server-Sent Events up to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from array import array
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

from opstream_api.errors import ApiError, journal_error, operation_unreadable
from opstream_api.http.conditional_headers import LAST_EVENT_ID
from opstream_journal import Journal, JournalError
from opstream_schemas.errors import ErrorCode, FoldRefused, InvalidEvent
from opstream_schemas.events import RecordedEvent, Requested, with_own_id

from .event_feed import PAGE_SIZE, SseFrame
from .status import StatusReader
from .watch import Watch, WatchRegistry

logger = logging.getLogger(__name__)

PING_INTERVAL: Final = 15.0
"""Seconds without an event after which a comment is sent. Proxies close silent connections, and a write shows that the
client has gone."""

STREAM_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Vary": "Accept",
    "X-Accel-Buffering": "no",  # nginx would buffer events otherwise
}
"""Response headers of an event stream."""

_JSON_HEAD: Final = b'{"value":['
_JSON_TAIL: Final = b"]}"
_SSE_RETRY: Final = b"retry: 1000\n\n"
"""Milliseconds that a browser waits before it reconnects."""
_SSE_ALIVE: Final = b": still following\n\n"
_SSE_UNAVAILABLE: Final = b": the journal does not answer, waiting\n\n"
_CHUNK_BYTES: Final = 64 * 1024
"""Bytes from which on gathered frames are written."""
_RETRY_DELAY: Final = 1.0
"""Seconds between reads of a journal that does not respond."""


class HistoryReader:
    """Reads and follows the histories of operations.

    Args:
        journal: the events.
        status: tells whether an operation exists.
        watches: notify of new events.
    """

    def __init__(self, *, journal: Journal, status: StatusReader, watches: WatchRegistry) -> None:
        self._journal = journal
        self._status = status
        self._watches = watches

    async def document(self, operation_id: str) -> bytes | AsyncGenerator[bytes, None]:
        """Return all events so far as JSON, `{"value": [event, …]}`: whole, or in pages if there are many.

        Raises:
            ApiError: as `StatusReader.read`; also while the pages are read.
        """
        await self._status.read(operation_id)  # which raises for an operation whose retention is over
        with _translated_errors(operation_id):
            events = await self._journal.events(operation_id)
        own_id = _own_id(events)
        if len(events) <= PAGE_SIZE:
            return _JSON_HEAD + _joined(events, own_id) + _JSON_TAIL
        return self._read_pages(operation_id, own_id, array("Q", (event.sequence for event in events)))

    async def is_at_end(self, operation_id: str, position: int) -> bool:
        """Return True if no event can follow the one at a position.

        Raises:
            ApiError: as `StatusReader.read`; `InvalidHeader`: the operation is still open and has no such position.
        """
        operation = await self._status.read(operation_id)
        if position > operation.position and not operation.is_terminal:
            message = f"the operation has {operation.position} events so far, and none with the id {position}"
            raise ApiError(ErrorCode.INVALID_HEADER, message, target=LAST_EVENT_ID)
        return operation.is_terminal and operation.position <= position

    async def follow(self, operation_id: str, position: int) -> AsyncGenerator[bytes, None]:
        """Yield the events after a position as Server-Sent Events, then each new one, up to the terminal one.

        The stream ends early when the service stops. While the journal does not respond, it waits and sends comments.
        """
        yield _SSE_RETRY
        try:
            async with (
                self._watches.watch(operation_id, is_follower=True) as watch,
                contextlib.aclosing(self._follow(watch, position)) as chunks,
            ):
                async for chunk in chunks:
                    yield chunk
        except ApiError as error:
            # The response has begun, so its status can't change. The client reconnects and gets the error then.
            logger.info("the stream of operation %s ends: %s", operation_id, error)

    async def _read_pages(
        self, operation_id: str, own_id: str, sequences: Sequence[int]
    ) -> AsyncGenerator[bytes, None]:
        """Read a long history again page by page, so that a slow client keeps only one page in memory."""
        separator, done = _JSON_HEAD, 0
        while done < len(sequences):
            with _translated_errors(operation_id):
                events = await self._journal.page(operation_id, sequences[done], min(PAGE_SIZE, len(sequences) - done))
            yield separator + _joined(events, own_id)
            separator, done = b",", done + len(events)
        yield _JSON_TAIL

    async def _follow(self, watch: Watch, position: int) -> AsyncGenerator[bytes, None]:
        sequence = (await self._status.read(watch.operation_id)).stream_sequence
        while not watch.is_finished:
            try:
                with _translated_errors(watch.operation_id):
                    operation, frames = await watch.feed.events_after(position, at_least=sequence)
            except ApiError as error:
                if error.code is not ErrorCode.JOURNAL_UNAVAILABLE:
                    raise
                yield _SSE_UNAVAILABLE
                await asyncio.sleep(_RETRY_DELAY)
                continue
            for chunk in _chunks(frames):
                yield chunk
            sequence = operation.stream_sequence
            if frames:
                position = frames[-1].position
            if position < operation.position:
                continue
            if operation.is_terminal:
                return
            while not await _wait_for_newer(watch, sequence):
                yield _SSE_UNAVAILABLE if watch.is_journal_unavailable else _SSE_ALIVE
            sequence = watch.operation.stream_sequence if watch.operation else sequence


@contextlib.contextmanager
def _translated_errors(operation_id: str) -> Iterator[None]:
    """Translate errors of the journal to `ApiError`."""
    try:
        yield
    except (FoldRefused, InvalidEvent) as error:
        raise operation_unreadable(operation_id, error) from error
    except JournalError as error:
        raise journal_error(error) from error


def _own_id(events: Sequence[RecordedEvent]) -> str:
    """Return the client's own id, which is in the first event; empty if there is none."""
    first = events[0].data if events else None
    return first.own_id if isinstance(first, Requested) else ""


def _joined(events: Sequence[RecordedEvent], own_id: str) -> bytes:
    return b",".join(with_own_id(event.stored, event.operation_id, own_id) for event in events)


async def _wait_for_newer(watch: Watch, sequence: int) -> bool:
    """Return True for a newer state or the end of the watch, False after `PING_INTERVAL` without either."""
    try:
        async with asyncio.timeout(PING_INTERVAL):
            await watch.wait_for_newer(sequence)
    except TimeoutError:
        return False
    return True


def _chunks(frames: Sequence[SseFrame]) -> Iterator[bytes]:
    """Join frames to chunks that are worth a write."""
    gathered: list[bytes] = []
    size = 0
    for frame in frames:
        gathered.append(frame.data)
        size += len(frame.data)
        if size >= _CHUNK_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)
