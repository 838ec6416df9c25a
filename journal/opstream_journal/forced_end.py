"""Ending an operation from outside, also one whose events can't be folded (ADR 0014). Caller: `opstream fail`."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import msgspec

from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent, OperationFinished
from opstream_schemas.events import Event
from opstream_schemas.names import Kind
from opstream_schemas.operation.commands import ForceFail, decide, operator_error, truncate_error
from opstream_schemas.operation.fold import next_event
from opstream_schemas.operation.forced_end import Inspection, forced_end_event, inspect_messages

from .command_handler import CommandHandler
from .errors import JournalUnavailable, VersionConflict
from .journal import ExpectedVersion

_RETRY_DELAY: Final = (0.005, 0.05)


class ForcedFailure(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded."""

    event: Event
    sequence: int
    """Of the event, in the stream."""
    found: Inspection
    """What lay there before."""


async def force_fail(
    carrier: CommandHandler, operation_id: str, *, reason: str, is_forced: bool, budget: float
) -> ForcedFailure | None:
    """Record that an operation has failed because an operator said so; None if there is no such operation (any more).

    Everything on its subjects is read, not only what positions promise: there may be anything.

    Args:
        carrier: who, and with what.
        operation_id: which.
        reason: for the client and the history.
        is_forced: also if its events can't be folded. What can't is passed over then; where not even the request can
            be read, nothing is left to be seen, and runners let go of it.
        budget: seconds to keep trying.

    Raises:
        OperationFinished: it has ended.
        FoldRefused, InvalidEvent: its events can't be folded, and `is_forced` is not set.
        JournalUnavailable: not recorded within the budget.
        JournalError: the broker refused.
    """
    until = carrier.monotonic() + budget
    while True:
        messages = await carrier.journal.messages(operation_id)
        if not messages:
            return None
        found = inspect_messages(operation_id, messages)
        kind = await _kind_of(carrier, found)
        if kind is None:
            return None
        event = _failure_event(carrier, found, reason, is_forced=is_forced)
        left = until - carrier.monotonic()
        try:
            stored = await carrier.journal.append(
                kind, event, ExpectedVersion(found.last_message.sequence), budget=left
            )
        except VersionConflict as conflict:
            if left <= 0:
                raise JournalUnavailable(f"{conflict}, again and again", maybe_stored=False) from conflict
            await asyncio.sleep(random.uniform(*_RETRY_DELAY))  # noqa: S311 - nothing depends on it being unforeseeable
        else:
            return ForcedFailure(event=event, sequence=stored.sequence, found=found)


async def _kind_of(carrier: CommandHandler, found: Inspection) -> Kind | None:
    if found.operation is not None:
        return found.operation.kind
    if found.problem is None or not await _is_undecidable(carrier, found):
        return None
    last = await carrier.journal.last_message(found.operation_id)
    return subjects.parse_event_subject(last.subject).kind if last else None


async def _is_undecidable(carrier: CommandHandler, found: Inspection) -> bool:
    """Whether there is something that nobody can decide upon, and not just a rest of which the beginning expired."""
    try:
        return bool(await carrier.journal.events(found.operation_id))
    except InvalidEvent:
        return True


def _failure_event(carrier: CommandHandler, found: Inspection, reason: str, *, is_forced: bool) -> Event:
    operation, error = found.operation, operator_error(reason)
    if operation is not None and operation.is_terminal:
        raise OperationFinished(f"operation {operation.id} is {operation.status}")
    if found.problem is not None and not is_forced:
        raise found.problem
    made = {"id": carrier.new_id(), "source": carrier.source}
    if operation is None or found.problem is not None:
        return forced_end_event(found, truncate_error(error), reason, **made, time=carrier.now())
    data = decide(operation, ForceFail(error=error))
    if data is None:
        raise RuntimeError("an end is always an event")
    return next_event(operation, data, **made, time=carrier.now())
