"""How events become the next snapshot of an operation, and how long a snapshot lives. Pure: `now` is a parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from opstream_schemas.errors import FoldRefused
from opstream_schemas.events import RecordedEvent
from opstream_schemas.operation.fold import fold_for_reader, forced_end_of
from opstream_schemas.operation.state import Operation

_MAX_TTL: Final = 3e9
"""Seconds (95 years). The broker counts nanoseconds in 64 bits; a snapshot that should live longer never expires."""


class RefusedEvent(msgspec.Struct, frozen=True):
    """An event that does not continue its operation, and why."""

    event: RecordedEvent
    reason: str


class FoldResult(msgspec.Struct, frozen=True):
    """The state after a fold, and the events that the fold refused."""

    operation: Operation | None
    refused: tuple[RefusedEvent, ...] = ()


def fold_onto(operation: Operation | None, events: Iterable[RecordedEvent]) -> FoldResult:
    """Fold events, in stream order, onto a state. Events that the state already contains are skipped.

    An event that does not continue the operation (after a gap, or a foreign one) is refused and changes nothing. A
    later event that does continue it is folded: its position and hash prove that nothing is missing in between.
    """
    refused = []
    for event in events:
        if operation is not None and event.sequence <= operation.stream_sequence:
            continue
        try:
            operation = fold_for_reader(operation, (event,))
        except FoldRefused as error:
            refused.append(RefusedEvent(event, str(error)))
    return FoldResult(operation, tuple(refused))


def fold_all(events: Sequence[RecordedEvent]) -> FoldResult:
    """Fold all events of an operation. A forced end (docs/adr/0014) is folded although refused events precede it."""
    result = fold_onto(None, events)
    if forced_end_of(events[-1]) is None:
        return result
    try:
        operation = fold_for_reader(None, events)
    except FoldRefused:
        return result
    return FoldResult(operation, tuple(refused for refused in result.refused if refused.event is not events[-1]))


def supersedes(operation: Operation, stored: Operation | None) -> bool:
    """Return True if a snapshot may replace the stored one: both its sequence and its position are higher.

    The sequence alone would let a foreign second `requested` set an operation back to its beginning.
    """
    return stored is None or (
        operation.stream_sequence > stored.stream_sequence and operation.position > stored.position
    )


def time_to_live(operation: Operation, now: datetime) -> float:
    """Return the seconds that the snapshot lives from now on; 0 or less if a terminal one has expired.

    A terminal snapshot lives for the retention of its outcome. An open one gets the longest retention, counted from its
    deadline or from now, whichever is later. It is normally replaced long before; the TTL matters because the broker
    may bring back a replaced entry (docs/adr/0016).
    """
    end = operation.finished_at or max(operation.deadline, now)
    seconds = end.timestamp() + operation.effective_retention - now.timestamp()
    return seconds if seconds <= _MAX_TTL else math.inf


def broker_ttl(seconds: float) -> float | None:
    """Return a time to live in whole seconds, rounded up: the contract promises a minimum time. None for never."""
    return None if seconds == math.inf else float(math.ceil(seconds))


def may_have_expired(operation: Operation, now: datetime) -> bool:
    """Return True if the operation may have ended after this state, and its snapshot may have expired.

    Where nothing is stored, such a state must not be written: for a long time the operation would look open.
    """
    return operation.created_at.timestamp() + operation.minimum_retention <= now.timestamp()
