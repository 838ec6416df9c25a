"""What lies on an operation's subjects, event or not, and the event that ends the operation all the same (ADR 0014).

Callers: the journal's reads, and `opstream fail` through `opstream_journal.forced_end`. Pure.
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
    """What a stream holds."""

    sequence: int
    payload: bytes


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """All messages of one operation, looked through."""

    operation_id: str
    operation: Operation | None
    """What can be read of it; None if not even its request can."""
    passed_over: int
    """Messages that are no part of it."""
    message_count: int
    """All messages."""
    last_message: OperationMessage
    problem: FoldRefused | InvalidEvent | None
    """Why nothing can be decided upon it; None if all is well."""


def decode_events(messages: Sequence[OperationMessage]) -> list[RecordedEvent]:
    """The events among an operation's messages, in stream order: all of them, or, if the last one is a forced end that
    carries the hash of the message before it, those that are events.

    Raises:
        InvalidEvent: one of the messages is no event, and no forced end passes over it.
    """
    events, problem = _decode_leniently(messages)
    if problem is None or _ends_by_force(messages, events):
        return events
    raise problem


def events_from_request(operation_id: str, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
    """The events from the operation's request on; none if that is not among them."""
    for index, event in enumerate(events):
        if event.operation_id == operation_id and event.position == 1 and isinstance(event.data, Requested):
            return events[index:]
    return ()


def inspect_messages(operation_id: str, messages: Sequence[OperationMessage]) -> Inspection:
    """Look through all messages of an operation, of which there must be one at least, in stream order."""
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
    found: Inspection,
    error: OperationError,
    reason: str,
    *,
    id: str,  # noqa: A002 - the event's own word
    source: str,
    time: datetime,
) -> Event:
    """The `failed` event that ends the operation, whatever lies there: it counts all messages before it."""
    forced = ForcedEnd(
        sequence=found.last_message.sequence, passed_over=found.passed_over, reason=truncate_text(reason)
    )
    position = found.operation.position if found.operation else 0
    return Event(
        id=id,
        source=source,
        operation_id=found.operation_id,
        time=time,
        position=position + found.passed_over + 1,
        previous_hash=digest(found.last_message.payload),
        data=Failed(error=error, forced=forced),
    )


def _fold_inspected(operation_id: str, events: Sequence[RecordedEvent]) -> Operation | None:
    operation = fold(None, events_from_request(operation_id, events) if forced_end_of(events[-1]) else events)
    if operation is not None and operation.id != operation_id:
        raise FoldRefused(f"operation {operation.id} lies under {operation_id}")
    return operation


def _decode_leniently(messages: Sequence[OperationMessage]) -> tuple[list[RecordedEvent], InvalidEvent | None]:
    """Those that are events, and what is wrong with the first that is none."""
    events: list[RecordedEvent] = []
    problem: InvalidEvent | None = None
    for message in messages:
        try:
            events.append(decode_event(message.payload, message.sequence))
        except InvalidEvent as error:
            problem = problem or error
    return events, problem


def _ends_by_force(messages: Sequence[OperationMessage], events: Sequence[RecordedEvent]) -> bool:
    if len(messages) < 2 or not events or events[-1].sequence != messages[-1].sequence:
        return False
    end, before = events[-1], messages[-2]
    forced = forced_end_of(end)
    return forced is not None and forced.sequence == before.sequence and end.previous_hash == digest(before.payload)
