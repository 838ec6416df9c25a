"""The events of one operation as those who follow it get them, read once for all of them. Called by `history.py`.

An event goes out just as the journal holds it, byte for byte, so that a client can check the hashes that chain them.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from opstream_api.errors import operation_not_found
from opstream_journal import Journal
from opstream_schemas.events import RecordedEvent
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation

MAX_BYTES: Final = 512 * 1024
"""Of frames that a feed keeps for those who follow it; whoever is further behind reads the journal again."""

PAGE_SIZE: Final = 32
"""Events that are read again at once."""


class SseFrame(NamedTuple):
    """One event as Server-Sent Events have it."""

    position: int
    data: bytes


class EventFeed:
    """The newest events of one operation, read once for all who follow it.

    Args:
        journal: where they come from.
        operation_id: whose.
        max_bytes: of frames to keep.
    """

    def __init__(self, journal: Journal, operation_id: str, *, max_bytes: int = MAX_BYTES) -> None:
        self._journal = journal
        self._operation_id = operation_id
        self._max_bytes = max_bytes
        self._operation: Operation | None = None
        self._sequences = array("Q")
        self._frames: deque[SseFrame] = deque()
        self._bytes = 0
        self._lock = asyncio.Lock()

    @property
    def size(self) -> int:
        """Bytes of the frames that are kept."""
        return self._bytes

    async def events_after(self, position: int, *, beyond: int) -> tuple[Operation, Sequence[SseFrame]]:
        """Events after a position, from the next one on, and the operation as it is by now.

        Those that are not kept here are read again, a part at a time: what waits for a slow reader stays small.

        Args:
            position: of the last event that the reader has; 0 for none.
            beyond: stream sequence that somebody saw, so that the journal must be read up to there at least.

        Raises:
            JournalUnavailable: no leader answered.
            FoldRefused, InvalidEvent: something lies there that is no such operation's event.
            ApiError: `OperationNotFound`: its events have expired.
        """
        async with self._lock:
            operation = self._operation
            if operation is None or operation.stream_sequence < beyond:
                operation = await self._read_newer(operation)
        if self._frames[0].position <= position + 1:
            return operation, [frame for frame in self._frames if frame.position > position]
        known = len(self._sequences)
        begin = min(position, known - 1)
        events = await self._journal.page(self._operation_id, self._sequences[begin], min(PAGE_SIZE, known - begin))
        numbered = enumerate(events, start=begin + 1)
        return operation, [_frame(event, self._position(number, operation)) for number, event in numbered]

    async def _read_newer(self, known: Operation | None) -> Operation:
        events = await self._journal.events(self._operation_id, since=known)
        operation = _folded(known, events)
        self._operation = operation
        self._sequences.extend(event.sequence for event in events)
        first = len(self._sequences) - len(events) + 1
        for number, event in enumerate(events, start=first):
            frame = _frame(event, self._position(number, operation))
            self._frames.append(frame)
            self._bytes += len(frame.data)
        while self._bytes > self._max_bytes and len(self._frames) > 1:
            self._bytes -= len(self._frames.popleft().data)
        return operation

    def _position(self, number: int, operation: Operation) -> int:
        """Of the n-th event. What a forced end passed over (ADR 0014) may claim any; then only the end's own counts."""
        return operation.position if number == len(self._sequences) else number


def _folded(known: Operation | None, events: Iterable[RecordedEvent]) -> Operation:
    operation = fold_for_reader(known, events)
    if operation is None:
        raise operation_not_found()
    return operation


def _frame(event: RecordedEvent, position: int) -> SseFrame:
    """A frame: the position as its id, the event's short name as its type, the stored JSON as its data.

    What we store has no line breaks; what others store may have some, which in JSON are only space.
    """
    name = event.data.name if event.data else event.type
    data = b"\n".join(b"data: " + line for line in event.stored.splitlines())
    head = f"id: {position}\nevent: {' '.join(name.split())}\n".encode()
    return SseFrame(position, head + data + b"\n\n")
