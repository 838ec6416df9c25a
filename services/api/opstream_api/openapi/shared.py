"""What several paths of the document share: schemas of the contract, headers, parameters, ways to refer to them.

Pure. Called by every other module of this package.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opstream_api.http.callback_header import CALLBACK_HEADER
from opstream_api.http.conditional_headers import MAX_WAIT
from opstream_schemas.json_schemas import json_schemas
from opstream_schemas.status_monitor import ErrorBody, StatusMonitor
from opstream_schemas.urls import URL_LIMIT

Json = dict[str, Any]

JSON: Final = "application/json"
SCHEMAS: Final = "#/components/schemas/"
OPERATION_ID_PATTERN: Final = "^[A-Za-z0-9_-]{1,64}$"
REPEATABILITY_ID_PATTERN: Final = r"^[\x21-\x7e]{1,256}$"
FIRST_SENT_PATTERN: Final = (
    "^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?:0[1-9]|[12][0-9]|3[01]) "
    "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} (?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9] GMT$"
)
"""IMF-fixdate (RFC 9110); that February has no 30th is left to the service."""

_REFUSED: Final = (
    r"\u0000-\u001f\u007f-\u009f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
    # Beyond the first plane escapes differ between dialects, so these are the characters themselves.
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
"""Control and format characters and separators of lines, the joiners U+200C and U+200D aside."""
_CHARACTER: Final = f"[^/{_REFUSED}]"
_NO_DOT: Final = f"[^./{_REFUSED}]"

RESOURCE_ID_PATTERN: Final = rf"^(?:{_NO_DOT}{_CHARACTER}*|\.{_NO_DOT}{_CHARACTER}*|\.\.{_CHARACTER}+)$"
"""Neither `.` nor `..`, spelled without look-ahead, which not every validator knows."""

_INSTANT: Final[Json] = {"type": "string", "format": "date-time"}
_WHOLE_SECONDS: Final[Json] = {"type": "integer", "minimum": 1}
_TEXT: Final[Json] = {"type": "string"}


def ref(kind: str, name: str) -> Json:
    """A reference to a component of a kind (`schemas`, `headers`, …)."""
    return {"$ref": f"#/components/{kind}/{name}"}


def refs(kind: str, *names: str) -> list[Json]:
    """References, in order."""
    return [ref(kind, name) for name in names]


def json_content(schema: Json, examples: Json | None = None) -> Json:
    """A JSON body: its schema and named examples, each `{"value": …}` or a reference."""
    return {JSON: {"schema": schema, **({"examples": examples} if examples else {})}}


def header_refs(*names: str) -> Json:
    """The headers of an answer: those that every answer has, and the named ones."""
    always = {"x-ms-request-id": "RequestId", "x-ms-client-request-id": "ClientRequestId"}
    return {name: ref("headers", always.get(name, name)) for name in (*names, *always)}


def contract_schemas() -> Json:
    """Schemas of the status monitor, the error body and the events, as components."""
    _, found = msgspec.json.schema_components([StatusMonitor, ErrorBody], ref_template=SCHEMAS + "{name}")
    monitor = found["StatusMonitor"]
    for name, schema in _MONITOR_MEMBERS.items():
        monitor["properties"][name] = schema
    return {**found, **_events()}


def _events() -> Json:
    """Each type of event, and a history of them."""
    types: Json = {}
    for name, schema in json_schemas().items():
        if name == "operation":
            continue
        trace = schema.pop("$defs", {})
        types[name] = _with_component_refs({key: value for key, value in schema.items() if key != "$schema"})
        types |= trace
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
    """References into `$defs` as references to components."""
    if isinstance(node, list):
        return [_with_component_refs(item) for item in node]
    if not isinstance(node, dict):
        return node
    pointed = {key: _with_component_refs(value) for key, value in node.items()}
    if isinstance(node.get("$ref"), str):
        pointed["$ref"] = SCHEMAS + node["$ref"].rpartition("/")[2]
    return pointed


_LATER_EVENT: Final[Json] = {
    "title": "Event of a later version",
    "description": "Types are only ever added: pass over those that you do not know.",
    "type": "object",
    "required": ["specversion", "id", "source", "type", "subject", "time", "position", "previoushash", "data"],
}
_MONITOR_MEMBERS: Final[Json] = {
    "id": {"type": "string", "pattern": OPERATION_ID_PATTERN, "description": "The operation's id."},
    "result": {"description": "What the action returned; only when `Succeeded`."},
    "error": {
        "$ref": SCHEMAS + "OperationError",
        "description": "Why it failed; only when `Failed`. `code` is an HTTP status or a name that the action gives.",
    },
    "kind": {"type": "string", "description": "Resource and action.", "examples": ["book:upload-start"]},
    "resourceId": {"type": "string", "description": "The resource's own id; absent without one."},
    "createdAt": {**_INSTANT, "description": "When it was requested."},
    "startedAt": {**_INSTANT, "description": "When its first attempt began."},
    "finishedAt": {**_INSTANT, "description": "When it ended; the status stays readable for a day at least."},
    "attempt": {"type": "integer", "minimum": 1, "description": "Number of the current or last attempt."},
    "retryAt": {**_INSTANT, "description": "When the next attempt begins, while it waits for one."},
    "percentComplete": {"type": "number", "minimum": 0, "maximum": 100, "description": "How far it is."},
    "message": {"type": "string", "description": "What it is at, for a person."},
    "queuePosition": {
        "type": "integer",
        "minimum": 1,
        "description": "Its place among those that wait for the same resource; 1 is the next.",
    },
}
"""Members of the status monitor as they are sent: absent rather than null."""

HEADERS: Final[Json] = {
    "Operation-Location": {
        "description": "Absolute URL of the status monitor.",
        "required": True,
        "schema": {"type": "string", "format": "uri"},
    },
    "Operation-Id": {
        "description": "The operation's id, whoever chose it: the request's own, or one that was made for it.",
        "required": True,
        "schema": {"type": "string", "pattern": OPERATION_ID_PATTERN},
    },
    "Retry-After": {"description": "Whole seconds to wait before asking again.", "schema": _WHOLE_SECONDS},
    "Repeatability-Result": {
        "description": "Answers `Repeatability-Request-ID`: whether the request was carried out, now or before.",
        "schema": {"enum": ["accepted", "rejected"], "type": "string"},
    },
    "ETag": {
        "description": "Changes with the body; for `If-None-Match`.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[^"]+"$'},
    },
    "Preference-Applied": {"description": "The wait that was granted.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "Whether the answer may be kept.", "schema": {"type": "string"}},
    "Vary": {"description": "Request headers that the answer depends on.", "schema": {"type": "string"}},
    "RequestId": {
        "description": "Names this request in the service's log.",
        "required": True,
        "schema": {"type": "string"},
    },
    "ClientRequestId": {"description": "The request's own `x-ms-client-request-id`.", "schema": {"type": "string"}},
}
"""By the names that they have in answers, those of every answer aside."""


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
        "description": "The operation's id: the `id` of the status monitor that the submit answered with.",
        "schema": {"type": "string", "pattern": OPERATION_ID_PATTERN},
    },
    "Operation-Id": _header(
        "Operation-Id",
        "Becomes the operation's id: use a new one, such as a UUID, for each operation that you want. "
        "Sent again with the identical request it is the same operation, with another request it is refused.",
        {"type": "string", "pattern": OPERATION_ID_PATTERN},
    ),
    "Repeatability-Request-ID": _header(
        "Repeatability-Request-ID",
        "OASIS Repeatable Requests 1.0, in place of `Operation-Id`: a UUID for each operation that you want. "
        "Needs `Repeatability-First-Sent`.",
        {"type": "string", "pattern": REPEATABILITY_ID_PATTERN},
    ),
    "Repeatability-First-Sent": _header(
        "Repeatability-First-Sent",
        "When the request was sent for the first time, e.g. `Tue, 24 Nov 2026 08:00:00 GMT`. "
        "Needs `Repeatability-Request-ID`.",
        {"type": "string", "pattern": FIRST_SENT_PATTERN},
    ),
    CALLBACK_HEADER: _header(
        CALLBACK_HEADER,
        "Where the outcome is to be delivered: an https URL without user, password or fragment, on a host that the "
        "operator allows. The CloudEvent that ended the operation is posted there, signed after Standard Webhooks. It "
        "is part of the request: sent again with another callback, a known `Operation-Id` is refused.",
        {"type": "string", "format": "uri", "maxLength": URL_LIMIT, "pattern": "^https?://"},
    ),
    "traceparent": _header("traceparent", "W3C Trace Context, recorded and continued. A malformed one is ignored."),
    "tracestate": _header("tracestate", "W3C Trace Context, of the `traceparent`."),
    "x-ms-client-request-id": _header(
        "x-ms-client-request-id",
        "Your own name for this request, sent back if it is 1 to 128 printable ASCII characters.",
    ),
    "Prefer": _header(
        "Prefer",
        "`wait=30` (RFC 7240): the request is held until the operation has ended or the seconds are over, "
        f"{MAX_WAIT} at most.",
    ),
    "If-None-Match": _header("If-None-Match", "`ETag`s of answers that you have; `304` if one of them still holds."),
    "Last-Event-ID": _header(
        "Last-Event-ID", "Of a stream: the `id` of the last event that you have. Only later ones are sent."
    ),
    "api-version": {
        "name": "api-version",
        "in": "query",
        "description": "Tolerated, and without effect. Any other query parameter is refused.",
        "schema": _TEXT,
    },
}
