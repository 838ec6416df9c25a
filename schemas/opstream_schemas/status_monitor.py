"""What a client sees, the status monitor and the error body (docs/contract.md), and the hash of a request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Any, Final

import msgspec

from .children.lineage import ChildGroup
from .event_types.claims import Attachment
from .event_types.erasure import Erasure
from .events import OperationError
from .names import Kind
from .operation.state import Operation, Status
from .payloads.payload_ref import PayloadRef
from .signals.signal_book import counting

SHOWN_CHILDREN: Final = 20
"""Ids of children in a status, of those that were asked for together."""


class WaitingReason(StrEnum):
    """What an operation waits for: `waitingFor`, `blockedBy` and the metrics. A client must expect other words."""

    RUNNER = "Runner"
    """No runner takes operations of this action now."""
    FREE_RUNNER = "FreeRunner"
    """All runners of this action are busy."""
    CONCURRENCY = "Concurrency"
    """As many attempts as the action's `max_concurrency` allows are running."""
    RATE = "Rate"
    """The action's `rate` does not allow it to start yet."""
    RESOURCE = "Resource"
    """Another operation has its exclusive resource."""
    START_TIME = "StartTime"
    """Its request named a time that has not come."""
    RETRY = "Retry"
    """The pause before its next attempt. It has started, so it is not in `waitingFor`."""
    VERSION = "Version"
    """A runner of the version of the action that it was requested for."""
    PAUSED = "Paused"
    """An operator has paused the action."""
    SLEEP = "Sleep"
    """The end of a wait that the action asked for. It has started, and is in `waitingFor` all the same."""
    CHILD = "Child"
    """The end of child operations, in the same way."""
    SIGNAL = "Signal"
    """A signal that a client sends to it. It has started, and runs on with the next attempt."""


class AwaitedSignal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The signal that an operation waits for: `blockedBy.signal` (docs/adr/0071)."""

    name: str
    schema: msgspec.Raw
    """JSON Schema of its payload."""
    approvers: int = 1
    """How many different callers have to send it."""
    approvals: int = 0
    """How many have."""
    not_requester: bool = False
    """True if the caller that requested the operation may not send it."""
    url: str = ""
    """Where to POST it, for callers that may; with authentication it needs no credentials, and works once."""


class BlockedBy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Why an open operation is not running now: `blockedBy` (docs/adr/0060). Only `reason` is always there."""

    reason: str
    """A `WaitingReason`, or a word of a later version."""
    since: datetime | None = None
    """Runner: when a runner of the action was there last, to the minute. Paused: since when it is."""
    position: int = 0
    """Resource: its position in the queue, 1 for the next."""
    operation_id: str = ""
    """Resource: the operation that has the resource, if the caller may read it. Child: the one that is waited for."""
    until: datetime | None = None
    """Rate, Retry and StartTime: when it may begin. Sleep: when it goes on. Paused: when the pause ends by itself."""
    attempt: int = 0
    """Retry: the number of the attempt that failed."""
    error: OperationError | None = None
    """Retry: why it failed."""
    version: int = 0
    """Version: that of the action that it was requested for."""
    runner_versions: tuple[int, ...] = ()
    """Version: those that runners have."""
    runners: int = 0
    """FreeRunner: how many runners there are."""
    slots: int = 0
    """FreeRunner: how many attempts they run at once; Concurrency: how many the action allows."""
    by: str = ""
    """Paused: the operator who paused the action; empty for readers of a tenant."""
    message: str = ""
    """Paused: why, in the operator's words. Sleep and Child: the name that the action gives the wait."""
    signal: AwaitedSignal | None = None
    """Signal: which, and who may send it."""


class AttachedFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file of an operation, as a client sees it."""

    name: str
    media_type: str
    size: int
    """Bytes."""
    sha256: str
    """Of these bytes, in hex."""
    href: str
    """Where it is: a path of this service."""


class ChildrenView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Children that an action has asked for together, or one alone, as a client reads them."""

    name: str
    key: str = ""
    count: int
    ids: tuple[str, ...]
    """Those of the first ones, in order; a list with the filter `parent eq` has all."""


