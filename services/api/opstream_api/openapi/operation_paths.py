"""The paths of operations: status, cancel, events. The same whatever actions there are, but for their examples. Pure.

Called by `document.py`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opstream_schemas.names import Kind

from .responses import error_responses
from .samples import sample_history, sample_monitor
from .shared import SCHEMAS, Json, header_refs, json_content, ref, refs

TAG: Final = "operations"


def operation_paths(kind: Kind, action_input: Any, result: Any) -> Json:  # noqa: ANN401 - JSON
    """What can be done with an operation; the arguments are those of an operation to show."""
    return {
        "/status/{operationId}": {"get": _status(kind, result)},
        "/status/{operationId}:cancel": {"post": _cancel(kind)},
        "/status/{operationId}/events": {"get": _events(kind, action_input, result)},
    }


def monitor_links() -> Json:
    """Where a status monitor leads."""
    told = {"operationId": "$response.body#/id"}
    return {name: {"operationId": name, "parameters": told} for name in ("status", "cancel", "events")}


def _status(kind: Kind, result: Any) -> Json:  # noqa: ANN401 - JSON
    states = ("notStarted", "queued", "running", "waiting", "succeeded", "failed", "canceled")
    also = ("ETag", "Cache-Control", "Vary", "Preference-Applied", "Retry-After")
    return {
        "operationId": "status",
        "summary": "The state of an operation",
        "description": (
            "Always `200` while the operation is known, whatever became of it. Ask again after `Retry-After` seconds "
            "as long as the answer has that header, or let `Prefer: wait` hold the request until the end."
        ),
        "tags": [TAG],
        "parameters": refs(
            "parameters", "StatusId", "Prefer", "If-None-Match", "api-version", "x-ms-client-request-id"
        ),
        "responses": {
            "200": {
                "description": "The status monitor",
                "headers": header_refs(*also),
                "content": json_content(
                    {"$ref": SCHEMAS + "StatusMonitor"},
                    {state: sample_monitor(state, kind, result=result) for state in states},
                ),
            },
            "304": {"description": "As the client has it already", "headers": header_refs(*also)},
            **error_responses("InvalidRead", "OperationNotFound", "Unreadable"),
        },
    }


def _cancel(kind: Kind) -> Json:
    schema = {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "description": "Recorded with the operation; cut at 4 KiB.", "default": ""}
        },
        "additionalProperties": False,
    }
    return {
        "operationId": "cancel",
        "summary": "Cancel an operation",
        "description": (
            "One that has not started is `Canceled` at once. One that runs is told, and says `Canceled` only once it "
            "has stopped; it may as well succeed or fail before that. Asking again changes nothing."
        ),
        "tags": [TAG],
        "parameters": refs("parameters", "StatusId", "api-version", "x-ms-client-request-id"),
        "requestBody": {
            "required": False,
            "content": json_content(schema, {"reason": {"value": {"reason": "the author wants another title"}}}),
        },
        "responses": {
            "200": {
                "description": "Canceled, or told to stop: the status monitor",
                "headers": header_refs("Retry-After"),
                "content": json_content(
                    {"$ref": SCHEMAS + "StatusMonitor"},
                    {state: sample_monitor(state, kind) for state in ("canceled", "running")},
                ),
            },
            **error_responses(
                "InvalidCancel",
                "OperationNotFound",
                "OperationFinished",
                "TooLargeCancel",
                "UnsupportedCancel",
                "Unavailable",
            ),
        },
    }


def _events(kind: Kind, action_input: Any, result: Any) -> Json:  # noqa: ANN401 - JSON
    shown = sample_history(kind, action_input, result)
    frames = (
        f"id: {event['position']}\nevent: {event['type'].split('.')[2]}\ndata: {msgspec.json.encode(event).decode()}\n"
        for event in shown["value"]
    )
    stream = {
        "schema": {"type": "string"},
        "examples": {
            "stream": {"summary": "The same, followed", "value": "retry: 1000\n\n" + "\n".join(frames) + "\n"}
        },
    }
    return {
        "operationId": "events",
        "summary": "The history of an operation",
        "description": (
            "Every event so far, oldest first, each with the hash of the one before it. With "
            "`Accept: text/event-stream` the same events as Server-Sent Events, and then each new one until the "
            "operation has ended; a client that comes back with `Last-Event-ID` gets what it has missed."
        ),
        "tags": [TAG],
        "parameters": refs("parameters", "StatusId", "Last-Event-ID", "api-version", "x-ms-client-request-id"),
        "responses": {
            "200": {
                "description": "The history",
                "headers": header_refs("Vary", "Cache-Control"),
                "content": {
                    **json_content(ref("schemas", "History"), {"history": {"summary": "All events", "value": shown}}),
                    "text/event-stream": stream,
                },
            },
            "204": {
                "description": "The client of a stream has every event that there will be",
                "headers": header_refs(),
            },
            **error_responses("InvalidRead", "OperationNotFound", "Unreadable"),
        },
    }
