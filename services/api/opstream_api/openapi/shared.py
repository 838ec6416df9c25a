"""What the paths of the document share: headers, parameters, references to components. Pure."""

from __future__ import annotations

from typing import Any, Final

from opstream_api.http.callback_header import CALLBACK_HEADER
from opstream_api.http.conditional_headers import MAX_STATUS_TOKEN_SECONDS, MAX_WAIT
from opstream_api.http.priority_header import PRIORITY_HEADER
from opstream_api.http.submit_headers.upload_header import UPLOAD_HEADER
from opstream_api.http.submit_request import LABEL_HEADER, START_AFTER, START_AT
from opstream_schemas.event_types.claims import FILE_NAME_PATTERN, MAX_UPLOADS
from opstream_schemas.names import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN, MAX_LABELS
from opstream_schemas.operation.priority import PRIORITIES
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
    UPLOAD_HEADER: _header(
        UPLOAD_HEADER,
        f"The `claim` of each file that was uploaded for the operation, {MAX_UPLOADS} at most, several with commas "
        "between, or the header repeated. The files are part of the request: a known `Operation-Id` with others is "
        "refused.",
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
    "FileName": {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "The name of the file, which is no path.",
        "schema": {"type": "string", "pattern": f"^{FILE_NAME_PATTERN}$"},
        "example": "scan.tif",
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
