"""The schemas of the contract: the status monitor, the error body, and the events. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opstream_api.openapi.shared import OPERATION_ID_PATTERN, SCHEMAS, Json
from opstream_schemas.json_schemas import json_schemas
from opstream_schemas.names import LABEL_KEY_PATTERN
from opstream_schemas.operation.priority import PRIORITIES
from opstream_schemas.status_monitor import ErrorBody, StatusMonitor, WaitingReason

_INSTANT: Final[Json] = {"type": "string", "format": "date-time"}
_TEXT: Final[Json] = {"type": "string"}
_ID: Final[Json] = {"type": "string", "pattern": OPERATION_ID_PATTERN}


def contract_schemas() -> Json:
    """Build the schemas of the status monitor, the error body and the events, as components."""
    _, found = msgspec.json.schema_components([StatusMonitor, ErrorBody], ref_template=SCHEMAS + "{name}")
    monitor = found["StatusMonitor"]
    for name, schema in _MONITOR_MEMBERS.items():
        monitor["properties"][name] = schema
    found["BlockedBy"] = _BLOCKED_BY
    return {**found, **_events()}


def _events() -> Json:
    """Build the schemas of each event type and of a history."""
    types: Json = {}
    for name, schema in json_schemas().items():
        if name == "operation":
            continue
        trace = schema.pop("$defs", {})
        types[name] = _with_component_refs({key: value for key, value in schema.items() if key != "$schema"})
        types |= _with_component_refs(trace)
    known = [name for name in types if name.startswith("opstream.")]
    later = {**_LATER_EVENT, "properties": {"type": {"type": "string", "not": {"enum": known}}}}
    any_event = [*({"$ref": SCHEMAS + name} for name in known), later]
    history = {
        "title": "History",
        "description": "The events of an operation, oldest first.",
        "type": "object",
        "properties": {"value": {"type": "array", "minItems": 1, "items": {"anyOf": any_event}}},
        "required": ["value"],
    }
    return {**types, "History": history}


def _with_component_refs(node: Any) -> Any:  # noqa: ANN401 - JSON
    """Replace references into `$defs` by references to components."""
    if isinstance(node, list):
        return [_with_component_refs(item) for item in node]
    if not isinstance(node, dict):
        return node
    replaced = {key: _with_component_refs(value) for key, value in node.items()}
    if isinstance(node.get("$ref"), str):
        replaced["$ref"] = SCHEMAS + node["$ref"].rpartition("/")[2]
    return replaced


_LATER_EVENT: Final[Json] = {
    "title": "Event of a later version",
    "description": "Types are only ever added: ignore unknown ones.",
    "type": "object",
    "required": ["specversion", "id", "source", "type", "subject", "time", "position", "previoushash", "data"],
}
_BEFORE_START: Final = [reason for reason in WaitingReason if reason is not WaitingReason.RETRY]
_BLOCKED_BY: Final[Json] = {
    "title": "BlockedBy",
    "description": "Why an open operation is not running now. Each member but `reason` belongs to some reasons.",
    "type": "object",
    "properties": {
        "reason": {
            "type": "string",
            "description": ", ".join(f"`{reason}`" for reason in WaitingReason) + ". Expect other words, too.",
            "examples": [str(reason) for reason in WaitingReason],
        },
        "since": {
            **_INSTANT,
            "description": "`Runner`: when the action had a runner last, to the minute. `Paused`: since when.",
        },
        "position": {"type": "integer", "minimum": 1, "description": "`Resource`: its position in the queue."},
        "operationId": {
            "type": "string",
            "description": "`Resource`: the operation that has the resource, if the caller may read it. "
            "`Child`: the child that is waited for.",
        },
        "until": {
            **_INSTANT,
            "description": "`Rate`, `Retry`, `Sleep`: when it goes on. `Paused`: when the pause ends. `Signal`: when "
            "the wait ends without it.",
        },
        "attempt": {"type": "integer", "minimum": 1, "description": "`Retry`: the number of the attempt that failed."},
        "error": {"$ref": SCHEMAS + "OperationError", "description": "`Retry`: why that attempt failed."},
        "version": {"type": "integer", "description": "`Version`: of the action that it was requested for."},
        "runnerVersions": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "`Version`: those that the action's runners have.",
        },
        "runners": {"type": "integer", "description": "`FreeRunner`: how many runners the action has."},
        "slots": {
            "type": "integer",
            "description": "`FreeRunner`: how many operations they run at once. `Concurrency`: how many may run.",
        },
        "by": {
            "type": "string",
            "description": "`Paused`: the operator who paused the action, for readers of no tenant.",
        },
        "message": {"type": "string", "description": "`Paused`: why, in the operator's words."},
        "signal": {"$ref": SCHEMAS + "AwaitedSignal", "description": "`Signal`: which, and who may send it."},
    },
    "required": ["reason"],
}
"""Built by hand, as the members of the status monitor are: absent rather than null."""
_MONITOR_MEMBERS: Final[Json] = {
    "id": {"type": "string", "pattern": OPERATION_ID_PATTERN, "description": "The operation's id."},
    "result": {"description": "What the action returned; only when `Succeeded`."},
    "error": {
        "$ref": SCHEMAS + "OperationError",
        "description": "Why it failed; only when `Failed`. `code` is an HTTP status or a name of the action's own.",
    },
    "kind": {"type": "string", "description": "Resource and action.", "examples": ["book:upload-start"]},
    "resourceId": {"type": "string", "description": "The resource's own id; absent without one."},
    "createdAt": {**_INSTANT, "description": "When it was requested."},
    "startAt": {
        **_INSTANT,
        "description": "The time before which it does not begin, if its request had a start time.",
    },
    "startedAt": {**_INSTANT, "description": "When its first attempt began."},
    "finishedAt": {**_INSTANT, "description": "When it ended; the status is readable for at least a day more."},
    "attempt": {"type": "integer", "minimum": 1, "description": "Number of the current or last attempt."},
    "retryAt": {**_INSTANT, "description": "When the next attempt begins, while it waits for one."},
    "percentComplete": {
        "type": "number",
        "minimum": 0,
        "maximum": 100,
        "description": "Progress in percent; 100 for a success.",
    },
    "message": {"type": "string", "description": "Progress in words, for people; until the operation succeeds."},
    "queuePosition": {
        "type": "integer",
        "minimum": 1,
        "description": "Its position among the operations that wait for the same resource; 1 is next.",
    },
    "waitingFor": {
        "type": "string",
        "description": "What an operation waits for that has not started, or whose action waits: "
        + ", ".join(f"`{reason}`" for reason in _BEFORE_START)
        + ". Expect other words, too.",
        "examples": [str(reason) for reason in _BEFORE_START],
    },
    "blockedBy": {
        "$ref": SCHEMAS + "BlockedBy",
        "description": "Why the operation is not running now, where that is known; absent while it runs.",
    },
    "cancelRequested": {
        "type": "boolean",
        "description": "True from a cancel request until the operation has ended; absent otherwise.",
    },
    "cancelRequestedAt": {**_INSTANT, "description": "When that was requested."},
    "keptSignals": {
        "type": "array",
        "items": _TEXT,
        "description": "Names of the signals that were sent to it, and that it does not wait for yet.",
    },
    "retryOf": {**_ID, "description": "The operation that it does again, if it is a follow-up."},
    "retriedBy": {
        **_ID,
        "description": "Its follow-up, if there is one that the caller may read. Only a read of a status has it.",
    },
    "priority": {
        "type": "string",
        "description": "Its priority; absent for an action without priorities. Expect other words, too.",
        "examples": [str(one) for one in PRIORITIES],
    },
    "erased": {
        "type": "object",
        "description": "That what it was about was erased: `DELETE`. Nothing sealed is shown any more.",
        "properties": {"at": _INSTANT, "by": _TEXT, "reason": _TEXT},
        "required": ["at"],
    },
    "attachments": {"type": "array", "items": {"$ref": SCHEMAS + "AttachedFile"}, "description": "The action's files."},
    "parent": {**_ID, "description": "The operation whose action asked for it, if it is a child."},
    "children": {
        "type": "array",
        "description": "The children of each call, with the ids of the first ones. A list of `parent eq` has all.",
        "items": {
            "type": "object",
            "required": ["name", "count", "ids"],
            "properties": {
                **{name: {"type": "string"} for name in ("name", "key")},
                "count": {"type": "integer", "minimum": 1},
                "ids": {"type": "array", "items": _ID},
            },
        },
    },
    "uploads": {"type": "array", "items": {"$ref": SCHEMAS + "AttachedFile"}, "description": "The client's files."},
    "labels": {
        "type": "object",
        "description": "The labels of the submit; absent without one.",
        "propertyNames": {"pattern": f"^{LABEL_KEY_PATTERN}$"},
        "additionalProperties": {"type": "string"},
        "examples": [{"team": "press"}],
    },
}
"""Members of the status monitor as they are sent: absent rather than null."""
