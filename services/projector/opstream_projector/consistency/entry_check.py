"""Compares the snapshot of one operation with what the journal says it should be.

The comparison is pure: `now` is a parameter. `EntryReader` reads entry and events from the leaders, for operations that
the scan of the whole journal can't decide. It folds as the projector does, but reports what can't be folded.
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
"""Seconds for the difference between our clock and the broker's, and for the broker's rounding of expiry times."""
_MAX_VALUE_LENGTH: Final = 80
"""Characters of a value that are displayed."""


class EntryDifference(msgspec.Struct, frozen=True):
    """How one entry of the view differs from the journal."""

    operation_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.operation_id}: {self.what}"


def is_expired(operation: Operation, now: datetime) -> bool:
    """Return True if the operation's entry may have expired, so that a missing entry is right.

    The entry of an open operation expires one retention after its deadline at the latest (docs/adr/0016).
    """
    seconds = time_to_live(operation, now)
    if not operation.is_terminal:
        seconds -= max(0.0, now.timestamp() - operation.deadline.timestamp())
    return seconds <= _CLOCK_MARGIN


def is_same(snapshot: RawSnapshot, operation: Operation) -> bool:
    """Return True if the entry equals the fold."""
    # Other bytes may mean the same: another version may have written a field's default.
    return snapshot.data == encode_snapshot(operation) or snapshot.operation == operation


def is_ahead(snapshot: RawSnapshot, operation: Operation) -> bool:
    """Return True if the entry claims a higher position or sequence than the fold."""
    stored = snapshot.operation
    return stored is not None and (
        stored.position > operation.position or stored.stream_sequence > operation.stream_sequence
    )


def describe_difference(snapshot: RawSnapshot | None, operation: Operation | None) -> str:
    """Describe the difference in one line for a person. No operation means that the journal does not have it."""
    if operation is None:
        return "in the view, but not in the journal"
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
    """The entry of one operation, and what it should be."""

    snapshot: RawSnapshot | None
    operation: Operation | None
    """What the view should hold; None if the journal can't tell."""
    problem: str = ""
    """Why some of the operation's messages could not be folded; empty if all were."""
    is_unknown: bool = False
    """True if the journal holds no messages of the operation, and never did: they have not expired."""


class EntryReader:
    """Reads entries and their operations' events from the leaders.

    Args:
        connection: the connection.
        journal: started.
        snapshots: started.
    """

    def __init__(self, connection: Connection, journal: Journal, snapshots: RawSnapshots) -> None:
        self._connection = connection
        self._journal = journal
        self._snapshots = snapshots

    async def read(self, operation_id: str) -> EntryReading:
        """Read one operation.

        Raises:
            JournalUnavailable: a leader did not answer.
        """
        # The entry first: an event is in the journal before it is in the view, so no honest entry is ahead of the fold.
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
        if sequence is None:
            return False
        return sequence < (await stream_bounds(self._connection, subjects.OPERATIONS_STREAM)).first


def is_wrong(reading: EntryReading, now: datetime) -> bool:
    """Return True if the entry is not what it should be."""
    if reading.operation is None:
        return reading.is_unknown
    if reading.snapshot is None:
        return not is_expired(reading.operation, now)
    return not is_same(reading.snapshot, reading.operation)


def fold_messages(
    operation_id: str, messages: Sequence[OperationMessage], stored: Operation | None
) -> tuple[Operation | None, str]:
    """Fold all messages of an operation.

    Args:
        operation_id: its id.
        messages: all messages on its subjects, in stream order.
        stored: the snapshot in the view; if the operation's beginning has expired, it is the only record of it.

    Returns:
        What the view should hold, and why some messages are not in it (empty if all are).
    """
    events, problem = _own_events(operation_id, messages)
    if not events:
        return stored, problem
    own = events_from_request(operation_id, events)
    if own:
        result = fold_all(own)
        if len(own) < len(events) and forced_end_of(own[-1]) is None:
            problem = problem or f"messages before its request at sequence {own[0].sequence} are not its own"
    elif stored is None:
        return None, problem
    else:
        result = fold_onto(stored, events)
    return result.operation or stored, problem or _first_refusal(result)


def _own_events(operation_id: str, messages: Sequence[OperationMessage]) -> tuple[list[RecordedEvent], str]:
    """Return the operation's events among the messages, and what is wrong with the first message that is none."""
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


def _first_refusal(result: FoldResult) -> str:
    return result.refused[0].reason if result.refused else ""
