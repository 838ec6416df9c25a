"""The paths of failed webhook deliveries and of dead letters, and the schemas of what they return. Pure."""

from __future__ import annotations

from typing import Final

from opstream_api.openapi.responses import error_responses
from opstream_api.openapi.samples import OPERATION_ID
from opstream_api.openapi.shared import OPERATION_ID_PATTERN, Json, header_refs, json_content, ref, refs

TAG: Final = "undelivered"

_TEXT: Final[Json] = {"type": "string"}
_INSTANT: Final[Json] = {"type": "string", "format": "date-time"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_NAME: Final = "^[a-z0-9-]{1,40}$"
_DURABLE: Final = "^[A-Za-z0-9-]{1,64}$"

_DELIVERY: Final[Json] = {
    "type": "object",
    "description": "The last attempt of a webhook delivery that never succeeded.",
    "properties": {
        "operationId": _TEXT,
        "action": {**_TEXT, "description": "Resource and action."},
        "event": {**_TEXT, "examples": ["succeeded", "failed", "canceled"]},
        "endpoint": {**_TEXT, "description": "A configured endpoint, or `callback`."},
        "url": {**_TEXT, "description": "Without its query."},
        "attempt": _COUNT,
        "at": {**_INSTANT, "description": "When the attempt began."},
        "outcome": {**_TEXT, "examples": ["retrying", "gave-up"]},
        "status": {**_COUNT, "description": "Of HTTP; absent without an answer."},
        "error": {**_TEXT, "description": "Why there was no answer, or why it did not count."},
        "nextAt": {**_INSTANT, "description": "When it is tried next by itself; absent if it is given up."},
    },
    "required": ["operationId", "action", "event", "endpoint", "attempt", "at", "outcome"],
}
_LETTER: Final[Json] = {
    "type": "object",
    "description": "An event that a subscriber could not handle, and put aside.",
    "properties": {
        "durable": {**_TEXT, "description": "Of the subscriber."},
        "sequence": {**_COUNT, "description": "Of the event in the stream OPERATIONS."},
        "operationId": _TEXT,
        "action": _TEXT,
        "event": _TEXT,
        "reason": {**_TEXT, "examples": ["HandlerFailed"]},
        "detail": _TEXT,
        "deliveries": {**_COUNT, "description": "How often the subscriber got it."},
    },
    "required": ["durable", "sequence", "operationId", "action", "event", "reason", "detail", "deliveries"],
}


def _after(pattern: str) -> Json:
    return {
        "name": "after",
        "in": "query",
        "description": "Where the list goes on: as `nextLink` has it.",
        "schema": {"type": "string", "pattern": pattern},
    }


UNDELIVERED_SCHEMAS: Final[Json] = {"UndeliveredItem": _DELIVERY, "ParkedItem": _LETTER}
UNDELIVERED_PARAMETERS: Final[Json] = {
    "Endpoint": {
        "name": "endpoint",
        "in": "path",
        "required": True,
        "description": "The name of a configured endpoint, or `callback`.",
        "schema": {"type": "string", "pattern": _NAME},
        "example": "callback",
    },
    "DeliveredOperation": {
        "name": "operationId",
        "in": "path",
        "required": True,
        "description": "The operation whose outcome was not delivered.",
        "schema": {"type": "string", "pattern": OPERATION_ID_PATTERN},
        "example": OPERATION_ID,
    },
    "Durable": {
        "name": "durable",
        "in": "path",
        "required": True,
        "description": "The durable of the subscriber.",
        "schema": {"type": "string", "pattern": _DURABLE},
        "example": "mailer",
    },
    "Sequence": {
        "name": "sequence",
        "in": "path",
        "required": True,
        "description": "The stream sequence of the event.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
        "example": 1234,
    },
    "AfterRecord": _after("^[1-9][0-9]{0,17}$"),
    "AfterLetter": _after(r"^[A-Za-z0-9-]{1,64}\.[1-9][0-9]{0,17}$"),
}


def undelivered_paths() -> Json:
    """Build the paths."""
    return {
        "/webhooks/deliveries": {
            "get": _list(
                "deliveries", "Webhook deliveries that failed and never succeeded", "UndeliveredItem", "AfterRecord"
            )
        },
        "/webhooks/deliveries/{operationId}/{endpoint}:redeliver": {
            "post": _act(
                "delivery.redeliver",
                "Make a failed delivery again now",
                "DeliveredOperation",
                "Endpoint",
                errors=("DeliveryNotFound",),
            )
        },
        "/subscribers/parked": {
            "get": _list("parked", "Events that subscribers could not handle", "ParkedItem", "AfterLetter")
        },
        "/subscribers/parked/{durable}/{sequence}:retry": {
            "post": _act(
                "parked.retry",
                "Have a subscriber handle an event again",
                "Durable",
                "Sequence",
                errors=("DeadLetterNotFound", "HandlingFailed"),
            )
        },
    }


def _list(name: str, summary: str, item: str, after: str) -> Json:
    page = {
        "type": "object",
        "properties": {
            "value": {"type": "array", "items": ref("schemas", item)},
            "nextLink": {**_TEXT, "format": "uri", "description": "Absolute URL of the next page; absent at the end."},
        },
        "required": ["value"],
    }
    response = {
        "description": "A page, which may have no item and still a next one",
        "headers": header_refs("Cache-Control"),
        "content": json_content(page),
    }
    return {
        "operationId": name,
        "summary": summary,
        "tags": [TAG],
        "parameters": refs("parameters", after, "api-version", "x-ms-client-request-id"),
        "responses": {"200": response, **error_responses("InvalidRead", "Unreadable")},
    }


def _act(name: str, summary: str, *parameters: str, errors: tuple[str, ...]) -> Json:
    shared = ("InvalidCancel", "TooLargeCancel", "UnsupportedCancel", "CrossSiteRequest", "NotRunning")
    return {
        "operationId": name,
        "summary": summary,
        "tags": [TAG],
        "parameters": refs("parameters", *parameters, "api-version", "x-ms-client-request-id"),
        "responses": {
            "204": {"description": summary, "headers": header_refs()},
            **error_responses(*shared, *errors),
        },
    }
