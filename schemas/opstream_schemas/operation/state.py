"""The state of an operation: what the fold (`fold.py`) returns, and, as JSON, the value in the snapshot store."""

from __future__ import annotations

import math
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from opstream_schemas.children.lineage import ChildGroup
from opstream_schemas.event_types.claims import Attachment
from opstream_schemas.event_types.erasure import Erasure
from opstream_schemas.events import ChildWait, Instant, OperationError, ParentRef, Requested, SignalWait, Trace
from opstream_schemas.names import Kind
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.signals.signal_book import NO_SIGNALS, SignalBook
from opstream_schemas.signals.signal_decision import SignalReceiver

from .priority import QUEUED_PRIORITIES

FOLD_VERSION: Final = 2
"""Raise it when the fold returns another result for the same events. Snapshots of another version are not used."""
STEPS_FOLD_VERSION: Final = 3
"""That of an operation with steps, waits, signals, payloads or a parent, or with events that this version has skipped.
So only snapshots of such operations are folded again where another release wrote or reads them."""
CONFIDENTIAL_FOLD_VERSION: Final = 4
"""That of a confidential operation, so that a release which would show its sealed values as they are uses no snapshot
of it."""


class Status(StrEnum):
    """The states of a status monitor (Azure REST guidelines, long-running operations)."""

    NOT_STARTED = "NotStarted"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


TERMINAL_STATUSES: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED})


class LiveAttempt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The attempt that is running and alone may record the outcome."""

    number: int
    runner: str
    token: str
    ticket: int
    lease: float


class Waiting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """No attempt is live; the next one starts at `retry_at` or later, or once the signal is there."""

    ticket: int
    """Ticket of the attempt that ended: stream sequence of the message that caused it."""
    counted: bool
    retry_at: Instant
    sequence: int
    """Stream sequence of the `attempt-failed` or `waiting` event. The wake-ups that it causes carry this number."""
    is_cut: bool = False
    """True if a cancel request has ended it: then `retry_at` is the time of that."""


class CurrentWait(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What the action waits for; `Waiting` says until when."""

    name: str
    key: str = ""
    hold: bool = False
    """True if the operation keeps its exclusive resource meanwhile."""
    signal: SignalWait | None = None
    """What it waits for under this name; None for a wait for a time."""
    ready_at: Instant | None = None
    """When the signals were there that it waits for, so that its next attempt may begin; None before."""
    child: ChildWait | None = None
    """Of a wait for children; None for one of a time."""


