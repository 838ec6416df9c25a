"""The newest events of one operation as Server-Sent Events, shared by all its followers.

An event is sent as the journal stores it, byte for byte, so that a client can verify the hash chain. With
authentication only its subject differs: it is the client's own id of the operation.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from opstream_api.errors import operation_not_found
from opstream_journal import Journal
from opstream_schemas.events import RecordedEvent, with_own_id
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation

MAX_BYTES: Final = 512 * 1024
"""Bytes of frames that a feed keeps. A follower that is further behind gets its events from the journal."""

PAGE_SIZE: Final = 32
"""Events of one read of the journal for a follower that is behind."""


class SseFrame(NamedTuple):
    """One event, encoded as a Server-Sent Event."""

    position: int
    data: bytes


class EventFeed:
    """The newest events of one operation, read once for all followers.

    Args:
        journal: the events.
        operation_id: the operation.
        max_bytes: bytes of frames to keep.
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
        """Bytes of the kept frames."""
        return self._bytes

    async def events_after(self, position: int, *, at_least: int) -> tuple[Operation, Sequence[SseFrame]]:
        """Return the state of the operation and its next events after a position.

        Events that are no longer kept are read from the journal, at most `PAGE_SIZE` at once, so that a slow follower
        needs little memory.

        Args:
            position: position of the last event that the follower has; 0 for none.
            at_least: stream sequence up to which the result must be complete.

        Raises:
            JournalUnavailable: no leader responded.
            FoldRefused, InvalidEvent: a message on the operation's subjects is not one of its events.
            ApiError: `OperationNotFound`: its events have expired.
        """
        async with self._lock:
            operation = self._operation
            if operation is None or operation.stream_sequence < at_least:
                operation = await self._read_newer(operation)
        if self._frames[0].position <= position + 1:
            return operation, [frame for frame in self._frames if frame.position > position]
        count = len(self._sequences)
        begin = min(position, count - 1)
        events = await self._journal.page(self._operation_id, self._sequences[begin], min(PAGE_SIZE, count - begin))
        numbered = enumerate(events, start=begin + 1)
        own_id = operation.own_id
        return operation, [_frame(event, self._position(number, operation), own_id) for number, event in numbered]

    async def _read_newer(self, known: Operation | None) -> Operation:
        events = await self._journal.events(self._operation_id, since=known)
        operation = _folded(known, events)
        self._operation = operation
        self._sequences.extend(event.sequence for event in events)
        first = len(self._sequences) - len(events) + 1
        for number, event in enumerate(events, start=first):
            frame = _frame(event, self._position(number, operation), operation.own_id)
            self._frames.append(frame)
            self._bytes += len(frame.data)
        while self._bytes > self._max_bytes and len(self._frames) > 1:
            self._bytes -= len(self._frames.popleft().data)
        return operation

    def _position(self, number: int, operation: Operation) -> int:
        """Return the position of the n-th event.

        Events before a forced end may carry any position (ADR 0014), so only that of the last event is taken from it.
        """
        return operation.position if number == len(self._sequences) else number


def _folded(known: Operation | None, events: Iterable[RecordedEvent]) -> Operation:
    operation = fold_for_reader(known, events)
    if operation is None:
        raise operation_not_found()
    return operation


def _frame(event: RecordedEvent, position: int, own_id: str) -> SseFrame:
    """Encode an event: the position as `id`, the short name as `event`, the JSON as `data`, as `with_own_id` has it.

    opstream stores JSON without line breaks. Another writer's line breaks are only whitespace in JSON, so splitting
    the data there keeps its meaning.
    """
    name = event.data.name if event.data else event.type
    shown = with_own_id(event.stored, event.operation_id, own_id)
    data = b"\n".join(b"data: " + line for line in shown.splitlines())
    head = f"id: {position}\nevent: {' '.join(name.split())}\n".encode()
    return SseFrame(position, head + data + b"\n\n")
