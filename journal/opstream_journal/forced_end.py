"""An operator's end of an operation, also of one whose events can't be folded (docs/adr/0014)."""

from __future__ import annotations

import msgspec

from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent, OperationFinished
from opstream_schemas.events import Event
from opstream_schemas.names import Kind
from opstream_schemas.operation.commands import FailOperation, decide, operator_error, truncate_error
from opstream_schemas.operation.fold import next_event
from opstream_schemas.operation.forced_end import Inspection, forced_end_event, inspect_messages

from .command_handler import CommandHandler, Proposal
from .journal import ExpectedVersion


class OperatorFailure(msgspec.Struct, frozen=True, kw_only=True):
    """The event that was recorded."""

    event: Event
    sequence: int
    """Stream sequence of the event."""
    found: Inspection
    """What was on the operation's subjects before."""


async def fail_by_operator(
    handler: CommandHandler, operation_id: str, *, reason: str, is_forced: bool, budget: float
) -> OperatorFailure | None:
    """Record that an operation has failed because an operator said so.

    Reads everything on the operation's subjects. Positions can't be trusted here: there may be anything.

    Args:
        handler: appends the event.
        operation_id: the operation.
        reason: for the client and the history.
        is_forced: whether to end it also if its events can't be folded; the end then passes over those that can't. If
            not even the request can be read, the API answers that there is no such operation, and runners acknowledge
            its message.
        budget: seconds to keep trying.

    Returns:
        What was recorded; None if there is no such operation, or not any more.

    Raises:
        OperationFinished: it has ended.
        FoldRefused, InvalidEvent: its events can't be folded, and `is_forced` is not set.
        JournalUnavailable: not stored within the budget.
        JournalError: the broker refused.
    """
    found: Inspection | None = None
    proposal: Proposal | None = None

    async def propose() -> Proposal | None:
        nonlocal found, proposal
        messages = await handler.journal.messages(operation_id)
        if not messages:
            return None
        found = inspect_messages(operation_id, messages)
        kind = await _kind_of(handler, found)
        if kind is None:
            return None
        event = _failure_event(handler, found, reason, is_forced=is_forced)
        proposal = Proposal(kind=kind, event=event, expected=ExpectedVersion(found.last_message.sequence))
        return proposal

    stored = await handler.record(propose, budget=budget)
    if stored is None or found is None or proposal is None:
        return None
    return OperatorFailure(event=proposal.event, sequence=stored.sequence, found=found)


async def _kind_of(handler: CommandHandler, found: Inspection) -> Kind | None:
    if found.operation is not None:
        return found.operation.kind
    if found.problem is None or not await _is_undecidable(handler, found):
        return None
    last = await handler.journal.last_message(found.operation_id)
    return subjects.parse_event_subject(last.subject).kind if last else None


async def _is_undecidable(handler: CommandHandler, found: Inspection) -> bool:
    """Return True if there are messages that can't be decided by, and not just a rest whose beginning expired."""
    try:
        return bool(await handler.journal.events(found.operation_id))
    except InvalidEvent:
        return True


def _failure_event(handler: CommandHandler, found: Inspection, reason: str, *, is_forced: bool) -> Event:
    operation, error = found.operation, operator_error(reason)
    if operation is not None and operation.is_terminal:
        raise OperationFinished(f"operation {operation.id} is {operation.status}")
    if found.problem is not None and not is_forced:
        raise found.problem
    made = {"id": handler.new_id(), "source": handler.source}
    if operation is None or found.problem is not None:
        return forced_end_event(found, truncate_error(error), reason, **made, time=handler.now())
    data = decide(operation, FailOperation(error=error))
    if data is None:
        raise RuntimeError("an end is always an event")
    return next_event(operation, data, **made, time=handler.now())
