"""Looks at one operation as the leaders have it: its entry in the view, and what that should be by the journal.

Callers: `rebuild.py` and `verify.py`, for what the walk through the journal could not settle by itself. It folds as the
projector does (`writer.py`), but tells what can't be folded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from opstream_journal import Journal, Link
from opstream_journal.jetstream.stream_scan import edges
from opstream_journal.stores.snapshot_bulk import Snapshot, Snapshots
from opstream_projector.projection.snapshot_fold import Folding, fold_all, fold_onto
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import RecordedEvent, decode_event
from opstream_schemas.operation.fold import Operation, forced_end
from opstream_schemas.operation.forced_end import Message, events_of, from_beginning

from .differing import is_over, is_same


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    snapshot: Snapshot | None
    operation: Operation | None
    """What the view should hold; None if the journal does not tell."""
    problem: str = ""
    """Why not all that the journal holds of it could be folded."""
    is_unknown: bool = False
    """The journal holds nothing of it, and not because that has expired."""


class Looker:
    """Looks at operations.

    Args:
        link: the connection.
        journal: started.
        snapshots: started.
    """

    def __init__(self, link: Link, journal: Journal, snapshots: Snapshots) -> None:
        self._link = link
        self._journal = journal
        self._snapshots = snapshots

    async def look(self, operation_id: str) -> Look:
        """Look at one.

        Raises:
            JournalUnavailable: a leader did not answer.
        """
        # In this order: what the view holds was in the journal before, so no honest entry is further than the fold.
        snapshot = await self._snapshots.newest(operation_id)
        messages = await self._journal.messages(operation_id)
        if not messages:
            is_unknown = snapshot is not None and not await self._has_expired(snapshot)
            return Look(snapshot=snapshot, operation=None, is_unknown=is_unknown)
        stored = snapshot.operation if snapshot is not None else None
        operation, problem = folded(operation_id, messages, stored)
        return Look(snapshot=snapshot, operation=operation, problem=problem)

    async def _has_expired(self, snapshot: Snapshot) -> bool:
        sequence = snapshot.sequence
        return sequence is not None and sequence < (await edges(self._link, subjects.OPERATIONS_STREAM)).first


def is_wrong(look: Look, now: datetime) -> bool:
    """Whether the entry is not what it should be."""
    if look.operation is None:
        return look.is_unknown
    if look.snapshot is None:
        return not is_over(look.operation, now)
    return not is_same(look.snapshot, look.operation)


def folded(operation_id: str, messages: Sequence[Message], stored: Operation | None) -> tuple[Operation | None, str]:
    """What the view should hold of an operation, and why that is not all that lies in the journal, if it is not.

    Args:
        operation_id: its id.
        messages: whatever lies on its subjects, in stream order.
        stored: what the view holds: all that is left of an operation whose beginning has expired.
    """
    events, problem = _events(operation_id, messages)
    if not events:
        return stored, problem
    own = from_beginning(operation_id, events)
    if own:
        folding = fold_all(own)
        if len(own) < len(events) and forced_end(own[-1]) is None:
            problem = problem or f"what lies before its request at sequence {own[0].sequence} is not its"
    elif stored is None:
        return None, problem
    else:
        folding = fold_onto(stored, events)
    return folding.operation or stored, problem or _refusal(folding)


def _events(operation_id: str, messages: Sequence[Message]) -> tuple[list[RecordedEvent], str]:
    """The operation's events among the messages, and what is wrong with the first other one."""
    try:
        events, problem = events_of(messages), ""
    except InvalidEvent as error:
        events, problem = list(_decodable(messages)), str(error)
    own = [event for event in events if event.operation_id == operation_id]
    if len(own) < len(events) and forced_end(events[-1]) is None:
        foreign = next(event for event in events if event.operation_id != operation_id)
        problem = problem or f"the event at sequence {foreign.sequence} is of operation {foreign.operation_id}"
    return own, problem


def _decodable(messages: Sequence[Message]) -> list[RecordedEvent]:
    found = []
    for message in messages:
        try:
            found.append(decode_event(message.payload, message.sequence))
        except InvalidEvent:
            continue
    return found


def _refusal(folding: Folding) -> str:
    return folding.refused[0].reason if folding.refused else ""
