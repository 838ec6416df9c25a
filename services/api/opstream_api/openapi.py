"""`/openapi.json`: OpenAPI 3.1, with each action of the catalog as paths and schemas of its own.

Pure but for `Document`, which looks at the catalog and keeps the encoded document until that changes. Called by
`app.py`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from opstream_journal import Catalog, JournalError
from opstream_schemas.catalog import ActionSpec
from opstream_schemas.errors import ErrorCode
from opstream_schemas.monitor import ErrorBody, StatusMonitor

from .errors import STATUS_OF

logger = logging.getLogger(__name__)

Json = dict[str, Any]

API_VERSION: Final = "1"
"""Of the contract: codes, headers and paths only ever get more."""

_SCHEMAS: Final = "#/components/schemas/"
_DEFS: Final = "#/$defs/"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]")
_LITERALS: Final = frozenset({"const", "default", "enum", "examples"})
"""Keywords that hold values, not schemas."""
_SUBMIT_ERRORS: Final = (400, 404, 413, 415, 500, 503)
_STATUS_ERRORS: Final = (404, 500, 503)
_JSON: Final = "application/json"
_OPERATION_ID: Final = "^[A-Za-z0-9_-]{1,64}$"


class Document:
    """The document, encoded; made again once the catalog has changed.

    Args:
        catalog: what to describe.
        public_url: base URL of the service; empty if each request's host says it.
    """

    def __init__(self, catalog: Catalog, public_url: str) -> None:
        self._catalog = catalog
        self._public_url = public_url
        self._encoded: bytes | None = None
        catalog.on_change(self._forget)

    async def current(self) -> bytes:
        """JSON, with every action announced by now; while the broker is away, with those that are known."""
        try:
            await self._catalog.refresh()
        except JournalError as error:
            logger.info("describing the actions that are known: %s", error)
        return self.encoded()

    def encoded(self) -> bytes:
        """JSON, of what is known."""
        if self._encoded is None:
            specs = self._catalog.specs
            document = openapi((specs[kind] for kind in sorted(specs)), self._public_url)
            self._encoded = msgspec.json.encode(document)
        return self._encoded

    def _forget(self) -> None:
        self._encoded = None


def openapi(specs: Iterable[ActionSpec], public_url: str = "") -> Json:
    """The OpenAPI 3.1 document of a service that offers these actions."""
    specs = list(specs)
    _, contract = msgspec.json.schema_components([StatusMonitor, ErrorBody], ref_template=_SCHEMAS + "{name}")
    schemas: Json = dict(contract)
    paths: Json = {}
    for spec in specs:
        schemas |= _components(spec)
        paths[f"/{spec.resource}/{{id}}:{spec.action}"] = {"post": _submit(spec, has_id=True)}
        paths[f"/{spec.resource}:{spec.action}"] = {"post": _submit(spec, has_id=False)}
    paths["/status/{operationId}"] = {"get": _status()}
    paths["/healthz"] = {"get": _probe("healthz", "The process answers", ())}
    paths["/readyz"] = {"get": _probe("readyz", "The broker is reachable and the journal takes operations", (503,))}
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "opstream",
            "version": API_VERSION,
            "description": "Long-running operations: submit with POST, then poll the Operation-Location.",
        },
        "paths": paths,
        "components": {"schemas": schemas, "headers": _HEADERS, "parameters": _PARAMETERS},
    }
    return document | ({"servers": [{"url": public_url}]} if public_url else {})


def _submit(spec: ActionSpec, *, has_id: bool) -> Json:
    parameters = [_parameter("OperationId"), _parameter("Traceparent"), _parameter("ApiVersion")]
    if has_id:
        parameters.insert(0, _parameter("ResourceId"))
    return {
        "operationId": f"{spec.resource}.{spec.action}" + ("" if has_id else ".collection"),
        "summary": spec.summary or str(spec.kind),
        "tags": [spec.resource],
        "parameters": parameters,
        "requestBody": {"required": True, "content": _content(_name(spec, "input"))},
        "responses": {
            "202": {
                "description": "Recorded; the body is the status monitor",
                "headers": {
                    "Operation-Location": {"$ref": "#/components/headers/OperationLocation"},
                    "Retry-After": {"$ref": "#/components/headers/RetryAfter"},
                    "x-ms-request-id": {"$ref": "#/components/headers/RequestId"},
                },
                "content": _content(_name(spec, "monitor")),
            },
            **_errors(_SUBMIT_ERRORS),
        },
    }


def _status() -> Json:
    return {
        "operationId": "status",
        "summary": "The state of an operation",
        "tags": ["operations"],
        "parameters": [_parameter("StatusId")],
        "responses": {
            "200": {
                "description": "The operation is known, whatever became of it; Retry-After while it is not finished",
                "headers": {
                    "Retry-After": {"$ref": "#/components/headers/RetryAfter"},
                    "x-ms-request-id": {"$ref": "#/components/headers/RequestId"},
                },
                "content": _content("StatusMonitor"),
            },
            **_errors(_STATUS_ERRORS),
        },
    }


def _probe(name: str, summary: str, errors: Iterable[int]) -> Json:
    schema = {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}
    answer = {"description": summary, "content": {_JSON: {"schema": schema}}}
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["health"],
        "responses": {"200": answer, **_errors(errors)},
    }


def _errors(statuses: Iterable[int]) -> Json:
    answers: Json = {}
    for status in statuses:
        codes = ", ".join(code for code in _USED if STATUS_OF[code] == status)
        headers: Json = {
            "x-ms-error-code": {"$ref": "#/components/headers/ErrorCode"},
            "x-ms-request-id": {"$ref": "#/components/headers/RequestId"},
        }
        if status == 503:
            headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
        answers[str(status)] = {"description": codes, "headers": headers, "content": _content("ErrorBody")}
    return answers


def _components(spec: ActionSpec) -> Json:
    """The schemas of an action under names that no other action has, and the monitor that its result appears in."""
    result = {"properties": {"result": {"$ref": _SCHEMAS + _name(spec, "result")}}}
    return {
        **_moved(spec.input_schema, _name(spec, "input")),
        **_moved(spec.result_schema, _name(spec, "result")),
        _name(spec, "monitor"): {"allOf": [{"$ref": _SCHEMAS + "StatusMonitor"}, result]},
    }


def _name(spec: ActionSpec, role: str) -> str:
    # A '.' is in no resource or action, so names can't collide.
    return f"{spec.resource}.{spec.action}.{role}"


def _moved(schema: Mapping[str, Any], name: str) -> Json:
    """A schema and its `$defs` as components: references inside of it now start at the document's root."""
    names: dict[str, str] = {}
    for key in schema.get("$defs", {}):
        wanted = f"{name}.{_NOT_IN_NAMES.sub('_', key)}"
        while wanted in names.values():
            wanted += "_"
        names[key] = wanted
    # `$id` would make references relative to itself again; the dialect is OpenAPI's own.
    top = {key: value for key, value in schema.items() if key not in {"$defs", "$id", "$schema"}}
    moved = {names[key]: _rewritten(value, name, names) for key, value in schema.get("$defs", {}).items()}
    return {name: _rewritten(top, name, names), **moved}


