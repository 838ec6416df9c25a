"""The paths of operations: status, cancel, signal, retry, events, files. Only examples depend on the actions. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opstream_schemas.event_types.claims import FILE_NAME_PATTERN
from opstream_schemas.names import SIGNAL_NAME_PATTERN, Kind
from opstream_schemas.operation.follow_up import follow_up_id
from opstream_schemas.signals.signal_decision import SignalState

from .administration.erase_path import erase
from .responses import error_responses
from .samples import OPERATION_ID, sample_history, sample_monitor
from .shared import OPERATION_ID_PATTERN, SCHEMAS, Json, header_refs, json_content, ref, refs

_ID: Final[Json] = {"type": "string", "pattern": OPERATION_ID_PATTERN}
_INSTANT: Final[Json] = {"type": "string", "format": "date-time"}
TAG: Final = "operations"
STATUS: Final = "status"
"""`operationId` of the read of a status."""
SIGNAL: Final = "signal"
"""`operationId` of a signal."""
UPLOAD: Final = "upload"
"""`operationId` of the upload of a file."""
SIGNAL_PARAMETERS: Final[Json] = {
    "SignalName": {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "The name of the signal, as the action waits for it; not `events`.",
        "schema": {"type": "string", "pattern": f"^{SIGNAL_NAME_PATTERN}$"},
        "example": "approval",
    }
}
SIGNAL_HEADERS: Final[Json] = {
    "Signal-State": {
        "description": "`Delivered`: the operation waits for it, or did. `Kept`: it does not wait for it yet, so "
        "whether it fits is seen when it does.",
        "required": True,
        "schema": {"type": "string", "enum": [str(state) for state in SignalState]},
    }
}


def operation_paths(kind: Kind, action_input: Any, result: Any, upload_limit: int) -> Json:  # noqa: ANN401 - JSON
    """Build the paths of operations.

    Args:
        kind: of the operation in the examples.
        action_input: of the same.
        result: of the same.
        upload_limit: bytes of a file that a client uploads.
    """
    return {
        "/status/{operationId}": {"get": _status(kind, result), "delete": erase()},
        "/status/{operationId}:cancel": {"post": _cancel(kind)},
        "/status/{operationId}:signal/{name}": {"post": _signal(kind)},
        "/status/{operationId}:retry": {"post": _retry(kind)},
        "/status/{operationId}/events": {"get": _events(kind, action_input, result)},
        "/status/{operationId}/payloads/{payload}": {"get": _payload()},
        "/payloads": {"post": _place(upload_limit)},
        "/payloads/{operationId}/{name}": {"put": _upload(upload_limit)},
    }


def monitor_links() -> Json:
    """Build the links from a status monitor to the paths of its operation."""
    parameters = {"operationId": "$response.body#/id"}
    return {name: {"operationId": name, "parameters": parameters} for name in (STATUS, "cancel", "events")}


def _status(kind: Kind, result: Any) -> Json:  # noqa: ANN401 - JSON
    waiting = ("notStarted", "busy", "queued")
    states = (*waiting, "running", "canceling", "waiting", "awaiting", "succeeded", "failed", "canceled")
    header_names = ("ETag", "Cache-Control", "Vary", "Preference-Applied", "Retry-After")
    return {
        "operationId": STATUS,
        "summary": "The state of an operation",
        "description": (
            "Always `200` while the operation is known, also after it failed. Poll again after `Retry-After` seconds "
            "while the response has that header, or send `Prefer: wait` to get the response at the end."
        ),
        "tags": [TAG],
        "parameters": refs(
            "parameters", "StatusId", "Prefer", "If-None-Match", "api-version", "x-ms-client-request-id"
        ),
        "responses": {
            "200": {
                "description": "The status monitor",
                "headers": header_refs(*header_names),
                "content": json_content(
                    {"$ref": SCHEMAS + "StatusMonitor"},
                    {state: sample_monitor(state, kind, result=result) for state in states},
                ),
            },
            "304": {"description": "The client has the current representation", "headers": header_refs(*header_names)},
            **error_responses("InvalidRead", "OperationNotFound", "Unreadable"),
        },
    }


def _cancel(kind: Kind) -> Json:
    schema = {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "description": "Stored with the operation; truncated to 4 KiB.", "default": ""}
        },
        "additionalProperties": False,
    }
    return {
        "operationId": "cancel",
        "summary": "Cancel an operation",
        "description": (
            "An operation that has not started is `Canceled` at once. One that runs is asked to stop, and is "
            "`Canceled` once it has stopped; it may succeed or fail before that. A repeated request changes nothing."
        ),
        "tags": [TAG],
        "parameters": refs("parameters", "StatusId", "api-version", "x-ms-client-request-id"),
        "requestBody": {
            "required": False,
            "content": json_content(schema, {"reason": {"value": {"reason": "the author wants another title"}}}),
        },
        "responses": {
            "200": {
                "description": "Canceled or asked to stop: the status monitor",
                "headers": header_refs("Retry-After"),
                "content": json_content(
                    {"$ref": SCHEMAS + "StatusMonitor"},
                    {state: sample_monitor(state, kind) for state in ("canceled", "canceling")},
                ),
            },
            **error_responses(
                "InvalidCancel",
                "OperationNotFound",
                "OperationFinished",
                "TooLargeCancel",
                "UnsupportedCancel",
                "CrossSiteRequest",
                "Unavailable",
            ),
        },
    }


def _signal(kind: Kind) -> Json:
    headers = ("Signal-State", "Repeatability-Result")
    return {
        "operationId": SIGNAL,
        "summary": "Send a signal to an operation",
        "description": (
            "The body is what the action waits for under this name: JSON that fits `blockedBy.signal.schema` of the "
            "status, 64 KiB at most; an empty body is `{}`. A signal that comes before its wait is kept. With the "
            "Repeatability headers a repeated request is the same signal."
        ),
        "tags": [TAG],
        "parameters": refs(
            "parameters",
            "StatusId",
            "SignalName",
            "Repeatability-Request-ID",
            "Repeatability-First-Sent",
            "api-version",
            "x-ms-client-request-id",
        ),
        "requestBody": {
            "required": False,
            "content": json_content({}, {"approval": {"value": {"approved": True}}}),
        },
        "responses": {
            "200": {
                "description": "It is stored durably: the status monitor",
                "headers": header_refs("Retry-After", *headers),
                "content": json_content(
                    {"$ref": SCHEMAS + "StatusMonitor"}, {"running": sample_monitor("running", kind)}
                ),
            },
            "204": {
                "description": "It is stored durably, and its sender may not read the status",
                "headers": header_refs(*headers),
            },
            **error_responses(
                "InvalidSignal",
                "OperationNotFound",
                "SignalRefused",
                "SenderNotAllowed",
                "TooLargeCancel",
                "UnsupportedCancel",
                "Unavailable",
            ),
        },
    }


def _retry(kind: Kind) -> Json:
    follow_up = sample_monitor("notStarted", kind)
    follow_up["value"] = {**follow_up["value"], "id": follow_up_id(OPERATION_ID), "retryOf": OPERATION_ID}
    return {
        "operationId": "retry",
        "summary": "Do an operation again",
        "description": (
            "Submits the action of an operation that failed or was canceled again, with the same input, resource, "
            "labels and callback, as a new operation of the caller: its follow-up. An operation has one follow-up: "
            "a repeated request gets the same. The follow-up can be done again, too."
        ),
        "tags": [TAG],
        "parameters": refs(
            "parameters", "StatusId", "traceparent", "tracestate", "api-version", "x-ms-client-request-id"
        ),
        "requestBody": {
            "required": False,
            "content": json_content({"type": "object", "additionalProperties": False}, {"nothing": {"value": {}}}),
        },
        "responses": {
            "202": {
                "description": "The follow-up is stored durably: its status monitor",
                "headers": header_refs("Operation-Location", "Operation-Id", "Retry-After"),
                "content": json_content({"$ref": SCHEMAS + "StatusMonitor"}, {"new": follow_up}),
                "links": monitor_links(),
            },
            **error_responses(
                "InvalidCancel",
                "NothingToRetry",
                "OperationNotRetriable",
                "TooLargeCancel",
                "UnsupportedCancel",
                "CrossSiteRequest",
                "UnavailableSubmit",
            ),
        },
    }


def _events(kind: Kind, action_input: Any, result: Any) -> Json:  # noqa: ANN401 - JSON
    sample = sample_history(kind, action_input, result)
    frames = (
        f"id: {event['position']}\nevent: {event['type'].split('.')[2]}\ndata: {msgspec.json.encode(event).decode()}\n"
        for event in sample["value"]
    )
    stream = {
        "schema": {"type": "string"},
        "examples": {
            "stream": {"summary": "The same as a stream", "value": "retry: 1000\n\n" + "\n".join(frames) + "\n"}
        },
    }
    return {
        "operationId": "events",
        "summary": "The history of an operation",
        "description": (
            "All events so far, oldest first, each with the hash of the one before it. With "
            "`Accept: text/event-stream` the same events as Server-Sent Events, then each new one until the "
            "operation has ended. A client that reconnects with `Last-Event-ID` gets the events that it missed."
        ),
        "tags": [TAG],
        "parameters": refs("parameters", "StatusId", "Last-Event-ID", "api-version", "x-ms-client-request-id"),
        "responses": {
            "200": {
                "description": "The history",
                "headers": header_refs("Vary", "Cache-Control", "Operation-Stored-Id"),
                "content": {
                    **json_content(ref("schemas", "History"), {"history": {"summary": "All events", "value": sample}}),
                    "text/event-stream": stream,
                },
            },
            "204": {
                "description": "The operation has ended, and the client of the stream has all its events",
                "headers": header_refs(),
            },
            **error_responses("InvalidRead", "OperationNotFound", "Unreadable"),
        },
    }


def _payload() -> Json:
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "operationId": "payload",
        "summary": "A file of an operation, or an input or a result that is too large for an event",
        "description": (
            "The bytes, with the media type of the file; `attachments` of the status has its size and SHA-256. A whole "
            "one is checked while it is sent: a client that gets as many bytes as `Content-Length` says has the right "
            "ones. A store that serves files itself is redirected to, for a few minutes."
        ),
        "tags": [TAG],
        "parameters": refs(
            "parameters", "StatusId", "PayloadId", "Range", "If-None-Match", "api-version", "x-ms-client-request-id"
        ),
        "responses": {
            "200": {"description": "The whole", "headers": header_refs("ETag", "Cache-Control"), "content": content},
            "206": {"description": "The range", "headers": header_refs("ETag", "Cache-Control"), "content": content},
            "304": {"description": "The client has it", "headers": header_refs("ETag", "Cache-Control")},
            "307": {"description": "The store has it at `Location`", "headers": header_refs("Cache-Control")},
            **error_responses("InvalidRead", "PayloadNotFound", "RangeNotSatisfiable", "Unreadable"),
        },
    }


def _place(limit: int) -> Json:
    body = {
        "type": "object",
        "properties": {"name": {"type": "string", "pattern": f"^{FILE_NAME_PATTERN}$", "description": "Of the file."}},
        "required": ["name"],
        "additionalProperties": False,
    }
    place = {
        "type": "object",
        "description": "Where a file is sent.",
        "properties": {
            "operationId": {**_ID, "description": "For the header `Operation-Id` of the submit."},
            "name": {"type": "string"},
            "href": {"type": "string", "format": "uri", "description": "The URL for the `PUT`."},
            "maxSize": {"type": "integer", "description": "Bytes that the file may have."},
            "expiresAt": {**_INSTANT, "description": "Until when the upload may begin, with authentication."},
        },
        "required": ["operationId", "name", "href", "maxSize"],
    }
    href = f"http://127.0.0.1:8080/payloads/{OPERATION_ID}/scan.tif"
    example = {"operationId": OPERATION_ID, "name": "scan.tif", "href": href, "maxSize": limit}
    return {
        "operationId": "place",
        "summary": "Ask where to send a file for an operation that is not submitted yet",
        "description": (
            f"A file may have {limit} bytes. With authentication its URL has a token, with which one who has no other "
            "credentials may send it. Nothing is stored by this."
        ),
        "tags": [TAG],
        "parameters": refs("parameters", "Operation-Id", "api-version", "x-ms-client-request-id"),
        "requestBody": {"required": True, "content": json_content(body, {"file": {"value": {"name": "scan.tif"}}})},
        "responses": {
            "201": {
                "description": "The place",
                "headers": header_refs("Operation-Id", "Cache-Control"),
                "content": json_content(place, {"place": {"value": example}}),
            },
            **error_responses(
                "InvalidSubmit", "TooLargeCancel", "UnsupportedCancel", "CrossSiteRequest", "Unavailable"
            ),
        },
    }


def _upload(limit: int) -> Json:
    uploaded = {
        "type": "object",
        "description": "A file that is stored.",
        "properties": {
            "operationId": _ID,
            "name": {"type": "string"},
            "mediaType": {"type": "string"},
            "size": {"type": "integer", "description": "Bytes."},
            "sha256": {"type": "string", "description": "Of these bytes, in hex."},
            "claim": {"type": "string", "description": "For the header `Operation-Upload` of the submit."},
            "expiresAt": {**_INSTANT, "description": "Until when the submit may come."},
        },
        "required": ["operationId", "name", "mediaType", "size", "sha256", "claim", "expiresAt"],
    }
    example = {
        "operationId": OPERATION_ID,
        "name": "scan.tif",
        "mediaType": "image/tiff",
        "size": 48_213,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "claim": "lM5pJx1o…",
        "expiresAt": "2026-11-25T04:00:00Z",
    }
    return {
        "operationId": UPLOAD,
        "summary": "Send a file for an operation that is not submitted yet",
        "description": (
            f"The body is the file, {limit} bytes at most, whatever its media type. What no submit names within "
            "`expiresAt` is removed."
        ),
        "tags": [TAG],
        "parameters": refs("parameters", "StatusId", "FileName", "api-version", "x-ms-client-request-id"),
        "requestBody": {"required": False, "content": {"application/octet-stream": {"schema": {}}}},
        "responses": {
            "201": {
                "description": "The file is stored",
                "headers": header_refs("Cache-Control"),
                "content": json_content(uploaded, {"file": {"value": example}}),
            },
            **error_responses(
                "InvalidSubmit",
                "PayloadNotFound",
                "TooLargeCancel",
                "UnsupportedCancel",
                "CrossSiteRequest",
                "Unavailable",
            ),
        },
    }
