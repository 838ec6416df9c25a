"""Examples in the document: a status monitor in each state, a history, an error of each code.

Pure. They are built from the contract's own structs, so that they have the form of real responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import msgspec

from opstream_api.errors import forbidden, unauthenticated
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError, Requested, Succeeded, digest, encode_event
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import first_event
from opstream_schemas.operation.resource_lock import busy_error
from opstream_schemas.operation.state import Status
from opstream_schemas.status_monitor import (
    AwaitedSignal,
    BlockedBy,
    ErrorBody,
    ErrorObject,
    StatusMonitor,
    WaitingReason,
    request_hash,
)

from .shared import Json

OPERATION_ID: Final = "01939c2e-7000-7000-8000-000000000042"
RESOURCE_ID: Final = "42"
REQUEST_ID: Final = "1f6bd2b1-8d4c-4b52-9c0e-6a3f0c5b7d11"

_CREATED: Final = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
_STARTED: Final = _CREATED + timedelta(seconds=1)
_FINISHED: Final = _CREATED + timedelta(minutes=5)
_FAILURE: Final = OperationError(code="ClientOutOfDate", message="update the client to 2.0")
_STATES: Final[Mapping[str, tuple[str, Json]]] = MappingProxyType(
    {
        "notStarted": (
            "No runner has started it yet",
            {"status": Status.NOT_STARTED, "started_at": None, "attempt": 0},
        ),
        "busy": (
            "It waits until a runner of its action has room",
            {
                "status": Status.NOT_STARTED,
                "started_at": None,
                "attempt": 0,
                "waiting_for": WaitingReason.FREE_RUNNER,
            },
        ),
        "queued": (
            "It waits for another operation on the same resource",
            {
                "status": Status.NOT_STARTED,
                "started_at": None,
                "attempt": 0,
                "queue_position": 1,
                "waiting_for": WaitingReason.RESOURCE,
            },
        ),
        "running": ("A runner executes it", {"percent_complete": 40.0, "message": "two of five files are done"}),
        "canceling": (
            "A client has canceled it, and it has not stopped yet",
            {"percent_complete": 40.0, "message": "two of five files are done", "cancel_requested": True},
        ),
        "waiting": (
            "An attempt was lost, and the next one begins later",
            {"retry_at": _STARTED + timedelta(minutes=1)},
        ),
        "awaiting": (
            "It waits for a signal",
            {
                "waiting_for": WaitingReason.SIGNAL,
                "blocked_by": BlockedBy(
                    reason=WaitingReason.SIGNAL,
                    until=_STARTED + timedelta(days=1),
                    signal=AwaitedSignal(
                        name="approval",
                        schema=msgspec.Raw(b'{"type":"object","properties":{"approved":{"type":"boolean"}}}'),
                        approvers=2,
                        approvals=1,
                        not_requester=True,
                        url=f"https://api.example.com/status/{OPERATION_ID}:signal/approval",
                    ),
                ),
            },
        ),
        "succeeded": ("It returned a result", {"status": Status.SUCCEEDED, "finished_at": _FINISHED}),
        "failed": ("It failed", {"status": Status.FAILED, "error": _FAILURE, "finished_at": _FINISHED}),
        "canceled": ("It was canceled and has stopped", {"status": Status.CANCELED, "finished_at": _FINISHED}),
    }
)


def sample_monitor(state: str, kind: Kind, *, resource_id: str = RESOURCE_ID, result: Any = msgspec.UNSET) -> Json:  # noqa: ANN401 - JSON
    """Build an example of a status monitor.

    Args:
        state: one of `notStarted`, `busy`, `queued`, `running`, `canceling`, `waiting`, `awaiting`, `succeeded`,
            `failed`, `canceled`.
        kind: the operation's action.
        resource_id: the resource's own id; empty without one.
        result: the action's result; used for `succeeded`.
    """
    summary, changes = _STATES[state]
    base = StatusMonitor(
        id=OPERATION_ID,
        status=Status.RUNNING,
        kind=str(kind),
        resource_id=resource_id,
        created_at=_CREATED,
        started_at=_STARTED,
        attempt=1,
    )
    if state == "succeeded" and result is not msgspec.UNSET:
        changes = {**changes, "result": msgspec.Raw(msgspec.json.encode(result))}
    return {"summary": summary, "value": _json(msgspec.structs.replace(base, **changes))}


def sample_history(kind: Kind, action_input: Any, result: Any) -> Json:  # noqa: ANN401 - JSON
    """Build an example of a history: the events of a short operation as the journal stores them."""
    requested = Requested(
        resource=kind.resource,
        resource_id=RESOURCE_ID,
        action=kind.action,
        action_version=1,
        input=msgspec.Raw(msgspec.json.encode(action_input)),
        request_hash=request_hash(kind, RESOURCE_ID, action_input, ""),
        deadline=_CREATED + timedelta(days=1),
        retention=timedelta(days=1).total_seconds(),
    )
    first = first_event(
        OPERATION_ID, requested, id="01939c2e-7000-7000-8000-000000000001", source="opstream/api", time=_CREATED
    )
    stored = encode_event(first)
    last = msgspec.structs.replace(
        first,
        id="01939c32-8b20-7000-8000-000000000002",
        source="opstream/runner",
        time=_FINISHED,
        position=2,
        previous_hash=digest(stored),
        data=Succeeded(result=msgspec.Raw(msgspec.json.encode(result))),
    )
    return {"value": [msgspec.json.decode(event) for event in (stored, encode_event(last))]}


def sample_errors() -> Json:
    """Build an example of each error response, as components."""
    return _examples(_ERRORS)


def sample_access_errors() -> Json:
    """Build the same for the errors of a service that asks for credentials."""
    return _examples(_ACCESS_ERRORS)


def sample_index_errors() -> Json:
    """Build the same for the errors of a service that lists operations."""
    return _examples(_INDEX_ERRORS)


def _examples(errors: Mapping[ErrorCode, tuple[str, str, dict[str, Any]]]) -> Json:
    return {
        code: {"summary": summary, "value": _json(ErrorBody(error=ErrorObject(code=code, message=message, **more)))}
        for code, (summary, message, more) in errors.items()
    }


def _json(value: Any) -> Any:  # noqa: ANN401 - JSON
    return msgspec.json.decode(msgspec.json.encode(value))


_ACCESS_ERRORS: Final[Mapping[ErrorCode, tuple[str, str, dict[str, Any]]]] = MappingProxyType(
    {
        ErrorCode.UNAUTHENTICATED: (
            "No credentials, or none that are valid now",
            unauthenticated("Bearer").body.error.message,
            {"target": "Authorization"},
        ),
        ErrorCode.TOO_MANY_REQUESTS: (
            "The caller is over one of its limits",
            "these credentials have sent more than 100/s requests: wait as long as Retry-After says",
            {},
        ),
        ErrorCode.IDENTITY_PROVIDER_UNAVAILABLE: (
            "A bearer token can't be verified now",
            "the keys of the identity provider are not there, so no token can be verified now: try again",
            {},
        ),
    }
)
_INDEX_ERRORS: Final[Mapping[ErrorCode, tuple[str, str, dict[str, Any]]]] = MappingProxyType(
    {
        ErrorCode.INDEX_UNAVAILABLE: (
            "The index can't be read now, or is being made",
            "the index is being made, and is not complete yet: try again",
            {},
        ),
    }
)
_NOT_THERE: Final = "what was stored is not there as it was; the log says more"
_RUNS: Final = "is Running: wait for its end, or cancel it"
_AGAIN: Final = f"send the same request again with the header 'Operation-Id: {OPERATION_ID}'"
_ERRORS: Final[Mapping[ErrorCode, tuple[str, str, dict[str, Any]]]] = MappingProxyType(
    {
        ErrorCode.INVALID_INPUT: (
            "The body does not match the schema",
            "the input is not valid: the value is not of type string",
            {"target": "files[0].path"},
        ),
        ErrorCode.INVALID_HEADER: (
            "A header is not valid, or not together with another one",
            "send either Operation-Id or Repeatability-Request-ID: each names the operation",
            {"target": "Operation-Id"},
        ),
        ErrorCode.INVALID_PARAMETER: (
            "An unknown query parameter, or an invalid id",
            "there is no query parameter 'dry-run'",
            {"target": "dry-run"},
        ),
        ErrorCode.OPERATION_ID_REUSED: (
            "The operation's id belongs to another request",
            f"Operation-Id names operation {OPERATION_ID} of another request: use a new one",
            {"target": "Operation-Id"},
        ),
        ErrorCode.UNKNOWN_ACTION: (
            "No runner offers this action",
            "no runner has announced the action book:burn; /openapi.json lists the known ones",
            {},
        ),
        ErrorCode.OPERATION_NOT_FOUND: (
            "Never requested, or its retention is over",
            "there is no such operation, or its retention is over",
            {},
        ),
        ErrorCode.ACTION_SERVED: (
            "The action has runners, so it can't be withdrawn",
            "book:upload-start has 2 runners: stop them first, or they go on while nobody can submit it",
            {},
        ),
        ErrorCode.SCHEDULE_NOT_FOUND: (
            "Never made, deleted, or another caller's",
            "there is no schedule 'nightly'",
            {},
        ),
        ErrorCode.SCHEDULE_NAME_TAKEN: ("Another caller of the tenant has it", "the name nightly is taken", {}),
        ErrorCode.TOO_MANY_SCHEDULES: ("The caller has too many", "you have 100 schedules: delete one first", {}),
        ErrorCode.DELIVERY_NOT_FOUND: (
            "No attempt of it has failed, or it was made since",
            f"no delivery of '{OPERATION_ID}' to 'billing' has failed, or it was made since",
            {},
        ),
        ErrorCode.DEAD_LETTER_NOT_FOUND: (
            "The subscriber has put no such event aside",
            "nothing of 'mailer' is parked under 1234",
            {},
        ),
        ErrorCode.HANDLING_FAILED: (
            "The subscriber could not handle the event this time either",
            "mailer 1234: failed: it stays parked: HandlerFailed: the mail server refused it",
            {},
        ),
        ErrorCode.SERVICE_NOT_RUNNING: (
            "What would have to do it does not run",
            "no webhooks service runs that can send it: start 'opstream webhooks' (or 'opstream hub')",
            {},
        ),
        ErrorCode.OPERATION_FINISHED: (
            "It has succeeded or failed",
            f"operation {OPERATION_ID} is Succeeded, so there is nothing to cancel",
            {},
        ),
        ErrorCode.OPERATION_NOT_RETRIABLE: (
            "It has not ended, or has succeeded, or is done again for another caller",
            f"operation {OPERATION_ID} {_RUNS}",
            {},
        ),
        ErrorCode.RESOURCE_BUSY: (
            "Another operation owns the resource, and the action does not wait",
            busy_error(Kind("book", "upload-start"), RESOURCE_ID, OPERATION_ID).message,
            {"target": RESOURCE_ID},
        ),
        ErrorCode.REQUEST_ID_REUSED: (
            "The Repeatability headers belong to another signal",
            "another signal was sent with these Repeatability headers: send each with headers of its own",
            {},
        ),
        ErrorCode.SENDER_NOT_ALLOWED: (
            "The sender is not proven, or has requested the operation",
            "who has requested the operation can't send 'approval': another caller has to",
            {},
        ),
        ErrorCode.SIGNAL_TOO_LATE: (
            "The operation does not wait for it any more",
            "the operation does not wait for 'approval' any more: it has its answer, or its time was over",
            {},
        ),
        ErrorCode.SIGNAL_REPEATED: (
            "Different callers have to send it, and this one has",
            "2 different callers have to send 'approval', and this one has sent it already",
            {},
        ),
        ErrorCode.TOO_MANY_SIGNALS: (
            "The operation takes no more signals",
            "an operation takes 1000 signals in all, and keeps 100 for waits that have not begun",
            {},
        ),
        ErrorCode.PAYLOAD_TOO_LARGE: ("The body is too large", "the body has more than 4194304 bytes", {}),
        ErrorCode.PAYLOAD_STORE_UNAVAILABLE: (
            "The payload store does not answer",
            f"the payload store did not answer, so the result of operation {OPERATION_ID} can't be read",
            {},
        ),
        ErrorCode.PAYLOAD_NOT_FOUND: (
            "The operation has no such file or document",
            "the operation has no such payload, or a later one has replaced it",
            {},
        ),
        ErrorCode.RANGE_NOT_SATISFIABLE: (
            "The payload ends before the range begins",
            "the payload has 48213 bytes, and the range 'bytes=50000-' has none of them",
            {"target": "Range"},
        ),
        ErrorCode.PAYLOAD_UNREADABLE: (
            "What the payload store has is missing, or is not what was stored",
            f"the result of operation {OPERATION_ID} can't be read: {_NOT_THERE}",
            {},
        ),
        ErrorCode.NOT_CONFIDENTIAL: ("Its action is not confidential", f"operation {OPERATION_ID} can't be erased", {}),
        ErrorCode.OPERATION_OPEN: ("It has not ended", f"operation {OPERATION_ID} is Running: cancel it", {}),
        ErrorCode.OPERATION_ERASED: ("It was erased", f"operation {OPERATION_ID} was erased: use another id", {}),
        ErrorCode.KEY_MISSING: ("A confidential operation lost its key", "the key of this operation is lost", {}),
        ErrorCode.KEYS_UNAVAILABLE: ("The service has no key for it", "this operation can't be opened now", {}),
        ErrorCode.UNSUPPORTED_MEDIA_TYPE: (
            "The body is not declared as JSON in UTF-8",
            "the input must be application/json, not 'text/plain'",
            {"target": "Content-Type"},
        ),
        ErrorCode.NOT_FOUND: (
            "A path that this service does not have, or a second spelling of one",
            "there is nothing here; /openapi.json lists what there is",
            {},
        ),
        ErrorCode.FORBIDDEN: (
            "The credentials lack a scope",
            forbidden("submit:book:upload-start", "submit book:upload-start").body.error.message,
            {"target": "Authorization"},
        ),
        ErrorCode.CROSS_SITE_REQUEST: (
            "A browser sent it for a page of another site",
            "a web page of another site may not do this: its operator can allow it with --allowed-origin",
            {"target": "Origin"},
        ),
        ErrorCode.REQUEST_TIMEOUT: (
            "The rest of the request did not arrive in time",
            "the rest of the request did not arrive in time: send it again",
            {},
        ),
        ErrorCode.UNKNOWN_HOST: (
            "The service does not answer for this Host",
            "this service does not answer for the host 'a.example': its operator can allow it with --allowed-host",
            {"target": "Host"},
        ),
        ErrorCode.TOO_MANY_CONNECTIONS: (
            "The process has as many connections as it can have",
            "the service has too many connections: try again",
            {},
        ),
        ErrorCode.INTERNAL_ERROR: (
            "An error in the service, whose log has the cause",
            f"the request failed because of an error in the service; its log has the cause under {REQUEST_ID}",
            {},
        ),
        ErrorCode.JOURNAL_UNAVAILABLE: (
            "The broker does not respond; for a submit, the error has the id to send it again with",
            f"the journal did not answer in time: {_AGAIN}",
            {"operation_id": OPERATION_ID},
        ),
        ErrorCode.ACTION_NOT_SERVED: (
            "The action has had no runner for longer than this service accepts",
            f"book:upload has had no runner since 2026-03-12T17:00:00Z, and its operator has to start one: {_AGAIN}",
            {"operation_id": OPERATION_ID},
        ),
        ErrorCode.JOURNAL_FULL: (
            "No new operations are accepted until there is room",
            f"the journal is full, so no new operation can be recorded now: {_AGAIN}",
            {"operation_id": OPERATION_ID},
        ),
    }
)