def _rewritten(node: Any, name: str, names: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(node, list):
        return [_rewritten(item, name, names) for item in node]
    if not isinstance(node, dict):
        return node
    rewritten: Json = {}
    for key, value in node.items():
        if key == "$ref" and isinstance(value, str):
            rewritten[key] = _reference(value, name, names)
        else:
            rewritten[key] = value if key in _LITERALS else _rewritten(value, name, names)
    return rewritten


def _reference(reference: str, name: str, names: Mapping[str, str]) -> str:
    if reference.startswith(_DEFS):
        key, slash, rest = reference.removeprefix(_DEFS).partition("/")
        return f"{_SCHEMAS}{names.get(_unescaped(key), name)}{slash}{rest}"
    return f"{_SCHEMAS}{name}{reference[1:]}" if reference.startswith("#") else reference


def _unescaped(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")


def _content(schema: str) -> Json:
    return {_JSON: {"schema": {"$ref": _SCHEMAS + schema}}}


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


_USED: Final = tuple(code for code in STATUS_OF if code not in {ErrorCode.RESOURCE_BUSY, ErrorCode.OPERATION_FINISHED})
_WHOLE_SECONDS: Final[Json] = {"type": "integer", "minimum": 1}
_HEADERS: Final[Json] = {
    "OperationLocation": {
        "description": "Absolute URL of the status monitor",
        "required": True,
        "schema": {"type": "string", "format": "uri"},
    },
    "RetryAfter": {"description": "Whole seconds to wait before asking again", "schema": _WHOLE_SECONDS},
    "RequestId": {"description": "Names this request in the service's log", "schema": {"type": "string"}},
    "ErrorCode": {"description": "The code in the body", "schema": {"type": "string"}},
}
_PARAMETERS: Final[Json] = {
    "ResourceId": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The resource's own id: printable, without '/', neither '.' nor '..'",
        "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    },
    "StatusId": {
        "name": "operationId",
        "in": "path",
        "required": True,
        "description": "The operation's id",
        "schema": {"type": "string", "pattern": _OPERATION_ID},
    },
    "OperationId": {
        "name": "Operation-Id",
        "in": "header",
        "description": "Becomes the operation's id. Sent again with the identical request, it is the same operation",
        "schema": {"type": "string", "pattern": _OPERATION_ID},
    },
    "Traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "W3C Trace Context, recorded and continued",
        "schema": {"type": "string"},
    },
    "ApiVersion": {"name": "api-version", "in": "query", "description": "Tolerated", "schema": {"type": "string"}},
}
