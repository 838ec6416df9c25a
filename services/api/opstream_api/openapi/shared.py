"""What the paths of the document share: schemas of the contract, headers, parameters, references to them. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opstream_api.http.callback_header import CALLBACK_HEADER
from opstream_api.http.conditional_headers import MAX_STATUS_TOKEN_SECONDS, MAX_WAIT
from opstream_api.http.priority_header import PRIORITY_HEADER
from opstream_api.http.submit_request import LABEL_HEADER, START_AFTER, START_AT
from opstream_schemas.json_schemas import json_schemas
from opstream_schemas.names import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN, MAX_LABELS
from opstream_schemas.operation.priority import PRIORITIES
from opstream_schemas.status_monitor import ErrorBody, StatusMonitor, WaitingReason
from opstream_schemas.urls import URL_LIMIT

Json = dict[str, Any]

JSON: Final = "application/json"
SCHEMAS: Final = "#/components/schemas/"
_LABEL: Final = f"{LABEL_KEY_PATTERN}={LABEL_VALUE_PATTERN}"
OPERATION_ID_PATTERN: Final = "^[A-Za-z0-9_-]{1,64}$"
REPEATABILITY_ID_PATTERN: Final = r"^[\x21-\x7e]{1,256}$"
CLIENT_ID_PATTERN: Final = r"^[\x20-\x7e]{1,128}$"
FIRST_SENT_PATTERN: Final = (
    "^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?:0[1-9]|[12][0-9]|3[01]) "
    "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} (?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9] GMT$"
)
"""IMF-fixdate (RFC 9110). Only the service itself refuses a date such as 30 February."""

_REFUSED: Final = (
    r"\u0000-\u001f\u007f-\u009f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
    # Regex dialects escape characters beyond the first plane differently, so these are written literally.
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
"""Control and format characters and line separators, except for the joiners U+200C and U+200D."""
_CHARACTER: Final = f"[^/{_REFUSED}]"
_NO_DOT: Final = f"[^./{_REFUSED}]"

RESOURCE_ID_PATTERN: Final = rf"^(?:{_NO_DOT}{_CHARACTER}*|\.{_NO_DOT}{_CHARACTER}*|\.\.{_CHARACTER}+)$"
"""The rule of `opstream_schemas.names.check_resource_id` for JSON Schema validators of any language.

