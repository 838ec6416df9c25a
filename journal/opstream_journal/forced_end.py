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
from opstream_schemas.operation.commands import ForceFail, cut_error, decide, failed_by_operator
from opstream_schemas.operation.fold import next_event
from opstream_schemas.operation.forced_end import Survey, forced_event, survey

from .command_handler import Carrier
from .errors import JournalUnavailable, VersionConflict
from .journal import Expected

_PAUSE: Final = (0.005, 0.05)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded."""

    event: Event
    sequence: int
    """Of the event, in the stream."""
    found: Survey
    """What lay there before."""


async def end(carrier: Carrier, operation_id: str, *, reason: str, is_forced: bool, budget: float) -> Ended | None:
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
        found = survey(operation_id, messages)
        kind = await _kind(carrier, found)
        if kind is None:
            return None
        event = _event(carrier, found, reason, is_forced=is_forced)
        left = until - carrier.monotonic()
        try:
            stored = await carrier.journal.append(kind, event, Expected(found.last.sequence), budget=left)
        except VersionConflict as conflict:
            if left <= 0:
                raise JournalUnavailable(f"{conflict}, again and again", maybe_stored=False) from conflict
            await asyncio.sleep(random.uniform(*_PAUSE))  # noqa: S311 - nothing depends on it being unforeseeable
        else:
            return Ended(event=event, sequence=stored.sequence, found=found)


async def _kind(carrier: Carrier, found: Survey) -> Kind | None:
    if found.operation is not None:
        return found.operation.kind
    if found.problem is None or not await _holds_on(carrier, found):
        return None
    last = await carrier.journal.last(found.operation_id)
    return subjects.parse_event_subject(last.subject).kind if last else None


async def _holds_on(carrier: Carrier, found: Survey) -> bool:
    """Whether there is something that nobody can decide upon, and not just a rest of which the beginning expired."""
    try:
        return bool(await carrier.journal.events(found.operation_id))
    except InvalidEvent:
        return True


def _event(carrier: Carrier, found: Survey, reason: str, *, is_forced: bool) -> Event:
    operation, error = found.operation, failed_by_operator(reason)
    if operation is not None and operation.is_terminal:
        raise OperationFinished(f"operation {operation.id} is {operation.status}")
    if found.problem is not None and not is_forced:
        raise found.problem
    made = {"id": carrier.new_id(), "source": carrier.source}
    if operation is None or found.problem is not None:
        return forced_event(found, cut_error(error), reason, **made, time=carrier.now())
    data = decide(operation, ForceFail(error=error))
    if data is None:
        raise RuntimeError("an end is always an event")
    return next_event(operation, data, **made, time=carrier.now())
