"""Compares the snapshot of one operation with what the journal says it should be.

The comparison is pure: `now` is a parameter. `EntryReader` reads entry and events from the leaders, for operations that
the scan of the whole journal can't decide. It folds as the projector does, but reports what can't be folded, and where
the journal lacks what the entry was folded from (docs/adr/0032).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from opstream_journal import Connection, Journal
from opstream_journal.jetstream.scans.stream_scan import StreamIdentity, stream_identity
from opstream_journal.stores.snapshots import RawSnapshot, RawSnapshots, encode_snapshot
from opstream_projector.projection.snapshot_fold import FoldResult, fold_all, fold_onto, time_to_live
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import RecordedEvent, decode_event
from opstream_schemas.integrity.setback import JournalRange, Loss, has_expired, loss_of
from opstream_schemas.operation.fold import forced_end_of
from opstream_schemas.operation.forced_end import OperationMessage, decode_events, events_from_request
from opstream_schemas.operation.state import Operation
from opstream_schemas.status_monitor import build_status_monitor

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


def is_of_other_version(snapshot: RawSnapshot, operation: Operation) -> bool:
    """Return True if another version of the fold wrote the entry, from the same events, and clients read the same.

    Such an entry is no difference: nothing trusts it, and the next event of the operation replaces it. What can't be
    read whole can't be compared, and is left to its own version.
    """
    core = snapshot.core
    if core is None or core.fold_version == operation.fold_version or core.stream_sequence != operation.stream_sequence:
        return False
    stored = snapshot.as_read_here
    return stored is None or build_status_monitor(stored) == build_status_monitor(operation)


def is_ahead(snapshot: RawSnapshot, operation: Operation) -> bool:
    """Return True if the entry, whichever version wrote it, claims a higher position or sequence than the fold."""
    core = snapshot.core
    return core is not None and (core.position > operation.position or core.stream_sequence > operation.stream_sequence)


def journal_range(stream: StreamIdentity) -> JournalRange:
    """Return what the journal holds, for the decision whether something is lost."""
    return JournalRange(first=stream.first, last=stream.last, max_age=stream.max_age)


def describe_difference(reading: EntryReading) -> str:
    """Describe the difference in one line for a person."""
    snapshot, operation = reading.snapshot, reading.operation
    if operation is None:
        core = snapshot.core if snapshot is not None else None
        if core is None or reading.loss is None:
            return "in the view, but not in the journal"
        return f"only in the view, {core.status} (sequence {core.stream_sequence}); its events are lost: {reading.loss}"
    if snapshot is None:
        return f"missing in the view, {operation.status} in the journal (position {operation.position})"
    stored = snapshot.operation
    if reading.loss is not None and not reading.is_contradicted:
        return f"right in the view, {operation.status}, but its request is lost: {reading.loss}"
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
    loss: Loss | None = None
    """Where the journal lacks an event from which the entry was folded, although it has not expired."""

    @property
    def is_only_in_view(self) -> bool:
        """Return True if the entry knows what the journal has lost.

        This decides for all: `verify` counts just these entries, and `rebuild` keeps, exports and reports them.
        """
        return self.snapshot is not None and self.loss is not None

    @property
    def is_contradicted(self) -> bool:
        """Return True if such an entry says something else than the journal, so that a forced rebuild replaces it.

        One whose events went early does not, and one whose beginning only is lost does not: clients read it until it
        expires.
        """
        if self.snapshot is None or self.loss is None:
            return False
        if self.operation is None:
            return self.loss is not Loss.TOO_EARLY
        return not is_same(self.snapshot, self.operation)

    @property
    def is_foreign(self) -> bool:
        """Return True if the entry is no snapshot, of an operation that the journal does not know."""
        return self.operation is None and self.snapshot is not None and self.snapshot.core is None


class EntryReader:
    """Reads entries and their operations' events from the leaders.

    Args:
        connection: the connection.
        journal: started.
        snapshots: started.
        now: the time, with zone.
    """

    def __init__(
        self, connection: Connection, journal: Journal, snapshots: RawSnapshots, *, now: Callable[[], datetime]
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._snapshots = snapshots
        self._now = now

    async def read(self, operation_id: str) -> EntryReading:
        """Read one operation.

        Raises:
            JournalUnavailable: a leader did not answer.
        """
        # The entry first: an event is in the journal before it is in the view, so no honest entry is ahead of the fold.
        snapshot = await self._snapshots.get_newest(operation_id)
        messages = await self._journal.messages(operation_id)
        if not messages:
            return EntryReading(snapshot=snapshot, operation=None, loss=await self._loss_of(snapshot, messages))
        stored = snapshot.operation if snapshot is not None else None
        operation, problem = fold_messages(operation_id, messages, stored)
        is_less = operation is not None and snapshot is not None and is_ahead(snapshot, operation)
        if is_less:
            loss = await self._loss_of(snapshot, messages)
        else:
            loss = await self._loss_of_request(operation_id, snapshot, messages)
        return EntryReading(snapshot=snapshot, operation=operation, problem=problem, loss=loss)

    async def _loss_of(self, snapshot: RawSnapshot | None, messages: Sequence[OperationMessage]) -> Loss | None:
        """Return where the journal lacks an event from which the entry was folded."""
        core = snapshot.core if snapshot is not None else None
        if core is None:
            return None
        if any(message.sequence == core.stream_sequence for message in messages):
            return Loss.INSIDE  # the last event is there, and one before it is not
        journal = journal_range(await stream_identity(self._connection, subjects.OPERATIONS_STREAM))
        return loss_of(core.stream_sequence, core.recorded_at, journal, self._now())

    async def _loss_of_request(
        self, operation_id: str, snapshot: RawSnapshot | None, messages: Sequence[OperationMessage]
    ) -> Loss | None:
        """Return where the journal lacks the request of an operation of which it has later events."""
        stored = snapshot.operation if snapshot is not None else None
        events = _own_events(operation_id, messages)[0]
        if stored is None or not events or events_from_request(operation_id, events):
            return None
        stream = await stream_identity(self._connection, subjects.OPERATIONS_STREAM)
        # Its sequence isn't known. A journal without holes can lack it at its beginning only.
        if has_expired(stored.created_at, stream.max_age, self._now()):
            return None
        return Loss.INSIDE if stream.missing else Loss.TOO_EARLY


def is_wrong(reading: EntryReading, now: datetime) -> bool:
    """Return True if the entry is not what it should be, or is so only because the journal can't say otherwise."""
    if reading.is_only_in_view:
        return True
    if reading.operation is None:
        return reading.is_foreign or reading.loss is not None
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
            found.append(decode_event(message.payload, message.sequence, message.subject))
        except InvalidEvent:
            continue
    return found


def _first_refusal(result: FoldResult) -> str:
    return result.refused[0].reason if result.refused else ""
