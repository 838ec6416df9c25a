"""What a client sees: the status monitor and the error body (contract.md), and when two requests are identical."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec

from .events import OperationError
from .names import Kind
from .operation.state import Operation, Status


class StatusMonitor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """`GET /status/{operation-id}`. The first four members lead, in this order; the others are optional to a client."""

    id: str
    status: Status
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: OperationError | None = None
    kind: str = ""
    resource_id: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 0
    retry_at: datetime | None = None
    percent_complete: float | None = None
    message: str = ""
    queue_position: int = 0
    """Of an operation that waits for its resource: 1 for the next."""


def build_status_monitor(operation: Operation, *, queue_position: int = 0) -> StatusMonitor:
    """The status monitor of an operation.

    Args:
        operation: its state.
        queue_position: its place among those that wait for its resource, which no event tells; 0 for none.
    """
    return StatusMonitor(
        id=operation.id,
        status=operation.status,
        result=operation.result,
        error=operation.error,
        kind=str(operation.kind),
        resource_id=operation.resource_id,
        created_at=operation.created_at,
        started_at=operation.started_at,
        finished_at=operation.finished_at,
        attempt=operation.attempt,
        retry_at=operation.waiting.retry_at if operation.waiting else None,
        percent_complete=operation.percent_complete,
        message=operation.message,
        queue_position=queue_position,
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
    """The body of every answer that is not a success (Azure guidelines, error response)."""

    error: ErrorObject


def request_hash(
    kind: Kind,
    resource_id: str,
    action_input: Any,  # noqa: ANN401 - JSON
    caller: str,
    callback: str = "",
) -> str:
    """SHA-256 (hex) of the key-sorted JSON of action, resource id, input, caller and callback: equal for identical
    requests.

    Args:
        kind: the action.
        resource_id: the resource's own id; empty without one.
        action_input: the decoded JSON input.
        caller: the authenticated identity; empty without authentication, never an address.
        callback: the URL that the client wants called. A repetition that names another one would otherwise be answered
            as if that were going to be called.
    """
    request = {"action": str(kind), "resourceId": resource_id, "input": action_input, "caller": caller}
    if callback:  # requests without one have the hash that they always had
        request["callback"] = callback
    return hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
