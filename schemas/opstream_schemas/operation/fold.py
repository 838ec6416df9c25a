"""The operation: a pure fold over its events.

`evolve` is strict: it takes the next event of the same operation and nothing else, so whatever it returns can be
decided upon. `skip` is for readers only: it passes over a type that this code does not know and keeps count of it.
An end that an operator forced (ADR 0014) is the one event before which anything may lie. Nothing here knows a clock, a
broker or an HTTP status.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from opstream_schemas.errors import FoldRefused
from opstream_schemas.events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    Event,
    EventData,
    Failed,
    ForcedEnd,
    Progressed,
    RecordedEvent,
    Requested,
    Started,
    Succeeded,
)

from .state import FOLD_VERSION, CancelWish, LiveAttempt, Operation, Status, Waiting


def initial(event: RecordedEvent) -> Operation:
    """The operation after its first event.

    Raises:
        FoldRefused: the event is not a `requested` in position 1.
    """
    data = event.data
    if not isinstance(data, Requested) or event.position != 1 or event.previous_hash:
        raise FoldRefused(f"{_described(event)} can't begin an operation: only 'requested' in position 1 can")
    return Operation(
        id=event.operation_id,
        resource=data.resource,
        resource_id=data.resource_id,
        action=data.action,
        action_version=data.action_version,
        request_hash=data.request_hash,
        caller=data.caller,
        trace=data.trace,
        status=Status.NOT_STARTED,
        created_at=event.time,
        deadline=data.deadline,
        retention=data.retention,
        retention_failed=data.retention_failed,
        retention_canceled=data.retention_canceled,
        hold=data.hold,
        position=1,
        stream_sequence=event.sequence,
        last_hash=event.digest,
        fold_version=FOLD_VERSION,
    )


def evolve(operation: Operation, event: RecordedEvent) -> Operation:
    """The operation after one more event.

    Raises:
        FoldRefused: the event is not the next one of this operation, its type is unknown, or no such event can
            follow in this state.
    """
    _check_next(operation, event)
    return msgspec.structs.replace(operation, **_state_changes(operation, event), **_position_changes(event))


def skip_unknown(operation: Operation, event: RecordedEvent) -> Operation:
    """Pass over an event of an unknown type. For readers; whoever decides calls `evolve`, which refuses it.

    Raises:
        FoldRefused: the event is not the next one of this operation, or its type is known.
    """
    _check_next(operation, event)
    if event.data is not None:
        raise FoldRefused(f"{_described(event)} is of a known type and must be folded, not skipped")
    return msgspec.structs.replace(operation, skipped=operation.skipped + 1, **_position_changes(event))


def fold_for_reader(operation: Operation | None, events: Iterable[RecordedEvent]) -> Operation | None:
    """Fold events as a reader does, skipping unknown types. None if there is neither operation nor event.

    If the last one is a forced end, the operation is what can be read of those before it, ended: whatever does not
    continue it is passed over.

    Raises:
        FoldRefused: as `initial`, `evolve` and `skip`.
    """
    events = tuple(events)
    if events and (forced := forced_end_of(events[-1])) is not None:
        return _fold_to_forced_end(operation, events, forced)
    for event in events:
        operation = _fold_one_for_reader(operation, event)
    return operation


def fold_damaged(operation: Operation | None, events: Iterable[RecordedEvent]) -> tuple[Operation | None, int]:
    """Fold events as a reader does and pass over each that does not continue the operation; also how many those were.

    A later one that does continue it is folded all the same: position and hash prove that nothing is missing.
    """
    passed_over = 0
    for event in events:
        try:
            operation = _fold_one_for_reader(operation, event)
        except FoldRefused:
            passed_over += 1
    return operation, passed_over


def fold(operation: Operation | None, events: Iterable[RecordedEvent]) -> Operation | None:
    """Fold events as whoever decides must: unknown types are refused, unless a forced end is behind them.

    Raises:
        FoldRefused: as `initial` and `evolve`, and where `operation` came from a reader that had skipped something and
            is not terminal.
    """
    events = tuple(events)
    if events and forced_end_of(events[-1]) is not None:
        return fold_for_reader(operation, events)
    if operation is not None and operation.skipped and not operation.is_terminal:
        raise FoldRefused(f"operation {operation.id} holds {operation.skipped} events of unknown types")
    for event in events:
        operation = initial(event) if operation is None else evolve(operation, event)
    return operation


def forced_end_of(event: RecordedEvent) -> ForcedEnd | None:
    """What the event says of a forced end, if it is one."""
    return event.data.forced if isinstance(event.data, Failed) else None


def next_event(operation: Operation, data: EventData, *, id: str, source: str, time: datetime) -> Event:  # noqa: A002
    """The event that would continue the operation. A re-decided event needs a new `id` (docs/nats.md, Appends)."""
    return Event(
        id=id,
        source=source,
        operation_id=operation.id,
        time=time,
        position=operation.position + 1,
        previous_hash=operation.last_hash,
        data=data,
    )


def first_event(operation_id: str, data: Requested, *, id: str, source: str, time: datetime) -> Event:  # noqa: A002
    """The event that begins an operation."""
    return Event(id=id, source=source, operation_id=operation_id, time=time, position=1, previous_hash="", data=data)


def _fold_one_for_reader(operation: Operation | None, event: RecordedEvent) -> Operation:
    if operation is None:
        return initial(event)
    return skip_unknown(operation, event) if event.data is None else evolve(operation, event)


def _fold_to_forced_end(operation: Operation | None, events: tuple[RecordedEvent, ...], forced: ForcedEnd) -> Operation:
    *before, end = events
    kept, _ = fold_damaged(operation, before)
    if kept is None:
        raise FoldRefused(f"{_described(end)} ends an operation that can't be read")
    sequence, last_hash = kept.stream_sequence, kept.last_hash
    if before:
        sequence, last_hash = before[-1].sequence, before[-1].digest
    if operation is None:
        # These are all events that there are, so the end counts whatever it passed over: another version may read more
        # or less of it than the operator's did. What lay right before it may have been no event; whoever read the
        # messages has compared its hash then (`survey.events_of`).
        kept = msgspec.structs.replace(kept, position=end.position - forced.passed_over - 1)
        if sequence < forced.sequence:
            sequence, last_hash = forced.sequence, end.previous_hash
    return evolve(msgspec.structs.replace(kept, stream_sequence=sequence, last_hash=last_hash), end)


def _check_next(operation: Operation, event: RecordedEvent) -> None:
    forced = forced_end_of(event)
    if event.operation_id != operation.id:
        raise FoldRefused(f"{_described(event)} belongs to operation {event.operation_id}, not {operation.id}")
    if event.position != operation.position + 1 + (forced.passed_over if forced else 0):
        raise FoldRefused(f"{_described(event)} can't follow position {operation.position}")
    if event.previous_hash != operation.last_hash:
        raise FoldRefused(f"{_described(event)} does not carry the hash of the event before it")
    if event.sequence <= operation.stream_sequence:
        raise FoldRefused(f"{_described(event)} lies before sequence {operation.stream_sequence}")
    if forced is not None and forced.sequence != operation.stream_sequence:
        raise FoldRefused(f"{_described(event)} follows sequence {forced.sequence}, not {operation.stream_sequence}")
    if operation.is_terminal:
        raise FoldRefused(f"{_described(event)} follows a terminal event ({operation.status})")


def _position_changes(event: RecordedEvent) -> dict[str, object]:
    return {"position": event.position, "stream_sequence": event.sequence, "last_hash": event.digest}


def _state_changes(operation: Operation, event: RecordedEvent) -> dict[str, object]:
    data = event.data
    live = operation.live
    ended = {"live": None, "waiting": None, "attempt_error": None, "finished_at": event.time}
    match data:
        case Started() if data.attempt == operation.attempt + 1:
            return {
                "status": Status.RUNNING,
                "attempt": data.attempt,
                "live": LiveAttempt(
                    number=data.attempt,
                    runner=data.runner,
                    token=data.token,
                    ticket=data.ticket,
                    lease=data.lease,
                ),
                "waiting": None,
                "started_at": operation.started_at or event.time,
                "percent_complete": None,
                "message": "",
            }
        case Progressed() if live is not None:
            return {"percent_complete": data.percent, "message": data.message}
        case AttemptFailed() if live is not None and data.attempt == live.number:
            waiting = Waiting(ticket=live.ticket, counted=data.counted, retry_at=data.retry_at, sequence=event.sequence)
            return {
                "live": None,
                "waiting": waiting,
                "attempt_error": data.error,
                "uncounted": operation.uncounted + (not data.counted),
            }
        case CancelRequested() if operation.cancel is None:
            return {"cancel": CancelWish(by=data.by, reason=data.reason)}
        case Succeeded() if live is not None:
            return {"status": Status.SUCCEEDED, "result": data.result.copy(), **ended}
        case Failed():
            passed_over = data.forced.passed_over if data.forced else 0
            skipped = operation.skipped + passed_over
            return {"status": Status.FAILED, "error": data.error, "skipped": skipped, **ended}
        case Canceled():
            return {"status": Status.CANCELED, "reason": data.reason, **ended}
        case None:
            raise FoldRefused(f"{_described(event)} is of a type that this version does not know; update opstream")
        case _:
            raise FoldRefused(
                f"{_described(event)} can't happen to an operation that is {operation.status}, "
                f"attempt {operation.attempt}"
            )


def _described(event: RecordedEvent) -> str:
    return f"event {event.type} (operation {event.operation_id}, position {event.position}, sequence {event.sequence})"
