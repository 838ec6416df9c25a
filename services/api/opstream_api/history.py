"""`GET /status/{id}/events`: an operation's history, at once or followed to its end. Called by `status_routes.py`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

from opstream_journal import Journal, JournalError, JournalUnavailable
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.operation import Operation

from .errors import ApiError, from_journal, unreadable
from .feed import Feed, Frame, document
from .status import StatusReader
from .watch import Watch
from .watchers import Watchers

logger = logging.getLogger(__name__)

PING: Final = 15.0
"""Seconds of silence after which a comment is sent: proxies close what seems dead, and a peer that is gone shows."""

_BEGIN: Final = b"retry: 1000\n\n"
"""Milliseconds that a browser waits before it connects again."""
_ALIVE: Final = b": still following\n\n"
_BLIND: Final = b": the journal does not answer, waiting\n\n"
_CHUNK: Final = 64 * 1024
_AGAIN: Final = 1.0


class History:
    """Reads and follows histories.

    Args:
        journal: where the events are.
        status: tells which operations there are.
        watchers: tell when there is something new.
    """

    def __init__(self, *, journal: Journal, status: StatusReader, watchers: Watchers) -> None:
        self._journal = journal
        self._status = status
        self._watchers = watchers

    async def document(self, operation_id: str) -> bytes:
        """All events so far, as JSON.

        Raises:
            ApiError: as `StatusReader.read`.
        """
        await self._status.read(operation_id)  # an operation whose retention is over is told to nobody
        try:
            return document(await self._journal.events(operation_id))
        except InvalidEvent as error:
            raise unreadable(operation_id, error) from error
        except JournalError as error:
            raise from_journal(error) from error

    async def is_over(self, operation_id: str, position: int) -> bool:
        """Whether nothing can follow the event at a position.

        Raises:
            ApiError: as `StatusReader.read`.
        """
        operation = await self._status.read(operation_id)
        return operation.is_terminal and operation.position <= position

    async def follow(self, operation_id: str, position: int) -> AsyncGenerator[bytes, None]:
        """The events after a position as Server-Sent Events, then each new one, until the terminal one.

        Ends early when the service stops. While the journal can't be read the stream says so and waits.
        """
        yield _BEGIN
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

    async def _follow(self, watch: Watch, position: int) -> AsyncGenerator[bytes, None]:
        sequence = (await self._status.read(watch.operation_id)).stream_sequence
        while not watch.is_over:
            try:
                operation, frames = await _after(watch.feed, watch.operation_id, position, sequence)
            except JournalUnavailable:
                yield _BLIND
                await asyncio.sleep(_AGAIN)
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
            while not await _moved(watch, sequence):
                yield _ALIVE
            sequence = watch.operation.stream_sequence if watch.operation else sequence


async def _after(feed: Feed, operation_id: str, position: int, sequence: int) -> tuple[Operation, Sequence[Frame]]:
    try:
        return await feed.after(position, beyond=sequence)
    except (FoldRefused, InvalidEvent) as error:
        raise unreadable(operation_id, error) from error


async def _moved(watch: Watch, sequence: int) -> bool:
    """Whether there is something new, or the watch is over; False after a while of silence."""
    try:
        async with asyncio.timeout(PING):
            await watch.newer(sequence)
    except TimeoutError:
        return False
    return True


def _chunks(frames: Sequence[Frame]) -> Iterator[bytes]:
    """Frames put together to what is worth a write."""
    gathered: list[bytes] = []
    size = 0
    for frame in frames:
        gathered.append(frame.data)
        size += len(frame.data)
        if size >= _CHUNK:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)
