"""Folds the whole journal, in its order, in memory that stays flat. Pure. Caller: `sweeping.py`.

The state of an operation is kept from its first event to its last and given out then. Only so many are kept at once: of
an operation that had to go before its end, and of one that holds anything odd, only the id is given out, and whoever
wants the state reads the operation from the journal (`looking.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from opstream_journal.jetstream.ordered_consumer import ScannedMessage
from opstream_schemas import subjects
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName
from opstream_schemas.events import Canceled, Failed, RecordedEvent, Succeeded, decode_event
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation

MAX_STATES: Final = 32_768
"""States that are kept at once. One takes about 2 KB, with a progress text of full length 6."""

_EVENT_PREFIX: Final = "operations."
_TERMINAL_EVENTS: Final = (Succeeded, Failed, Canceled)
_MAX_EXAMPLES: Final = 5
"""Messages of each kind that are named; all others are only counted."""


class FoldedOperation(NamedTuple):
    """An operation whose state is to be compared now."""

    operation_id: str
    operation: Operation | None
    """None: it was not kept, or can't be trusted; the journal tells."""
    is_last: bool
    """Whether nothing of it follows in the part of the journal that is walked."""


class SkippedMessages:
    """Messages that are passed over: all counted, the first ones named."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, message: ScannedMessage, why: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"sequence {message.sequence} ({message.subject}): {why}")


class JournalFold:
    """One walk through the journal.

    Args:
        max_states: see `MAX_STATES`.
    """

    def __init__(self, *, max_states: int = MAX_STATES) -> None:
        self._max_states = max_states
        self._states: OrderedDict[str, Operation | None] = OrderedDict()
        self.events = 0
        """Messages under the subjects of operations, whatever they hold."""
        self.messages = 0
        """All messages: wakes and fired deadlines, too."""
        self.operations = 0
        """Operations that began in what was walked through, and those of which only a later part is there, the latter
        perhaps more than once."""
        self.invalid = SkippedMessages()
        """No events, or not of the operation under whose subject they lie."""
        self.unknown = SkippedMessages()
        """Of types that this version does not know."""

    @property
    def state_count(self) -> int:
        """How many states it keeps now."""
        return len(self._states)

    def fold(self, batch: Iterable[ScannedMessage]) -> list[FoldedOperation]:
        """Go on by some messages; what is to be compared now."""
        found: list[FoldedOperation] = []
        for message in batch:
            self.messages += 1
            if not message.subject.startswith(_EVENT_PREFIX):
                continue
            self.events += 1
            try:
                operation_id = subjects.parse_event_subject(message.subject).operation_id
            except InvalidName as error:
                self.invalid.add(message, str(error))  # it is of no operation that anybody could ask for
                continue
            event = self._event(message, operation_id)
            operation = self._next(operation_id, event)
            if event is not None and isinstance(event.data, _TERMINAL_EVENTS):
                found.append(FoldedOperation(operation_id, operation, is_last=True))
                continue
            self._states[operation_id] = operation
            if len(self._states) > self._max_states:
                found.append(FoldedOperation(*self._states.popitem(last=False), is_last=False))
        return found

    def drain(self) -> Iterator[FoldedOperation]:
        """What is open at the end, oldest first; it is not kept any more then."""
        while self._states:
            yield FoldedOperation(*self._states.popitem(last=False), is_last=True)

    def _event(self, message: ScannedMessage, operation_id: str) -> RecordedEvent | None:
        try:
            event = decode_event(message.data, message.sequence)
        except InvalidEvent as error:
            self.invalid.add(message, str(error))
            return None
        if event.operation_id != operation_id:
            self.invalid.add(message, f"an event of operation {event.operation_id}")
            return None
        if event.data is None:
            self.unknown.add(message, event.type)
        return event

    def _next(self, operation_id: str, event: RecordedEvent | None) -> Operation | None:
        """The state after an event, taken out of what is kept; None if only the journal tells."""
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