class StatusMonitor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """`GET /status/{operation-id}`. The first four members lead, in this order; the others are optional to a client."""

    id: str
    status: Status
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: OperationError | None = None
    kind: str = ""
    resource_id: str = ""
    created_at: datetime | None = None
    start_at: datetime | None = None
    """The time before which it does not begin; None for an operation without one."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 0
    retry_at: datetime | None = None
    percent_complete: float | None = None
    message: str = ""
    queue_position: int = 0
    """Position in the queue for its resource, 1 for the next; 0 for an operation that does not wait."""
    waiting_for: str = ""
    """A `WaitingReason`, or a word of a later version; empty if it is not known."""
    blocked_by: BlockedBy | None = None
    """Why it is not running now; None if it is, or that is not known."""
    cancel_requested: bool = False
    """True from a cancel request until the end of the operation."""
    cancel_requested_at: datetime | None = None
    """When that was requested; None if it is not known."""
    labels: dict[str, str] | None = None
    """Those of the submit; None without one."""
    kept_signals: tuple[str, ...] = ()
    """Names of the signals that were sent to an open operation, and that it does not wait for yet, in their order."""
    retry_of: str = ""
    """The operation that it does again; empty for none."""
    parent: str = ""
    """The operation whose action asked for it; empty for none."""
    children: tuple[ChildrenView, ...] = ()
    """The children that its action has asked for."""
    retried_by: str = ""
    """The operation that does it again, if the caller may read it; empty for none. Only a read of a status has it."""
    priority: str = ""
    """A `Priority`; empty for an operation of an action without them."""
    attachments: tuple[AttachedFile, ...] = ()
    """The files that the action has added."""
    uploads: tuple[AttachedFile, ...] = ()
    """The files that the client has uploaded for it."""
    erased: Erasure | None = None
    """That what it was about was erased: when, by whom and why; None if it was not (docs/adr/0076)."""


def build_status_monitor(
    operation: Operation, *, blocked_by: BlockedBy | None = None, cancel_requested_at: datetime | None = None
) -> StatusMonitor:
    """Return the status monitor of an operation.

    Progress is what the action reported last. That of a success is 100 percent without a message, since the last report
    was made before the end; an action that reported nothing has none.

    Args:
        operation: its state.
        blocked_by: why it is not running now, which is in no event; None if it is not known.
        cancel_requested_at: when its end was requested, if it is open; None if it is not known.
    """
    percent, message = operation.percent_complete, operation.message
    if operation.status is Status.SUCCEEDED:
        percent, message = None if percent is None else 100.0, ""
    receiver = operation.receiver
    blocked_by = blocked_by or signal_blocker(operation)
    return StatusMonitor(
        id=operation.public_id,
        status=operation.status,
        result=operation.result,
        error=operation.error,
        kind=str(operation.kind),
        resource_id=operation.resource_id,
        created_at=operation.created_at,
        start_at=operation.start_at,
        started_at=operation.started_at,
        finished_at=operation.finished_at,
        attempt=operation.attempt,
        retry_at=operation.waiting.retry_at if operation.waiting and operation.wait is None else None,
        percent_complete=percent,
        message=message,
        queue_position=blocked_by.position if blocked_by else 0,
        waiting_for=_waiting_for(operation, blocked_by),
        blocked_by=blocked_by,
        cancel_requested=operation.cancel is not None and not operation.is_terminal,
        cancel_requested_at=cancel_requested_at,
        labels=operation.labels,
        kept_signals=()
        if operation.is_terminal
        else tuple(one.name for one in receiver.book.kept if one.name != receiver.awaited),
        retry_of=operation.retry_of,
        priority=operation.priority,
        attachments=tuple(_attached_file(operation.public_id, one) for one in operation.attachments),
        parent="" if operation.parent is None else operation.parent.own_id or operation.parent.id,
        children=tuple(_children_view(operation, group) for group in operation.children),
        uploads=tuple(_attached_file(operation.public_id, one) for one in operation.uploads),
        erased=operation.erased,
    )


def payload_path(operation_id: str, payload: PayloadRef) -> str:
    """Return the path at which a client reads a payload of an operation.

    Args:
        operation_id: the client's own id.
        payload: the payload.
    """
    return f"/status/{operation_id}/payloads/{payload.uri.rpartition('/')[2]}"


def _attached_file(operation_id: str, one: Attachment) -> AttachedFile:
    payload = one.payload
    return AttachedFile(
        name=one.file_name,
        media_type=one.media_type,
        size=payload.size,
        sha256=payload.sha256,
        href=payload_path(operation_id, payload),
    )


def _children_view(operation: Operation, group: ChildGroup) -> ChildrenView:
    ids = tuple(islice(group.child_ids(operation.id), SHOWN_CHILDREN))
    return ChildrenView(name=group.name, key=group.key, count=group.count, ids=ids)


def _waiting_for(operation: Operation, blocked_by: BlockedBy | None) -> str:
    """Return what an operation waits for that has not begun, or whose action waits; empty for any other."""
    if operation.status is not Status.NOT_STARTED and (operation.wait is None or operation.is_cut_short):
        return ""
    if blocked_by is not None:
        return blocked_by.reason
    if operation.wait is None or operation.wait.signal is not None:
        return ""
    return WaitingReason.SLEEP if operation.wait.child is None else WaitingReason.CHILD


def signal_blocker(operation: Operation) -> BlockedBy | None:
    """Return which signal an operation waits for; None if it waits for none, or has it and begins in a moment."""
    waiting, receiver = operation.waiting, operation.receiver
    name, wait = receiver.awaited, receiver.wait
    if waiting is None or wait is None or operation.has_its_signal:
        return None
    return BlockedBy(
        reason=WaitingReason.SIGNAL,
        until=waiting.retry_at,
        signal=AwaitedSignal(
            name=name,
            schema=wait.schema,
            approvers=wait.approvers,
            approvals=len(counting(name, wait, receiver.book, receiver.requester)),
            not_requester=wait.not_requester,
        ),
    )


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of several problems."""

    code: str
    message: str
    target: str = ""


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What is wrong with a request. `operation_id`: the id that a submit tried and that is safe to send again."""

    code: str
    message: str
    target: str = ""
    details: tuple[ErrorDetail, ...] = ()
    operation_id: str = ""


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error response (Azure REST guidelines)."""

    error: ErrorObject


