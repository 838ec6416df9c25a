"""Compares the snapshot of one operation with what the journal says it should be.

The upper part is pure: `now` is a parameter. `EntryReader` reads both sides from the leaders, for what the pass over
the
whole journal could not decide. It folds as the projector does, but reports what cannot be folded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from opstream_journal import Connection, Journal
from opstream_journal.jetstream.stream_scan import stream_bounds
from opstream_journal.stores.snapshots import RawSnapshot, RawSnapshots, encode_snapshot
from opstream_projector.projection.snapshot_fold import FoldResult, fold_all, fold_onto, time_to_live
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import RecordedEvent, decode_event
from opstream_schemas.operation.fold import forced_end_of
from opstream_schemas.operation.forced_end import OperationMessage, decode_events, events_from_request
from opstream_schemas.operation.state import Operation

_CLOCK_MARGIN: Final = 5.0
"""Seconds by which our clock and the broker's may differ, and by which it rounds when it lets an entry go."""
_MAX_VALUE_LENGTH: Final = 80
"""Characters of a value that are shown."""


class EntryDifference(msgspec.Struct, frozen=True):
    """How one entry of the view differs from the journal."""

    operation_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.operation_id}: {self.what}"


def is_expired(operation: Operation, now: datetime) -> bool:
    """Whether the view need not hold the operation any more, so that it is right without an entry.

    That of an operation that is open goes a retention after its deadline, whatever else happens (docs/adr/0016).
    """
    seconds = time_to_live(operation, now)
    if not operation.is_terminal:
        seconds -= max(0.0, now.timestamp() - operation.deadline.timestamp())
    return seconds <= _CLOCK_MARGIN


def is_same(snapshot: RawSnapshot, operation: Operation) -> bool:
    """Whether the entry says exactly what the fold gives."""
    # Other bytes may say the same, as when another version has written a field's default.
    return snapshot.data == encode_snapshot(operation) or snapshot.operation == operation


def is_ahead(snapshot: RawSnapshot, operation: Operation) -> bool:
    """Whether the entry says that it has seen more of the operation, by whichever count."""
    stored = snapshot.operation
    return stored is not None and (
        stored.position > operation.position or stored.stream_sequence > operation.stream_sequence
    )


def describe_difference(snapshot: RawSnapshot | None, operation: Operation | None) -> str:
    """How they differ, for a person: one line. Without an operation the journal knows nothing of it."""
    if operation is None:
        return "in the view, and not in the journal"
    if snapshot is None:
        return f"missing in the view, {operation.status} in the journal (position {operation.position})"
    stored = snapshot.operation
    if stored is None:
        return f"the entry is {snapshot.problem}; {operation.status} in the journal (position {operation.position})"
    wanted, found = _fields(operation), _fields(stored)
    names = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    said = (f"{name}: journal {_shown_value(wanted, name)}, view {_shown_value(found, name)}" for name in names)
    return "; ".join(said)


def _fields(operation: Operation) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(encode_snapshot(operation))
    return fields


def _shown_value(fields: dict[str, Any], name: str) -> str:
    if name not in fields:
        return "nothing"
    text = msgspec.json.encode(fields[name]).decode()
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[:_MAX_VALUE_LENGTH]}…"


class EntryReading(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    snapshot: RawSnapshot | None
    operation: Operation | None
    """What the view should hold; None if the journal does not tell."""
    problem: str = ""
    """Why not all that the journal holds of it could be folded."""
    is_unknown: bool = False
    """The journal holds nothing of it, and not because that has expired."""


class EntryReader:
    """Looks at operations.

    Args:
        link: the connection.
        journal: started.
        snapshots: started.
    """

    def __init__(self, link: Connection, journal: Journal, snapshots: RawSnapshots) -> None:
        self._link = link
        self._journal = journal
        self._snapshots = snapshots

    async def read(self, operation_id: str) -> EntryReading:
        """Look at one.

        Raises:
            JournalUnavailable: a leader did not answer.
        """
        # In this order: what the view holds was in the journal before, so no honest entry is further than the fold.
        snapshot = await self._snapshots.get_newest(operation_id)
        messages = await self._journal.messages(operation_id)
        if not messages:
            is_unknown = snapshot is not None and not await self._has_expired(snapshot)
            return EntryReading(snapshot=snapshot, operation=None, is_unknown=is_unknown)
        stored = snapshot.operation if snapshot is not None else None
        operation, problem = fold_messages(operation_id, messages, stored)
        return EntryReading(snapshot=snapshot, operation=operation, problem=problem)

    async def _has_expired(self, snapshot: RawSnapshot) -> bool:
        sequence = snapshot.sequence
        return sequence is not None and sequence < (await stream_bounds(self._link, subjects.OPERATIONS_STREAM)).first


def is_wrong(look: EntryReading, now: datetime) -> bool:
    """Whether the entry is not what it should be."""
    if look.operation is None:
        return look.is_unknown
    if look.snapshot is None:
        return not is_expired(look.operation, now)
    return not is_same(look.snapshot, look.operation)


def fold_messages(
    operation_id: str, messages: Sequence[OperationMessage], stored: Operation | None
) -> tuple[Operation | None, str]:
    """What the view should hold of an operation, and why that is not all that lies in the journal, if it is not.

    Args:
        operation_id: its id.
        messages: whatever lies on its subjects, in stream order.
        stored: what the view holds: all that is left of an operation whose beginning has expired.
    """
    events, problem = _own_events(operation_id, messages)
    if not events:
        return stored, problem
    own = events_from_request(operation_id, events)
    if own:
        folding = fold_all(own)
        if len(own) < len(events) and forced_end_of(own[-1]) is None:
            problem = problem or f"what lies before its request at sequence {own[0].sequence} is not its"
    elif stored is None:
        return None, problem
    else:
        folding = fold_onto(stored, events)
    return folding.operation or stored, problem or _first_refusal(folding)


def _own_events(operation_id: str, messages: Sequence[OperationMessage]) -> tuple[list[RecordedEvent], str]:
    """The operation's events among the messages, and what is wrong with the first other one."""
    try:
        events, problem = decode_events(messages), ""
    except InvalidEvent as error:
        events, problem = list(_decodable(messages)), str(error)
    own = [event for event in events if event.operation_id == operation_id]
    if len(own) < len(events) and forced_end_of(events[-1]) is None:
        foreign = next(event for event in events if event.operation_id != operation_id)
        problem = problem or f"the event at sequence {foreign.sequence} is of operation {foreign.operation_id}"
    return own, problem


def _decodable(messages: Sequence[OperationMessage]) -> list[RecordedEvent]:
    found = []
    for message in messages:
        try:
            found.append(decode_event(message.payload, message.sequence))
        except InvalidEvent:
            continue
    return found


def _first_refusal(folding: FoldResult) -> str:
    return folding.refused[0].reason if folding.refused else ""