class CancelWish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client's request that the operation stops."""

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
    """With `tenant`, the owner (`Requested.caller`)."""
    tenant: str = ""
    own_id: str = ""
    """The client's own id (`Requested.own_id`); empty if it is `id`."""
    trace: Trace | None = None
    labels: dict[str, str] | None = None
    """The client's own words about it (`Requested.labels`)."""
    retry_of: str = ""
    """The client's id of the operation that it does again (`Requested.retry_of`); empty for none."""
    priority: str = ""
    """Of an action that has priorities (`Requested.priority`); empty for any other."""
    parent: ParentRef | None = None
    """Of a child: whose (`Requested.parent`)."""
    children: tuple[ChildGroup, ...] = ()
    """The children that its action has asked for, or is about to."""
    confidential: bool = False
    """True if its texts and documents are sealed by its key (`Requested.confidential`)."""
    status: Status
    created_at: Instant
    start_at: Instant | None = None
    """No attempt begins before (`Requested.start_at`); None for an operation that may begin at once."""
    deadline: Instant
    retention: float
    """Seconds for which the status stays readable after the end, if the next two don't say otherwise."""
    retention_failed: float = 0.0
    """The same for an operation that failed; 0 means as `retention`."""
    retention_canceled: float = 0.0
    """The same for an operation that was canceled; 0 means as `retention`."""
    hold: str = ""
    """Key of the resource lock that it needs to run (`subjects.lock_key`); empty for none."""
    attempt: int = 0
    """Number of the last attempt that started; 0 before the first."""
    uncounted: int = 0
    """Number of attempts that were released without counting towards `max_attempts`."""
    live: LiveAttempt | None = None
    waiting: Waiting | None = None
    wait: CurrentWait | None = None
    """Of an operation that waits because its action asked for it; None for the pause before a further attempt."""
    let_go: int = 0
    """Stream sequence of its last event that let its exclusive resource go; 0 for none."""
    attempt_error: OperationError | None = None
    """Error of the last attempt; None after an outcome."""
    started_at: Instant | None = None
    finished_at: Instant | None = None
    percent_complete: float | None = None
    message: str = ""
    cancel: CancelWish | None = None
    input_payload: PayloadRef | None = None
    """Where its input is, if that is too large for an event."""
    cleans_up: bool = False
    """True if a cancel does not end it before its handler has cleaned up (`Started.clean_up`)."""
    uploads: tuple[Attachment, ...] = ()
    """The files that its client has uploaded for it."""
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """JSON; `UNSET` without one, and for one that is a payload."""
    result_payload: PayloadRef | None = None
    """Where its result is, if that is too large for an event."""
    attachments: tuple[Attachment, ...] = ()
    """The files that its attempts have added, one of each name, in the order of their first event."""
    error: OperationError | None = None
    reason: str = ""
    signals: SignalBook | None = None
    """What was sent to it; None for nothing."""
    skipped: int = 0
    """Number of events that a reader skipped: of unknown types, or those that a forced end passed over (ADR 0014)."""
    erased: Erasure | None = None
    """That its key was destroyed. The API adds it, from what is in the key's place: it is in no event and no view."""
    position: int
    stream_sequence: int
    last_hash: str
    fold_version: int

    @property
    def is_current(self) -> bool:
        """Return True if a snapshot of it is as this version would fold it.

        A version that knows no steps, waits, signals or payloads has skipped their events, and its number is lower.
        """
        if self.confidential:
            return self.fold_version == CONFIDENTIAL_FOLD_VERSION
        if self.fold_version == STEPS_FOLD_VERSION:
            return True
        return self.fold_version == FOLD_VERSION and (not self.skipped or self.is_terminal)

    @property
    def has_let_go(self) -> bool:
        """Return True if the operation waits without its exclusive resource, which others may have meanwhile."""
        return self.wait is not None and not self.wait.hold

    @property
    def public_id(self) -> str:
        """Return the id by which its client knows the operation."""
        return self.own_id or self.id

    @property
    def payloads(self) -> tuple[PayloadRef, ...]:
        """Return the payloads that its events name."""
        documents = tuple(one for one in (self.input_payload, self.result_payload) if one is not None)
        return (*documents, *(one.payload for one in (*self.uploads, *self.attachments)))

    @property
    def kind(self) -> Kind:
        """Return the resource and action."""
        return Kind(self.resource, self.action)

    @property
    def queue(self) -> str:
        """Return the priority whose further queue its messages are in; empty for the queue that each action has."""
        return self.priority if self.priority in QUEUED_PRIORITIES else ""

    @property
    def due_at(self) -> datetime:
        """Return the time from which on it waits to begin: its start time, or its request if that came later."""
        return self.created_at if self.start_at is None else max(self.created_at, self.start_at)

    @property
    def goes_on_at(self) -> datetime | None:
        """Return the time before which nothing of it runs: its start time, or the end of a sleep.

        None for neither, and for a signal, which may come at any time, and for children.
        """
        if self.is_terminal:
            return None
        if self.wait is None or self.waiting is None:
            return self.start_at
        is_for_time = self.wait.signal is None and self.wait.child is None
        return self.waiting.retry_at if is_for_time else None

    @property
    def is_terminal(self) -> bool:
        """Return True if the operation has an outcome, so no event can follow."""
        return self.status in TERMINAL_STATUSES

    def is_retention_over(self, now: datetime) -> bool:
        """Return True if it ended so long ago that its status need not be readable any more."""
        finished_at = self.finished_at
        return finished_at is not None and (now - finished_at).total_seconds() >= self.effective_retention

    @property
    def receiver(self) -> SignalReceiver:
        """Return what a decision about a signal to it needs to know."""
        awaited = None if self.is_cut_short else self.wait
        return SignalReceiver(
            status=self.status,
            is_terminal=self.is_terminal,
            requester=self.caller,
            book=self.signals or NO_SIGNALS,
            awaited=awaited.name if awaited is not None and awaited.signal is not None else "",
            wait=awaited.signal if awaited is not None else None,
        )

    @property
    def is_cut_short(self) -> bool:
        """Return True if a cancel request has ended its wait, so that its next attempt, which cleans up, may begin."""
        return self.waiting is not None and self.waiting.is_cut

    @property
    def has_its_signal(self) -> bool:
        """Return True if it waits for a signal that is there already, so that its next attempt may begin."""
        return self.wait is not None and self.wait.ready_at is not None

    @property
    def effective_retention(self) -> float:
        """Return the seconds for which the status stays readable after the end; before it, the longest of the three."""
        match self.status:
            case Status.SUCCEEDED:
                return self.retention
            case Status.FAILED:
                return self.retention_failed or self.retention
            case Status.CANCELED:
                return self.retention_canceled or self.retention
            case _:
                return max(self.retention, self.retention_failed, self.retention_canceled)

    @property
    def minimum_retention(self) -> float:
        """Return the shortest of the three: the status stays readable for so many seconds after any outcome."""
        return min(self.retention, self.retention_failed or math.inf, self.retention_canceled or math.inf)

    @property
    def attempts_used(self) -> int:
        """Return the number of attempts that count towards `max_attempts`."""
        return self.attempt - self.uncounted


def first_version(data: Requested) -> int:
    """Return that of a confidential operation, of one that the release before steps understands only in part, or of any
    other."""
    if data.confidential:
        return CONFIDENTIAL_FOLD_VERSION
    is_later = data.input_payload is not None or data.parent is not None or bool(data.uploads)
    return STEPS_FOLD_VERSION if is_later else FOLD_VERSION
