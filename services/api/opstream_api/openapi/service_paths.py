"""The paths of the service itself: documents, their page, health. Pure."""

from __future__ import annotations

from typing import Final

from opstream_api.errors import STATUS_OF
from opstream_schemas.asyncapi import ASYNCAPI_VERSION
from opstream_schemas.errors import ErrorCode

from .responses import error_responses
from .shared import Json, header_refs, json_content, refs

TAG: Final = "service"
PROBES: Final = frozenset({"healthz", "readyz"})
"""Paths that never need credentials, by their operation ids."""

_UNKNOWN_HOST: Final = str(STATUS_OF[ErrorCode.UNKNOWN_HOST])

_OK: Final = json_content(
    {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]},
    {"ok": {"value": {"status": "ok"}}},
)
_READY: Final = json_content(
    {
        "type": "object",
        "properties": {
            "status": {"const": "ready"},
            "conditions": {
                "type": "array",
                "description": "What an operator should look at; absent while all is well",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "message": {"type": "string"},
                        "nextStep": {"type": "string"},
                        "isBlocking": {"type": "boolean"},
                    },
                    "required": ["name", "message", "nextStep", "isBlocking"],
                },
            },
            "counters": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "required": ["status"],
    },
    {"ready": {"value": {"status": "ready"}}},
)
_DOCUMENT: Final = json_content(
    {"type": "object", "properties": {"openapi": {"const": "3.1.0"}}, "required": ["openapi", "info", "paths"]}
)
_EVENTS: Final = json_content(
    {
        "type": "object",
        "properties": {"asyncapi": {"const": ASYNCAPI_VERSION}},
        "required": ["asyncapi", "info", "channels", "operations", "components"],
    }
)


def service_paths() -> Json:
    """Build the paths of the service itself."""
    ready = "The broker is reachable and the journal accepts operations"
    return {
        "/openapi.json": {"get": _get("openapi", "This document", _DOCUMENT)},
        "/asyncapi.json": {"get": _get("asyncapi", "The events that can be subscribed to, as AsyncAPI 3.0", _EVENTS)},
        "/docs": {"get": _page()},
        "/healthz": {"get": _probe(_get("healthz", "The process responds", _OK))},
        "/readyz": {"get": _probe(_get("readyz", ready, _READY, "Unavailable"))},
    }


def _get(name: str, summary: str, body: Json, *errors: str) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "tags": [TAG],
        "parameters": refs("parameters", "x-ms-client-request-id"),
        "responses": {
            "200": {"description": summary, "headers": header_refs(), "content": body},
            **error_responses("InvalidRequest", *errors),
        },
    }


def _probe(path: Json) -> Json:
    """Return the path of a probe, which names the service by any host."""
    responses = {status: response for status, response in path["responses"].items() if status != _UNKNOWN_HOST}
    return {**path, "responses": responses}


def _page() -> Json:
    summary = "This document as a page"
    page_headers = header_refs("ETag", "Cache-Control", "Vary")
    return {
        **_get("docs", summary, {}),
        "parameters": refs("parameters", "If-None-Match", "x-ms-client-request-id"),
        "responses": {
            "200": {
                "description": summary,
                "headers": page_headers,
                "content": {"text/html": {"schema": {"type": "string"}}},
            },
            "304": {"description": "The client has the current representation", "headers": page_headers},
            **error_responses("InvalidRequest"),
        },
    }
