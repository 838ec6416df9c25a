"""The path that erases confidential operations, in the OpenAPI document."""

from __future__ import annotations

from typing import Final

from opstream_api.openapi.responses import error_responses
from opstream_api.openapi.shared import Json, header_refs, refs
from opstream_schemas.event_types.erasure import REASON_LIMIT

ERASE_PARAMETERS: Final[Json] = {
    "EraseReason": {
        "name": "reason",
        "in": "query",
        "description": f"Why, for the record that stays; {REASON_LIMIT} bytes at most.",
        "schema": {"type": "string", "maxLength": REASON_LIMIT},
    }
}


def erase() -> Json:
    """Build the operation."""
    return {
        "operationId": "erase",
        "summary": "Erase a confidential operation",
        "description": (
            "What a confidential operation was about can't be read any more, by nobody and nowhere: its key is "
            "destroyed. Status and times stay, with `erased`. It has to have ended. A repeated request changes nothing."
        ),
        "tags": ["operations"],
        "parameters": refs("parameters", "StatusId", "EraseReason", "api-version", "x-ms-client-request-id"),
        "responses": {
            "204": {"description": "It is erased, now or before", "headers": header_refs()},
            **error_responses("InvalidRead", "OperationNotFound", "EraseRefused", "CrossSiteRequest", "Unavailable"),
        },
    }