It excludes `.` and `..` without a look-ahead, which some validators lack. A test compares it with the rule.
"""

_TIME_PATTERN: Final = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.][0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
"""Of a header. With `format: date-time` a generator of Python clients leaves out each action that has the header."""
_INSTANT: Final[Json] = {"type": "string", "format": "date-time"}
_WHOLE_SECONDS: Final[Json] = {"type": "integer", "minimum": 1}
_TEXT: Final[Json] = {"type": "string"}


def ref(kind: str, name: str) -> Json:
    """Build a reference to a component of a kind (`schemas`, `headers`, …)."""
    return {"$ref": f"#/components/{kind}/{name}"}


def refs(kind: str, *names: str) -> list[Json]:
    """Build references, in order."""
    return [ref(kind, name) for name in names]


def json_content(schema: Json, examples: Json | None = None) -> Json:
    """Describe a JSON body by its schema and named examples, each `{"value": …}` or a reference."""
    return {JSON: {"schema": schema, **({"examples": examples} if examples else {})}}


def header_refs(*names: str) -> Json:
    """Build references to the headers of a response: the named ones and those of every response."""
    always = {"x-ms-request-id": "RequestId", "x-ms-client-request-id": "ClientRequestId"}
    return {name: ref("headers", always.get(name, name)) for name in (*names, *always)}


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
            "description": "`Resource`: the operation that has the resource, if the caller may read it.",
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
        "description": "What an operation waits for that has not started, or whose action sleeps or awaits a signal: "
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
    "retryOf": {
        "type": "string",
        "pattern": OPERATION_ID_PATTERN,
        "description": "The operation that it does again, if it is a follow-up.",
    },
    "retriedBy": {
        "type": "string",
        "pattern": OPERATION_ID_PATTERN,
        "description": "Its follow-up, if there is one that the caller may read. Only a read of a status has it.",
    },
    "priority": {
        "type": "string",
        "description": "Its priority; absent for an action without priorities. Expect other words, too.",
        "examples": [str(one) for one in PRIORITIES],
    },
    "attachments": {"type": "array", "items": {"$ref": SCHEMAS + "AttachedFile"}, "description": "The action's files."},
    "labels": {
        "type": "object",
        "description": "The labels of the submit; absent without one.",
        "propertyNames": {"pattern": f"^{LABEL_KEY_PATTERN}$"},
        "additionalProperties": {"type": "string"},
        "examples": [{"team": "press"}],
    },
}
"""Members of the status monitor as they are sent: absent rather than null."""

ACCESS_HEADERS: Final[Json] = {
    "WWW-Authenticate": {
        "description": "How to send credentials (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
    }
}
"""Headers of the errors of a service that asks for credentials."""
HEADERS: Final[Json] = {
    "Operation-Location": {
        "description": "Absolute URL of the status monitor.",
        "required": True,
        "schema": {"type": "string", "format": "uri"},
    },
    "Operation-Id": {
        "description": "The operation's id: the one in the request, or a generated one.",
        "required": True,
        "schema": {"type": "string", "pattern": OPERATION_ID_PATTERN},
    },
    "Operation-Stored-Id": {
        "description": "The id under which the operation is stored, if the client knows it by another one: with it in "
        "place of `subject`, the events are the bytes that the hash chain covers.",
        "schema": {"type": "string", "pattern": OPERATION_ID_PATTERN},
    },
    "Retry-After": {"description": "Whole seconds to wait before the next request.", "schema": _WHOLE_SECONDS},
    "Repeatability-Result": {
        "description": "Result for `Repeatability-Request-ID`: whether the request was carried out, now or before.",
        "schema": {"enum": ["accepted", "rejected"], "type": "string"},
    },
    "ETag": {
        "description": "Changes with the body; for `If-None-Match`.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[^"]+"$'},
    },
    "Preference-Applied": {"description": "What of `Prefer` the service applies.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "Whether the response may be cached.", "schema": {"type": "string"}},
    "Vary": {"description": "Request headers that the response depends on.", "schema": {"type": "string"}},
    "RequestId": {
        "description": "Identifies this request in the service's log.",
        "required": True,
        "schema": {"type": "string"},
    },
    "ClientRequestId": {
        "description": "The request's own `x-ms-client-request-id`, if it is valid.",
        "schema": {"type": "string", "pattern": CLIENT_ID_PATTERN},
    },
}
"""By their names in responses, except for the headers of every response."""


def _header(name: str, description: str, schema: Json | None = None) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema or _TEXT}


PARAMETERS: Final[Json] = {
    "ResourceId": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The resource's own id: printable, without `/`, neither `.` nor `..`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": RESOURCE_ID_PATTERN},
        "example": "42",
    },
    "StatusId": {
        "name": "operationId",
        "in": "path",
        "required": True,
        "description": "The operation's id: the `id` of the status monitor in the response to the submit.",
        "schema": {"type": "string", "pattern": OPERATION_ID_PATTERN},
    },
    "Operation-Id": _header(
        "Operation-Id",
        "The operation's id: use a new one, such as a UUID, for each operation. The same request with the same id is "
        "the same operation; another request with it is refused.",
        {"type": "string", "pattern": OPERATION_ID_PATTERN},
    ),
    "Repeatability-Request-ID": _header(
        "Repeatability-Request-ID",
        "OASIS Repeatable Requests 1.0, in place of `Operation-Id`: a new UUID for each operation. "
        "Needs `Repeatability-First-Sent`.",
        {"type": "string", "pattern": REPEATABILITY_ID_PATTERN},
    ),
    "Repeatability-First-Sent": _header(
        "Repeatability-First-Sent",
        "The time of the first try, e.g. `Tue, 24 Nov 2026 08:00:00 GMT`. Needs `Repeatability-Request-ID`.",
        {"type": "string", "pattern": FIRST_SENT_PATTERN},
    ),
    CALLBACK_HEADER: _header(
        CALLBACK_HEADER,
        "The URL to deliver the outcome to: https, without user, password or fragment, on a host that the operator "
        "allows. The service posts the CloudEvent that ended the operation, signed as Standard Webhooks says. The URL "
        "is part of the request: a known `Operation-Id` with another callback is refused.",
        {"type": "string", "format": "uri", "maxLength": URL_LIMIT, "pattern": "^https?://"},
    ),
    START_AT: _header(
        START_AT,
        "The time before which the operation does not begin (RFC 3339, with its zone). One that has passed is at once. "
        "It is part of the request: a known `Operation-Id` with another start time is refused.",
        {"type": "string", "pattern": _TIME_PATTERN},
    ),
    START_AFTER: _header(
        START_AFTER,
        f"In place of `{START_AT}`: the whole seconds from the request before which the operation does not begin. "
        "Repeated with the same `Operation-Id` and the same number, it is the same request.",
        {"type": "string", "pattern": "^[0-9]{1,9}$"},
    ),
    LABEL_HEADER: _header(
        LABEL_HEADER,
        f"The operation's labels, {MAX_LABELS} at most: `key=value`, several with commas between, or the header "
        "repeated. They are in the status as `labels`, and a repetition of the request keeps those of the first.",
        {"type": "string", "pattern": f"^{_LABEL}(?: *, *{_LABEL}){{0,{MAX_LABELS - 1}}}$"},
    ),
    PRIORITY_HEADER: _header(
        PRIORITY_HEADER,
        "Before which others it begins while runners are busy. A repetition of the request keeps that of the first.",
        {"type": "string", "enum": [str(one) for one in PRIORITIES]},
    ),
    "traceparent": _header("traceparent", "W3C Trace Context, stored and continued. A malformed one is ignored."),
    "tracestate": _header("tracestate", "W3C Trace Context, of the `traceparent`."),
    "x-ms-client-request-id": _header(
        "x-ms-client-request-id",
        "Your own name for this request, sent back if it is 1 to 128 printable ASCII characters "
        f"(`{CLIENT_ID_PATTERN}`), and sent once; ignored otherwise.",
    ),
    "Prefer": _header(
        "Prefer",
        "`wait=30` (RFC 7240): the response comes when the operation has ended or the seconds are over, "
        f"{MAX_WAIT} at most.",
    ),
    "PayloadId": {
        "name": "payload",
        "in": "path",
        "required": True,
        "description": "The last part of `href` of a file, or of the URI of an input or a result in an event.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "Range": _header("Range", "One range of bytes, as `bytes=0-1023`; several are answered with the whole."),
    "If-None-Match": _header("If-None-Match", "`ETag`s of responses that you have; `304` if one of them is current."),
    "Last-Event-ID": _header(
        "Last-Event-ID", "For a stream: the `id` of the last event that you have. Only later ones are sent."
    ),
    "api-version": {
        "name": "api-version",
        "in": "query",
        "description": "Accepted without effect. Any other query parameter is refused.",
        "schema": _TEXT,
    },
}
ACCESS_PARAMETERS: Final[Json] = {
    "PreferStatusToken": _header(
        "Prefer",
        "`status-token=600` (RFC 7240): `Operation-Location` has a token with which the status can be read for so "
        f"many seconds without other credentials, {MAX_STATUS_TOKEN_SECONDS} at most.",
    )
}
"""Parameters of a submit, if the service asks for credentials."""
