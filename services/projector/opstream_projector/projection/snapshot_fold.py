"""How events become the next snapshot of one operation, and how long that one stays. Pure; `now` is a parameter.

Caller: `writer.py`, which brings the events and the snapshot, and stores what comes out.
"""

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
"""Seconds, 95 years. The broker counts nanoseconds in 64 bits; what should stay longer stays for ever."""


class RefusedEvent(msgspec.Struct, frozen=True):
    """An event that does not continue its operation, and why."""

    event: RecordedEvent
    reason: str


class FoldResult(msgspec.Struct, frozen=True):
    """What a fold gave."""

    operation: Operation | None
    refused: tuple[RefusedEvent, ...] = ()


def fold_onto(operation: Operation | None, events: Iterable[RecordedEvent]) -> FoldResult:
    """Fold events, in stream order, as far as they continue the operation; what it holds already is passed over.

    An event that does not continue it (there is a gap, or it is foreign) is refused and leaves it as it was. A later
    one that does continue it is folded all the same: position and hash prove that nothing is missing in between.
    """
    refused = []
    for event in events:
        if operation is not None and event.sequence <= operation.stream_sequence:
            continue
        try:
            operation = fold_for_reader(operation, (event,))
        except FoldRefused as refusal:
            refused.append(RefusedEvent(event, str(refusal)))
    return FoldResult(operation, tuple(refused))


def fold_all(events: Sequence[RecordedEvent]) -> FoldResult:
    """Fold all events of an operation. Behind a forced end (ADR 0014), whatever is refused has been passed over."""
    folding = fold_onto(None, events)
    if forced_end_of(events[-1]) is None:
        return folding
    try:
        operation = fold_for_reader(None, events)
    except FoldRefused:
        return folding
    return FoldResult(operation, tuple(one for one in folding.refused if one.event is not events[-1]))


def supersedes(operation: Operation, stored: Operation | None) -> bool:
    """Whether a snapshot may take the place of what is stored: it must be further by both of its counts.

    Sequence alone would let a foreign second `requested` set an operation back to its beginning.
    """
    return stored is None or (
        operation.stream_sequence > stored.stream_sequence and operation.position > stored.position
    )


def time_to_live(operation: Operation, now: datetime) -> float:
    """Seconds for which the snapshot is to stay: 0 or less if the time of a terminal one is over.

    A terminal one stays for the retention of its outcome. One that is open would stay for the longest that it may get
    if the operation ended by its deadline, or now, whichever is later. It is replaced long before; its own end is for
    the broker, which may bring back what was replaced (docs/adr/0016).
    """
    end = operation.finished_at or max(operation.deadline, now)
    seconds = end.timestamp() + operation.effective_retention - now.timestamp()
    return seconds if seconds <= _MAX_TTL else math.inf


def may_have_expired(operation: Operation, now: datetime) -> bool:
    """Whether the operation, for all that this state tells, may have ended and left the view already.

    Where nothing is stored, such a state must not be: it would stay for long, as if the operation were still open.
    """
    return operation.created_at.timestamp() + operation.minimum_retention <= now.timestamp()
