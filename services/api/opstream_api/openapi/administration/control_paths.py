"""The paths of actions as things: what there is, and what operators do to it. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from opstream_api.openapi.responses import error_responses
from opstream_api.openapi.shared import Json, header_refs, json_content, ref, refs
from opstream_schemas.action_spec import MAX_PAUSE_REASON, MAX_PAUSE_SECONDS
from opstream_schemas.names import NAME_PATTERN, Kind

CONTROL_TAG: Final = "actions"
_INSTANT: Final[Json] = {"type": "string", "format": "date-time"}
_REASON: Final[Json] = {
    "type": "string",
    "maxLength": MAX_PAUSE_REASON,
    "description": "For those who see it.",
    "default": "",
}
_PAUSE: Final[Json] = {
    "type": "object",
    "properties": {
        "reason": _REASON,
        "seconds": {"type": "integer", "minimum": 1, "maximum": MAX_PAUSE_SECONDS, "description": "How long."},
        "until": {**_INSTANT, "description": "Until when, instead of `seconds`. Without both until it is resumed."},
    },
    "not": {"required": ["seconds", "until"]},
    "additionalProperties": False,
}
_RESUME: Final[Json] = {"type": "object", "properties": {"reason": _REASON}, "additionalProperties": False}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_EXAMPLE: Final[Json] = {
    "action": "book:upload-start",
    "summary": "Begin to upload a book",
    "version": 2,
    "runnerCount": 1,
    "runnerVersions": [2],
    "slots": 4,
    "freeSlots": 4,
    "paused": {
        "since": "2026-11-30T12:00:00Z",
        "until": "2026-11-30T14:00:00Z",
        "reason": "the storage is being moved",
    },
}
CONTROL_SCHEMAS: Final[Json] = {
    "ListedAction": {
        "type": "object",
        "description": "An action, its runners, and what waits.",
        "properties": {
            "action": {"type": "string", "description": "Resource and action."},
            "summary": {"type": "string"},
            "version": {**_COUNT, "description": "The highest that was announced: submits are validated by it."},
            "runnerCount": {**_COUNT, "description": "Runners that are there."},
            "runnerVersions": {"type": "array", "items": _COUNT, "description": "The versions that they have."},
            "slots": {**_COUNT, "description": "Attempts that they run at once at most, for an operator."},
            "freeSlots": {**_COUNT, "description": "How many more could begin now, for an operator."},
            "lastRunnerAt": {**_INSTANT, "description": "When it had a runner last, to the minute; for an operator."},
            "paused": {
                "type": "object",
                "description": "That no attempt begins; absent for an action that is not paused.",
                "properties": {
                    "since": _INSTANT,
                    "until": {**_INSTANT, "description": "When it ends by itself; absent for one without an end."},
                    "by": {"type": "string"},
                    "reason": {"type": "string"},
                },
            },
            "runners": {
                "type": "array",
                "description": "Each runner, for an operator.",
                "items": {
                    "type": "object",
                    "properties": {
                        "runner": {"type": "string"},
                        "host": {"type": "string"},
                        "pid": _COUNT,
                        "version": _COUNT,
                        "slots": _COUNT,
                        "free": _COUNT,
                        "since": _INSTANT,
                    },
                    "required": ["runner", "version", "slots", "free", "since"],
                },
            },
            "waiting": {
                "type": "array",
                "description": "What waits of all callers, for an operator; the oldest first.",
                "items": {
                    "type": "object",
                    "properties": {
                        "reason": {"type": "string", "description": "As `reason` of `blockedBy`."},
                        "number": _COUNT,
                        "oldest": {"type": "number", "minimum": 0, "description": "Seconds."},
                    },
                    "required": ["reason", "number", "oldest"],
                },
            },
        },
        "required": ["action", "summary", "version", "runnerCount", "runnerVersions"],
    }
}
CONTROL_PARAMETERS: Final[Json] = {
    "Kind": {
        "name": "kind",
        "in": "path",
        "required": True,
        "description": "Resource and action.",
        "schema": {"type": "string", "pattern": f"^{NAME_PATTERN}:{NAME_PATTERN}$"},
        "example": "book:upload-start",
    }
}


def control_paths(kinds: Collection[Kind]) -> Json:
    """Build the paths of actions as things: what there is, and what operators do to it.

    Args:
        kinds: the actions of the service. A submit of an application's has its path before any of these.
    """
    one = ref("schemas", "ListedAction")
    paths: Json = {
        "/actions": {
            "get": {
                "operationId": "actions",
                "summary": "The actions, their runners, and what waits",
                "description": (
                    "Those that the caller may submit, in order; all of them with `read:all` and no tenant. `runners`, "
                    "`waiting` and `paused/by` are there for such an operator only. It is a hint for people, a second "
                    "old or more."
                ),
                "tags": [CONTROL_TAG],
                "parameters": refs("parameters", "api-version", "x-ms-client-request-id"),
                "responses": {
                    "200": {
                        "description": "The actions",
                        "headers": header_refs("Cache-Control"),
                        "content": json_content(_listed(one), {"actions": {"value": {"value": [_EXAMPLE]}}}),
                    },
                    **error_responses("InvalidRead", "Unreadable"),
                },
            }
        }
    }
    acts: dict[str, tuple[str, Json, Json]] = {
        "pause": (
            "Let no attempt of an action begin",
            _PAUSE,
            {"reason": "the storage is being moved", "seconds": 7200},
        ),
        "resume": ("Let attempts of a paused action begin again", _RESUME, {"reason": "the storage is moved"}),
        "withdraw": ("Take an action without runners out of the catalog", _RESUME, {"reason": "nobody needs it"}),
    }
    for act, (summary, schema, example) in acts.items():
        if Kind("actions", act) not in kinds:
            paths[f"/actions/{{kind}}:{act}"] = {"post": _act(act, summary, schema, example, one)}
    return paths


def _act(act: str, summary: str, schema: Json, example: Json, one: Json) -> Json:
    return {
        "operationId": f"action.{act}",
        "summary": summary,
        "description": (
            "It concerns all tenants, so it needs `admin` and no tenant, and it is recorded. What runs goes on; what "
            "waits goes on to wait, and can be canceled."
        ),
        "tags": [CONTROL_TAG],
        "parameters": refs("parameters", "Kind", "api-version", "x-ms-client-request-id"),
        "requestBody": {"required": False, "content": json_content(schema, {act: {"value": example}})},
        "responses": {
            "200": {
                "description": "The action as it is now; of a withdrawn one as it was",
                "headers": header_refs(),
                "content": json_content(one, {"action": {"value": _EXAMPLE}}),
            },
            **error_responses(
                "InvalidCancel",
                "UnknownKind",
                *(("ActionServed",) if act == "withdraw" else ()),
                "TooLargeCancel",
                "UnsupportedCancel",
                "ForbiddenOrCrossSite",
                "Unavailable",
            ),
        },
    }


def _listed(schema: Json) -> Json:
    return {"type": "object", "properties": {"value": {"type": "array", "items": schema}}, "required": ["value"]}