def request_hash(
    kind: Kind,
    resource_id: str,
    action_input: Any,  # noqa: ANN401 - JSON
    caller: str,
    callback: str = "",
    start: str = "",
    uploads: Iterable[Attachment] = (),
) -> str:
    """Return a hash that is equal for identical requests.

    It is the SHA-256 (hex) of the key-sorted JSON of action, resource id, input, caller, callback, start time and
    uploads.

    Args:
        kind: the action.
        resource_id: the resource's own id; empty without one.
        action_input: the decoded JSON input.
        caller: the authenticated identity; empty without authentication, never an address.
        callback: the URL that the client wants called; empty without one. It is part of the hash, because a repetition
            with another URL must not succeed: that URL would never be called.
        start: when the client wants it to begin (`start_text`); empty for at once. It is part of the hash for the same
            reason.
        uploads: the files that the client has uploaded for it. Those of the same names, types and bytes are the same,
            also if they were uploaded again.
    """
    request: dict[str, Any] = {"action": str(kind), "resourceId": resource_id, "input": action_input, "caller": caller}
    if callback:  # the hash of a request without one is older than callbacks, and must stay
        request["callback"] = callback
    if start:
        request["start"] = start
    if files := file_identities(uploads):
        request["uploads"] = files
    return hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()


def file_identities(files: Iterable[Attachment]) -> list[list[str]]:
    """Return what makes files the same, wherever they are stored: name, media type and SHA-256 of each, by name."""
    return sorted([one.file_name, one.media_type, one.payload.sha256] for one in files)


def start_text(start_at: datetime | None, start_after: int) -> str:
    """Return a client's wish for a start time as a text that is equal for equal wishes; empty for none.

    A number of seconds is the same wish whenever it is sent; the time that follows from it is not.

    Args:
        start_at: the time with its zone; None without one.
        start_after: the seconds that the client asked for, which count then; 0 if it gave a time, or none.
    """
    if start_after:
        return f"+{start_after}"
    return "" if start_at is None else start_at.astimezone(UTC).isoformat()


def is_same_json(one: Any, other: Any) -> bool:  # noqa: ANN401 - JSON
    """Return True if two decoded documents are the same value, however their numbers were written: `1`, `1.0`, `10e-1`.

    Args:
        one: decoded JSON, of at most `text.MAX_NESTING` levels.
        other: the same.
    """
    if isinstance(one, bool) or isinstance(other, bool):  # True equals 1 in Python, and not in JSON
        return one is other
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(is_same_json(value, other[name]) for name, value in one.items())
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(is_same_json, one, other))
    return bool(one == other)
