"""Loads the operation that a delivered message belongs to, with its input, and with its steps and waits so far."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

import msgspec

from opstream_journal import DeliveredMessage, Journal
from opstream_journal.outage_log import OutageLog
from opstream_journal.stores.timers import scheduled_by
from opstream_payloads.documents import Documents
from opstream_payloads.errors import PayloadError
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.events import RecordedEvent, Requested, decode_event
from opstream_schemas.operation.dispatch_decision import SWEEP_REASON, Trigger
from opstream_schemas.operation.fold import fold, initial
from opstream_schemas.operation.state import Operation
from opstream_schemas.seals.operation_key import OperationKey
from opstream_schemas.signals.wait_history import WaitEvent, wait_events
from opstream_schemas.steps.step_history import StepRecord, step_records

logger = logging.getLogger(__name__)

_UNTIMELY: Final = frozenset({SWEEP_REASON, subjects.QUEUED_REASON})


UNREADABLE_DELAY: Final = 10.0
"""Seconds until an operation comes again whose input can't be read: an operator has to do something."""


class LoadedOperation(NamedTuple):
    """An operation with its action's input and its steps."""

    operation: Operation
    action_input: msgspec.Raw | msgspec.UnsetType
    """`UNSET` for one that is a payload (`Operation.input_payload`) and not read yet."""
    request_sequence: int
    """Stream sequence of the `requested` event."""
    steps: tuple[StepRecord, ...] = ()
    """What its attempts have recorded of their steps."""
    waits: tuple[WaitEvent, ...] = ()
    """What decides about its waits."""
    key: OperationKey | None = None
    """Of a confidential operation, once input, steps and waits are opened by it (`RequestOpener`); None before, and for
    any other."""


class OperationLoader:
    """Loads the operations of one action.

    Args:
        journal: holds the operations.
        spec: the action.
        documents: read inputs that are payloads.
    """

    def __init__(self, journal: Journal, spec: ActionSpec, documents: Documents) -> None:
        self._journal = journal
        self._spec = spec
        self._documents = documents
        self._outage = OutageLog(
            logger,
            f"operations of {spec.kind} are handed back, since their inputs can't be read from the payload store",
            f"inputs of {spec.kind} can be read from the payload store again",
        )

    async def load(self, message: DeliveredMessage) -> LoadedOperation | None:
        """Return the state to decide on; None if the operation expired.

        The first delivery of a request contains it all, unless it waits in another queue, too, by which it may have
        begun. For any other message the operation is read from the journal.

        Raises:
            FoldRefused, InvalidEvent, InvalidName: the operation can't be folded, or belongs to another action.
            JournalUnavailable: the journal could not be read.
        """
        if subjects.is_wake(message.subject):
            operation_id = subjects.parse_wake_subject(message.subject).operation_id
        else:
            operation_id = subjects.parse_event_subject(message.subject).operation_id
            if message.deliveries == 1:
                requested = decode_event(message.data, message.sequence, message.subject)
                operation = initial(requested)
                if not self._spec.policy.served_queue(operation.queue):
                    return self._verify_subject(
                        LoadedOperation(operation, _action_input(requested), requested.sequence), operation_id
                    )
        events = await self._journal.events(operation_id)
        folded = fold(None, events)
        if folded is None:
            return None
        first = events[0]
        loaded = LoadedOperation(
            folded, _action_input(first), first.sequence, step_records(events), wait_events(events)
        )
        return self._verify_subject(loaded, operation_id)

    async def read_input(self, loaded: LoadedOperation) -> msgspec.Raw | None:
        """Return the input, also if it is a payload; None if that can't be had. Then no attempt may begin.

        It may be had later, with another setting of this runner or once the store is restored. So the operation is
        handed back until then, or until its deadline.
        """
        operation = loaded.operation
        try:
            found = await self._documents.read(operation.id, loaded.action_input, operation.input_payload)
        except PayloadError as error:
            self._outage.failed(f"operation {operation.id}: {error}")
            return None
        if operation.input_payload is not None:
            self._outage.recovered()
        return found

    async def reload(self, loaded: LoadedOperation) -> LoadedOperation | None:
        """Return the operation with its newer events; None if this version can't fold them.

        Raises:
            JournalUnavailable: the journal could not be read.
        """
        try:
            events = await self._journal.events(loaded.operation.id, since=loaded.operation)
            operation = fold(loaded.operation, events) or loaded.operation
        except (FoldRefused, InvalidEvent) as refused:
            logger.warning("operation %s can't be folded by this version: %s", loaded.operation.id, refused)
            return None
        steps, waits = loaded.steps + step_records(events), loaded.waits + wait_events(events)
        return loaded._replace(operation=operation, steps=steps, waits=waits)

    def _verify_subject(self, loaded: LoadedOperation, operation_id: str) -> LoadedOperation:
        # Any client of the broker can publish on our subjects; a handler must get only requests for its own action.
        operation = loaded.operation
        if (operation.id, operation.kind) != (operation_id, self._spec.kind):
            raise FoldRefused(f"operation {operation.id} of {operation.kind} is stored under {self._spec.kind}")
        return loaded


def trigger_of(message: DeliveredMessage) -> Trigger:
    """Return what the decision table needs to know of a message.

    Raises:
        InvalidEvent: its subject is a wake-up's, but its body is not.
        InvalidName: its subject is no wake-up's.
    """
    if not subjects.is_wake(message.subject):
        return Trigger(ticket=message.sequence)
    is_timely = subjects.parse_wake_subject(message.subject).reason not in _UNTIMELY
    return Trigger(ticket=message.sequence, scheduled_by=scheduled_by(message.data), is_timely=is_timely)


def runs_elsewhere(seen: Operation, now: Operation, trigger: Trigger) -> bool:
    """Return True if an attempt with this ticket started after `seen` was read.

    Then another delivery of the same message runs the operation. Its lease did not run out, so this is not row 7.
    """
    return now.live is not None and now.live.ticket == trigger.ticket and now.live.number > seen.attempt


def _action_input(requested: RecordedEvent) -> msgspec.Raw | msgspec.UnsetType:
    if not isinstance(requested.data, Requested):
        raise FoldRefused(f"operation {requested.operation_id} does not begin with its request")
    return requested.data.input
