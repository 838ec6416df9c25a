"""`GET /status/{id}/events`: an operation's history, at once or followed to its end. Called by `status_routes.py`."""

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
from opstream_schemas.events import RecordedEvent

from .event_feed import PAGE_SIZE, SseFrame
from .status import StatusReader
from .watch import Watch, WatchRegistry

logger = logging.getLogger(__name__)

PING_INTERVAL: Final = 15.0
"""Seconds of silence after which a comment is sent: proxies close what seems dead, and a peer that is gone shows."""

STREAM_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Vary": "Accept",
    "X-Accel-Buffering": "no",  # nginx would hold events back to fill its buffers
}
"""Of an event stream."""

_JSON_HEAD: Final = b'{"value":['
_JSON_TAIL: Final = b"]}"
_SSE_RETRY: Final = b"retry: 1000\n\n"
"""Milliseconds that a browser waits before it connects again."""
_SSE_ALIVE: Final = b": still following\n\n"
_SSE_UNAVAILABLE: Final = b": the journal does not answer, waiting\n\n"
_CHUNK_BYTES: Final = 64 * 1024
_RETRY_DELAY: Final = 1.0


class History:
    """Reads and follows histories.

    Args:
        journal: where the events are.
        status: tells which operations there are.
        watchers: tell when there is something new.
    """

    def __init__(self, *, journal: Journal, status: StatusReader, watchers: WatchRegistry) -> None:
        self._journal = journal
        self._status = status
        self._watchers = watchers

    async def document(self, operation_id: str) -> bytes | AsyncGenerator[bytes, None]:
        """All events so far, as JSON: `{"value": [event, …]}`. In pieces where they are many.

        Raises:
            ApiError: as `StatusReader.read`; also while the pieces are read.
        """
        await self._status.read(operation_id)  # an operation whose retention is over is told to nobody
        with _translated_errors(operation_id):
            events = await self._journal.events(operation_id)
        if len(events) <= PAGE_SIZE:
            return _JSON_HEAD + _joined(events) + _JSON_TAIL
        return self._read_pages(operation_id, array("Q", (event.sequence for event in events)))

    async def is_at_end(self, operation_id: str, position: int) -> bool:
        """Whether nothing can follow the event at a position.

        Raises:
            ApiError: as `StatusReader.read`; `InvalidHeader` for a position that no event of a running operation has.
        """
        operation = await self._status.read(operation_id)
        if position > operation.position and not operation.is_terminal:
            message = f"the operation has {operation.position} events so far, and none with the id {position}"
            raise ApiError(ErrorCode.INVALID_HEADER, message, target=LAST_EVENT_ID)
        return operation.is_terminal and operation.position <= position

    async def follow(self, operation_id: str, position: int) -> AsyncGenerator[bytes, None]:
        """The events after a position as Server-Sent Events, then each new one, until the terminal one.

        Ends early when the service stops. While the journal can't be read the stream says so and waits.
        """
        yield _SSE_RETRY
        try:
            async with (
                self._watchers.watch(operation_id, is_follower=True) as watch,
                contextlib.aclosing(self._follow(watch, position)) as chunks,
            ):
                async for chunk in chunks:
                    yield chunk
        except ApiError as error:
            # The answer has begun, so its status can't tell any more; the client asks again, and is told then.
            logger.info("the stream of operation %s ends: %s", operation_id, error)

    async def _read_pages(self, operation_id: str, sequences: Sequence[int]) -> AsyncGenerator[bytes, None]:
        """A long history, read again part by part: of what a slow client has not taken little is kept here."""
        begin, done = _JSON_HEAD, 0
        while done < len(sequences):
            with _translated_errors(operation_id):
                events = await self._journal.page(operation_id, sequences[done], min(PAGE_SIZE, len(sequences) - done))
            yield begin + _joined(events)
            begin, done = b",", done + len(events)
        yield _JSON_TAIL

    async def _follow(self, watch: Watch, position: int) -> AsyncGenerator[bytes, None]:
        sequence = (await self._status.read(watch.operation_id)).stream_sequence
        while not watch.is_finished:
            try:
                with _translated_errors(watch.operation_id):
                    operation, frames = await watch.feed.events_after(position, beyond=sequence)
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
    """What the journal says is wrong, as a client is told."""
    try:
        yield
    except (FoldRefused, InvalidEvent) as error:
        raise operation_unreadable(operation_id, error) from error
    except JournalError as error:
        raise journal_error(error) from error


def _joined(events: Sequence[RecordedEvent]) -> bytes:
    return b",".join(event.stored for event in events)


async def _wait_for_newer(watch: Watch, sequence: int) -> bool:
    """Whether there is something new, or the watch is over; False after a while of silence."""
    try:
        async with asyncio.timeout(PING_INTERVAL):
            await watch.wait_for_newer(sequence)
    except TimeoutError:
        return False
    return True


def _chunks(frames: Sequence[SseFrame]) -> Iterator[bytes]:
    """Frames put together to what is worth a write."""
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
