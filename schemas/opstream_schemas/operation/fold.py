"""The fold: the events of an operation to its state. Pure.

`fold` is for code that decides. It refuses an event of an unknown type, since that event may forbid what is about to be
decided. `fold_for_reader` is for code that shows an operation. It skips such events, and counts them.

A forced end (ADR 0014) is the only event that may follow messages which are not events of the operation.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from opstream_schemas.children.lineage import ChildGroup
from opstream_schemas.errors import FoldRefused
from opstream_schemas.event_types.claims import Attachment
from opstream_schemas.events import (
    Attached,
    AttemptFailed,
    Canceled,
    CancelRequested,
    CleanUpBegun,
    Event,
    EventData,
    Failed,
    ForcedEnd,
    Progressed,
    RecordedEvent,
    Requested,
    Signaled,
    Started,
    StepFailed,
    StepStarted,
    StepSucceeded,
    Succeeded,
    WaitBegun,
)
from opstream_schemas.names import Kind
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.signals.signal_book import NO_SIGNALS, SignalBook, is_complete
from opstream_schemas.subjects import event_subject
from opstream_schemas.text import format_count

from .state import (
    CONFIDENTIAL_FOLD_VERSION,
    STEPS_FOLD_VERSION,
    CancelWish,
    CurrentWait,
    LiveAttempt,
    Operation,
    Status,
    Waiting,
    first_version,
)


def initial(event: RecordedEvent) -> Operation:
    """Return the operation after its first event.

    Raises:
        FoldRefused: the event is not a `requested` in position 1.
    """
    data = event.data
    if not isinstance(data, Requested) or event.position != 1 or event.previous_hash:
        raise FoldRefused(f"{_described(event)} can't begin an operation: only 'requested' in position 1 can")
    _check_subject(event, event.operation_id, Kind(data.resource, data.action))
    return Operation(
        id=event.operation_id,
        resource=data.resource,
        resource_id=data.resource_id,
        action=data.action,
        action_version=data.action_version,
        request_hash=data.request_hash,
        caller=data.caller,
        tenant=data.tenant,
        own_id=data.own_id,
        trace=data.trace,
        labels=data.labels,
        retry_of=data.retry_of,
        priority=data.priority,
        parent=data.parent,
        confidential=data.confidential,
        status=Status.NOT_STARTED,
        created_at=event.time,
        start_at=data.start_at,
        deadline=data.deadline,
        retention=data.retention,
        retention_failed=data.retention_failed,
        retention_canceled=data.retention_canceled,
        hold=data.hold,
        input_payload=data.input_payload,
        uploads=data.uploads,
        position=1,
        stream_sequence=event.sequence,
        last_hash=event.digest,
        fold_version=first_version(data),
    )


def evolve(operation: Operation, event: RecordedEvent) -> Operation:
    """Return the operation after its next event.

    Raises:
        FoldRefused: the event is not the next one of this operation, its type is unknown, or it can't happen in this
            state.
    """
    _check_next(operation, event)
    evolved = msgspec.structs.replace(operation, **_state_changes(operation, event), **_position_changes(event))
    return _with_own_version(evolved)


def skip_unknown(operation: Operation, event: RecordedEvent) -> Operation:
    """Return the operation after an event of an unknown type, which is counted. For readers only.

    Raises:
        FoldRefused: the event is not the next one of this operation, or its type is known.
    """
    _check_next(operation, event)
    if event.data is not None:
        raise FoldRefused(f"{_described(event)} is of a known type and must be folded, not skipped")
    skipped = msgspec.structs.replace(
        operation, skipped=operation.skipped + 1, fold_version=STEPS_FOLD_VERSION, **_position_changes(event)
    )
    return _with_own_version(skipped)


def fold_for_reader(operation: Operation | None, events: Iterable[RecordedEvent]) -> Operation | None:
    """Fold events as a reader does: skip unknown types. Return None if there is neither an operation nor an event.

    If the last event is a forced end, events before it that don't continue the operation are passed over.

    Args:
        operation: the state that the events continue; None to begin with the first event.
        events: the events, in stream order.

    Raises:
        FoldRefused: as `initial`, `evolve` and `skip_unknown`.
    """
    events = tuple(events)
    if events and (forced := forced_end_of(events[-1])) is not None:
        return _fold_to_forced_end(operation, events, forced)
    for event in events:
        operation = _fold_one_for_reader(operation, event)
    return operation


def fold_damaged(operation: Operation | None, events: Iterable[RecordedEvent]) -> tuple[Operation | None, int]:
    """Fold as a reader does, but pass over events that don't continue the operation. Return also their number.

    A later event that does continue it is folded: its position and hash prove that nothing is missing.
    """
    passed_over = 0
    for event in events:
        try:
            operation = _fold_one_for_reader(operation, event)
        except FoldRefused:
            passed_over += 1
    return operation, passed_over


def fold(operation: Operation | None, events: Iterable[RecordedEvent]) -> Operation | None:
    """Fold events as a decider must: refuse unknown types, unless a forced end follows them.

    Raises:
        FoldRefused: as `initial` and `evolve`, and if `operation` is open and a reader has skipped an event of it.
    """
    events = tuple(events)
    if events and forced_end_of(events[-1]) is not None:
        return fold_for_reader(operation, events)
    if operation is not None and operation.skipped and not operation.is_terminal:
        raise FoldRefused(
            f"operation {operation.id} has {format_count(operation.skipped, 'event')} of unknown type; update opstream"
        )
    for event in events:
        operation = initial(event) if operation is None else evolve(operation, event)
    return operation


def forced_end_of(event: RecordedEvent) -> ForcedEnd | None:
    """Return the forced end that the event records, or None if it is another event."""
    return event.data.forced if isinstance(event.data, Failed) else None


def next_event(operation: Operation, data: EventData, *, id: str, source: str, time: datetime) -> Event:  # noqa: A002
    """Return the next event of the operation. One that is decided again needs a new `id` (docs/nats.md, Appends)."""
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
    """Return the event that begins an operation."""
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
        # All events were read, from the first. The position is taken from the end, because the version that recorded
        # the end may have been able to fold more or fewer of them. The message right before the end need not be an
        # event; `forced_end.decode_events` has compared its hash.
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
    _check_subject(event, operation.id, operation.kind)
    if event.previous_hash != operation.last_hash:
        raise FoldRefused(f"{_described(event)} does not carry the hash of the event before it")
    if event.sequence <= operation.stream_sequence:
        raise FoldRefused(f"{_described(event)} is stored before sequence {operation.stream_sequence}")
    if forced is not None and forced.sequence != operation.stream_sequence:
        raise FoldRefused(f"{_described(event)} follows sequence {forced.sequence}, not {operation.stream_sequence}")
    if operation.is_terminal:
        raise FoldRefused(f"{_described(event)} follows a terminal event ({operation.status})")


def _check_subject(event: RecordedEvent, operation_id: str, kind: Kind) -> None:
    """Check that an event lies where only what may write events of its type, for its action, can store it.

    The broker grants by subjects, and knows nothing of what a message says (docs/broker-access.md).

    Raises:
        FoldRefused: it lies under another operation, action or event.
    """
    if not event.subject:
        return
    name = event.subject.rpartition(".")[2] if event.data is None else event.data.name
    if event.subject != event_subject(operation_id, kind, name):
        raise FoldRefused(f"{_described(event)} is stored on {event.subject}, which is not a subject of {kind} for it")


def _with_own_version(operation: Operation) -> Operation:
    """Return a confidential operation with the fold version of such; any other as it is."""
    if not operation.confidential or operation.fold_version == CONFIDENTIAL_FOLD_VERSION:
        return operation
    return msgspec.structs.replace(operation, fold_version=CONFIDENTIAL_FOLD_VERSION)


def _position_changes(event: RecordedEvent) -> dict[str, object]:
    return {"position": event.position, "stream_sequence": event.sequence, "last_hash": event.digest}


def _state_changes(operation: Operation, event: RecordedEvent) -> dict[str, object]:
    data = event.data
    live = operation.live
    ended = {"live": None, "waiting": None, "wait": None, "attempt_error": None, "finished_at": event.time}
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
                "wait": None,
                "started_at": operation.started_at or event.time,
                "percent_complete": None,
                "message": "",
                "cleans_up": data.clean_up,
                **({"fold_version": STEPS_FOLD_VERSION} if data.clean_up else {}),
                **_closed_wait(operation),
            }
        case Progressed() if live is not None:
            return {"percent_complete": data.percent, "message": data.message}
        case StepStarted() | StepSucceeded() | StepFailed() if live is not None and data.attempt == live.number:
            return {"children": _children_after(operation, data), "fold_version": STEPS_FOLD_VERSION}
        case WaitBegun() if live is not None and data.attempt == live.number:
            until = operation.deadline if data.until is None else min(data.until, operation.deadline)
            return {
                "live": None,
                "waiting": Waiting(ticket=live.ticket, counted=False, retry_at=until, sequence=event.sequence),
                **_begun_wait(operation, data, event.time),
                "let_go": operation.let_go if data.hold else event.sequence,
                "attempt_error": None,
                "uncounted": operation.uncounted + 1,
                "fold_version": STEPS_FOLD_VERSION,
            }
        case Attached() if live is not None and data.attempt == live.number:
            added = Attachment(file_name=data.file_name, media_type=data.media_type, payload=data.payload)
            kept = {one.file_name: one for one in operation.attachments} | {added.file_name: added}
            return {"attachments": tuple(kept.values()), "fold_version": STEPS_FOLD_VERSION}
        case AttemptFailed() if live is not None and data.attempt == live.number:
            waiting = Waiting(ticket=live.ticket, counted=data.counted, retry_at=data.retry_at, sequence=event.sequence)
            return {
                "live": None,
                "waiting": waiting,
                "attempt_error": data.error,
                "uncounted": operation.uncounted + (not data.counted),
            }
        case Signaled():
            book = (operation.signals or NO_SIGNALS).with_signal(data, event.position)
            wait = operation.wait
            if wait is not None and wait.ready_at is None:
                wait = _with_ready(wait, book, operation.caller, event.time)
            return {"signals": book, "wait": wait, "fold_version": STEPS_FOLD_VERSION}
        case CancelRequested() if operation.cancel is None:
            return {"cancel": CancelWish(by=data.by, reason=data.reason), **_cut_short(operation, event.time)}
        case CleanUpBegun() if live is not None and data.attempt == live.number and operation.cancel is not None:
            return {"fold_version": STEPS_FOLD_VERSION}
        case Succeeded(result_payload=PayloadRef() as payload) if live is not None:
            claimed = {"result_payload": payload, "fold_version": STEPS_FOLD_VERSION}
            return {"status": Status.SUCCEEDED, **claimed, **ended}
        case Succeeded(result=msgspec.Raw() as result) if live is not None:
            return {"status": Status.SUCCEEDED, "result": result.copy(), **ended}
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


def _begun_wait(operation: Operation, data: WaitBegun, now: datetime) -> dict[str, object]:
    wait = CurrentWait(name=data.wait, key=data.key, hold=data.hold, child=data.child)
    if data.signal is None:
        return {"wait": wait}
    wait = msgspec.structs.replace(wait, signal=msgspec.structs.replace(data.signal, schema=data.signal.schema.copy()))
    book = (operation.signals or NO_SIGNALS).without(one.position for one in data.refused)
    return {
        "wait": _with_ready(wait, book, operation.caller, now),
        "signals": book if operation.signals is not None else None,
    }


def _with_ready(wait: CurrentWait, book: SignalBook, requester: str, now: datetime) -> CurrentWait:
    """Return a wait with the time since when it has its signals, if it has them."""
    is_ready = wait.signal is not None and is_complete(wait.name, wait.signal, book, requester)
    return msgspec.structs.replace(wait, ready_at=now) if is_ready else wait


def _cut_short(operation: Operation, now: datetime) -> dict[str, object]:
    """End what a canceled operation waits for: an attempt may begin to clean up, and a later signal is too late."""
    waiting, wait, book = operation.waiting, operation.wait, operation.signals
    if waiting is None:
        return {}
    if wait is not None and wait.signal is not None:
        book = (book or NO_SIGNALS).with_closed(wait.name)
    return {
        "waiting": msgspec.structs.replace(waiting, retry_at=min(now, waiting.retry_at), is_cut=True),
        "signals": book,
    }


def _closed_wait(operation: Operation) -> dict[str, object]:
    """Close the wait that an attempt ends by starting: what is there is its result. One that was cut is closed."""
    wait = operation.wait
    if wait is None or wait.signal is None or operation.is_cut_short:
        return {}
    return {"signals": (operation.signals or NO_SIGNALS).with_closed(wait.name)}


def _children_after(operation: Operation, data: StepStarted | StepSucceeded | StepFailed) -> tuple[ChildGroup, ...]:
    if not isinstance(data, StepStarted) or data.children is None:
        return operation.children
    group = ChildGroup(name=data.step, key=data.key, count=data.children or 1, is_alone=not data.children)
    return operation.children if group in operation.children else (*operation.children, group)


def _described(event: RecordedEvent) -> str:
    return f"event {event.type} (operation {event.operation_id}, position {event.position}, sequence {event.sequence})"
