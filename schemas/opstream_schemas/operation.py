"""The operation: a pure fold over its events.

`evolve` is strict: it takes the next event of the same operation and nothing else, so whatever it returns can be
decided upon. `skip` is for readers only: it passes over a type that this code does not know and keeps count of it.
Neither knows a clock, a broker or an HTTP status.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from .errors import FoldRefused
from .events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    Event,
    EventData,
    Failed,
    Instant,
    OperationError,
    Progressed,
    RecordedEvent,
    Requested,
    Started,
    Succeeded,
    Trace,
)
from .names import Kind

FOLD_VERSION: Final = 1
"""Raised whenever the fold gives another result for the same events; snapshots of another version are not trusted."""


class Status(StrEnum):
    """The states of a status monitor (Azure guidelines, long-running operations)."""

    NOT_STARTED = "NotStarted"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


TERMINAL: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED})


class LiveAttempt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The attempt that owns the outcome."""

    number: int
    runner: str
    token: str
    ticket: int
    lease: float


class Waiting(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """No attempt is live; another follows."""

    ticket: int
    """Ticket of the attempt that ended."""
    counted: bool
    retry_at: Instant
    sequence: int
    """Stream sequence of the `attempt-failed` event, which a wake names as the one that armed it."""


class CancelWish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client's wish that the operation stops."""

    by: str = ""
    reason: str = ""


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The state of one operation after `position` events. Also, encoded as JSON, the value in the view."""

    id: str
    resource: str
    resource_id: str = ""
    action: str
    action_version: int
    request_hash: str
    caller: str = ""
    trace: Trace | None = None
    status: Status
    created_at: Instant
    deadline: Instant
    retention: float
    attempt: int = 0
    """Number of the last attempt that started; 0 before the first."""
    uncounted: int = 0
    """How many of them were handed back without using up one of `max_attempts`."""
    live: LiveAttempt | None = None
    waiting: Waiting | None = None
    attempt_error: OperationError | None = None
    """Why the last attempt that failed did so, until an outcome follows."""
    started_at: Instant | None = None
    finished_at: Instant | None = None
    percent_complete: float | None = None
    message: str = ""
    cancel: CancelWish | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: OperationError | None = None
    reason: str = ""
    skipped: int = 0
    """Events of unknown types that a reader passed over."""
    position: int
    stream_sequence: int
    last_hash: str
    fold_version: int

    @property
    def kind(self) -> Kind:
        """The resource and action."""
        return Kind(self.resource, self.action)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow any more."""
        return self.status in TERMINAL

    @property
    def attempts_used(self) -> int:
        """Attempts that count towards `max_attempts`."""
        return self.attempt - self.uncounted


def initial(event: RecordedEvent) -> Operation:
    """The operation after its first event.

    Raises:
        FoldRefused: the event is not a `requested` in position 1.
    """
    data = event.data
    if not isinstance(data, Requested) or event.position != 1 or event.previous_hash:
        raise FoldRefused(f"{_named(event)} can't begin an operation: only 'requested' in position 1 can")
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
    return msgspec.structs.replace(operation, **_changes(operation, event), **_cursor(event))


def skip(operation: Operation, event: RecordedEvent) -> Operation:
    """Pass over an event of an unknown type. For readers; whoever decides calls `evolve`, which refuses it.

    Raises:
        FoldRefused: the event is not the next one of this operation, or its type is known.
    """
    _check_next(operation, event)
    if event.data is not None:
        raise FoldRefused(f"{_named(event)} is of a known type and must be folded, not skipped")
    return msgspec.structs.replace(operation, skipped=operation.skipped + 1, **_cursor(event))


def read(operation: Operation | None, events: Iterable[RecordedEvent]) -> Operation | None:
    """Fold events as a reader does, skipping unknown types. None if there is neither operation nor event.

    Raises:
        FoldRefused: as `initial`, `evolve` and `skip`.
    """
    for event in events:
        if operation is None:
            operation = initial(event)
        elif event.data is None:
            operation = skip(operation, event)
        else:
            operation = evolve(operation, event)
    return operation


def fold(operation: Operation | None, events: Iterable[RecordedEvent]) -> Operation | None:
    """Fold events as whoever decides must: unknown types are refused.

    Raises:
        FoldRefused: as `initial` and `evolve`, and where `operation` came from a reader that had skipped something.
    """
    if operation is not None and operation.skipped:
        raise FoldRefused(f"operation {operation.id} holds {operation.skipped} events of unknown types")
    for event in events:
        operation = initial(event) if operation is None else evolve(operation, event)
    return operation


def next_event(operation: Operation, data: EventData, *, id: str, source: str, time: datetime) -> Event:  # noqa: A002
    """The event that would continue the operation. A re-decided event needs a new `id` (architecture.md)."""
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


def _check_next(operation: Operation, event: RecordedEvent) -> None:
    if event.operation_id != operation.id:
        raise FoldRefused(f"{_named(event)} belongs to operation {event.operation_id}, not {operation.id}")
    if event.position != operation.position + 1:
        raise FoldRefused(f"{_named(event)} can't follow position {operation.position}")
    if event.previous_hash != operation.last_hash:
        raise FoldRefused(f"{_named(event)} does not carry the hash of the event before it")
    if event.sequence <= operation.stream_sequence:
        raise FoldRefused(f"{_named(event)} lies before sequence {operation.stream_sequence}")
    if operation.is_terminal:
        raise FoldRefused(f"{_named(event)} follows a terminal event ({operation.status})")


def _cursor(event: RecordedEvent) -> dict[str, object]:
    return {"position": event.position, "stream_sequence": event.sequence, "last_hash": event.digest}


def _changes(operation: Operation, event: RecordedEvent) -> dict[str, object]:
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
            return {"status": Status.FAILED, "error": data.error, **ended}
        case Canceled():
            return {"status": Status.CANCELED, "reason": data.reason, **ended}
        case None:
            raise FoldRefused(f"{_named(event)} is of a type that this version does not know; update opstream")
        case _:
            raise FoldRefused(
                f"{_named(event)} can't happen to an operation that is {operation.status}, attempt {operation.attempt}"
            )


def _named(event: RecordedEvent) -> str:
    return f"event {event.type} (operation {event.operation_id}, position {event.position}, sequence {event.sequence})"
