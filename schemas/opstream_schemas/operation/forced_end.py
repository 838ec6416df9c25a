"""Forced end of an operation whose messages can't be folded (ADR 0014). Pure.

Messages that are not events, or don't continue the operation, block it: deciders refuse it. `inspect_messages` finds
them, and `forced_end_event` is the `failed` event that passes over them. `decode_events` reads such an operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.events import (
    Event,
    Failed,
    ForcedEnd,
    OperationError,
    RecordedEvent,
    Requested,
    decode_event,
    digest,
)
from opstream_schemas.text import truncate_text

from .fold import fold, fold_damaged, forced_end_of
from .state import Operation


class OperationMessage(NamedTuple):
    """A message on an operation's subjects, as it is stored."""

    sequence: int
    payload: bytes
    subject: str = ""
    """Empty for a copy in the archive."""


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in all messages of one operation."""

    operation_id: str
    operation: Operation | None
    """What could be folded; None if even the request could not."""
    passed_over: int
    """Number of messages that are not events of the operation, or don't continue it."""
    message_count: int
    """Number of all messages."""
    last_message: OperationMessage
    problem: FoldRefused | InvalidEvent | None
    """Why deciders refuse the operation; None if they don't."""


def decode_events(messages: Sequence[OperationMessage]) -> list[RecordedEvent]:
    """Decode the messages of an operation, in stream order.

    If the last message is a forced end that carries the hash of the message before it, messages that are not events are
    left out.

    Raises:
        InvalidEvent: a message is not an event, and no forced end passes over it.
    """
    events, problem = _decode_leniently(messages)
    if problem is None or _ends_by_force(messages, events):
        return events
    raise problem


def events_from_request(operation_id: str, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
    """Return the events from the operation's request on; no event if the request is not among them."""
    for index, event in enumerate(events):
        if event.operation_id == operation_id and event.position == 1 and isinstance(event.data, Requested):
            return events[index:]
    return ()


def inspect_messages(operation_id: str, messages: Sequence[OperationMessage]) -> Inspection:
    """Inspect all messages of an operation, in stream order; there must be at least one."""
    problem: FoldRefused | InvalidEvent | None = None
    try:
        operation, passed_over = _fold_inspected(operation_id, decode_events(messages)), 0
    except (FoldRefused, InvalidEvent) as error:
        problem = error
        own = events_from_request(operation_id, _decode_leniently(messages)[0])
        operation, refused = fold_damaged(None, own)
        passed_over = len(messages) - len(own) + refused
    return Inspection(
        operation_id=operation_id,
        operation=operation,
        passed_over=passed_over,
        message_count=len(messages),
        last_message=messages[-1],
        problem=problem,
    )


def forced_end_event(
    inspection: Inspection,
    error: OperationError,
    reason: str,
    *,
    id: str,  # noqa: A002 - the event's own word
    source: str,
    time: datetime,
) -> Event:
    """Return the `failed` event that ends the operation. Its position counts all messages before it."""
    forced = ForcedEnd(
        sequence=inspection.last_message.sequence, passed_over=inspection.passed_over, reason=truncate_text(reason)
    )
    position = inspection.operation.position if inspection.operation else 0
    return Event(
        id=id,
        source=source,
        operation_id=inspection.operation_id,
        time=time,
        position=position + inspection.passed_over + 1,
        previous_hash=digest(inspection.last_message.payload),
        data=Failed(error=error, forced=forced),
    )


def _fold_inspected(operation_id: str, events: Sequence[RecordedEvent]) -> Operation | None:
    operation = fold(None, events_from_request(operation_id, events) if forced_end_of(events[-1]) else events)
    if operation is not None and operation.id != operation_id:
        raise FoldRefused(f"the events of operation {operation.id} are stored on the subjects of {operation_id}")
    return operation


def _decode_leniently(messages: Sequence[OperationMessage]) -> tuple[list[RecordedEvent], InvalidEvent | None]:
    """Return the messages that are events, and the error of the first one that is not."""
    events: list[RecordedEvent] = []
    problem: InvalidEvent | None = None
    for message in messages:
        try:
            events.append(decode_event(message.payload, message.sequence, message.subject))
        except InvalidEvent as error:
            problem = problem or error
    return events, problem


def _ends_by_force(messages: Sequence[OperationMessage], events: Sequence[RecordedEvent]) -> bool:
    if len(messages) < 2 or not events or events[-1].sequence != messages[-1].sequence:
        return False
    end, before = events[-1], messages[-2]
    forced = forced_end_of(end)
    return forced is not None and forced.sequence == before.sequence and end.previous_hash == digest(before.payload)
