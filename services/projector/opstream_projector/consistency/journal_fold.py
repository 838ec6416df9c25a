"""Folds the whole journal, in stream order, in bounded memory. Pure.

The state of an operation is kept from its first event to its last, and returned then. At most `max_states` are kept. Of
an operation that was evicted before its end, and of one with any invalid message, only the id is returned; the state
has to be read from the operation's own events (`EntryReader`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from opstream_journal.jetstream.scans.scanned_message import ScannedMessage
from opstream_schemas import subjects
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName
from opstream_schemas.events import Canceled, Failed, RecordedEvent, Succeeded, decode_event
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation

MAX_STATES: Final = 32_768
"""States that are kept at once. One takes about 2 KB, with a progress text of full length 6 KB."""

_EVENT_PREFIX: Final = "operations."
_TERMINAL_EVENTS: Final = (Succeeded, Failed, Canceled)
_MAX_EXAMPLES: Final = 5
"""Messages of each kind that are named; all others are only counted."""


class FoldedOperation(NamedTuple):
    """An operation that can be compared now."""

    operation_id: str
    operation: Operation | None
    """None if the state was evicted or can't be trusted: read the operation's events."""
    is_last: bool
    """True if none of its events follow in the scanned part of the journal."""


class SkippedMessages:
    """Messages that were skipped: all are counted, the first ones are named."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, message: ScannedMessage, why: str) -> None:
        """Count a message."""
        self.count += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"sequence {message.sequence} ({message.subject}): {why}")


class JournalFold:
    """One pass over the journal.

    Args:
        max_states: see `MAX_STATES`.
    """

    def __init__(self, *, max_states: int = MAX_STATES) -> None:
        self._max_states = max_states
        self._states: OrderedDict[str, Operation | None] = OrderedDict()
        self.events = 0
        """Messages under the subjects of operations, whatever they hold."""
        self.messages = 0
        """All messages, fired timers too."""
        self.operations = 0
        """Operations that began in the scanned part, and those of which only a later part is there; the latter are
        counted again after an eviction."""
        self.invalid = SkippedMessages()
        """Messages that are no events, or events that lie under another operation's subject."""
        self.unknown = SkippedMessages()
        """Events of types that this version does not know."""

    @property
    def state_count(self) -> int:
        """Return how many states are kept now."""
        return len(self._states)

    def fold(self, messages: Iterable[ScannedMessage]) -> list[FoldedOperation]:
        """Fold the next messages.

        Returns:
            The operations that ended in them or were evicted, in order.
        """
        found: list[FoldedOperation] = []
        for message in messages:
            self.messages += 1
            if not message.subject.startswith(_EVENT_PREFIX):
                continue
            self.events += 1
            try:
                operation_id = subjects.parse_event_subject(message.subject).operation_id
            except InvalidName as error:
                self.invalid.add(message, str(error))  # no request could name such an operation
                continue
            event = self._decode(message, operation_id)
            operation = self._pop_next_state(operation_id, event)
            if event is not None and isinstance(event.data, _TERMINAL_EVENTS):
                found.append(FoldedOperation(operation_id, operation, is_last=True))
                continue
            self._states[operation_id] = operation
            if len(self._states) > self._max_states:
                found.append(FoldedOperation(*self._states.popitem(last=False), is_last=False))
        return found

    def drain(self) -> Iterator[FoldedOperation]:
        """Remove and yield the operations that are open at the end, least recently changed first."""
        while self._states:
            yield FoldedOperation(*self._states.popitem(last=False), is_last=True)

    def _decode(self, message: ScannedMessage, operation_id: str) -> RecordedEvent | None:
        try:
            event = decode_event(message.data, message.sequence, message.subject)
        except InvalidEvent as error:
            self.invalid.add(message, str(error))
            return None
        if event.operation_id != operation_id:
            self.invalid.add(message, f"an event of operation {event.operation_id}")
            return None
        if event.data is None:
            self.unknown.add(message, event.type)
        return event

    def _pop_next_state(self, operation_id: str, event: RecordedEvent | None) -> Operation | None:
        """Remove the kept state and return the state after an event; None if it can't be told here."""
        if operation_id in self._states:
            operation = self._states.pop(operation_id)
            if operation is None:
                return None
        else:
            self.operations += 1
            operation = None
            if event is None or event.position != 1:
                return None
        if event is None:
            return None
        try:
            return fold_for_reader(operation, (event,))
        except FoldRefused:
            return None
