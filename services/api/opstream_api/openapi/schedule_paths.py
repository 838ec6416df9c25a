"""The paths of schedules, and the schemas of what they take and return. Pure."""

from __future__ import annotations

from typing import Any, Final

from opstream_schemas.schedules.occurrences import LONGEST_INTERVAL, SHORTEST_INTERVAL
from opstream_schemas.schedules.schedule import MAX_BACKFILL, MAX_PREVIEW, NAME_PATTERN

from .responses import error_responses
from .shared import SCHEMAS, Json, header_refs, json_content, ref, refs

TAG: Final = "schedules"

_INSTANT: Final[Json] = {"type": "string", "format": "date-time"}
_KIND: Final = "^[a-z0-9-]{1,40}:[a-z0-9-]{1,40}$"
_DEFINITION: Final[Json] = {
    "action": {"type": "string", "pattern": _KIND, "description": "Resource and action."},
    "resourceId": {"type": "string", "maxLength": 256, "description": "The resource's own id; empty without one."},
    "input": {"description": "The action's input.", "default": {}},
    "cron": {
        "type": "string",
        "maxLength": 200,
        "description": "Minute, hour, day of month, month, day of week. Either this or `every`.",
    },
    "timeZone": {"type": "string", "description": "Of `cron`, as in the IANA database.", "default": "UTC"},
    "every": {
        "type": "integer",
        "minimum": SHORTEST_INTERVAL,
        "maximum": LONGEST_INTERVAL,
        "description": "Seconds of an interval; its moments are multiples of it since 1970.",
    },
    "pauseOnFailure": {"type": "boolean", "description": "Pause once an operation has failed.", "default": False},
    "paused": {"type": "boolean", "description": "Nothing begins while it is.", "default": False},
}
SCHEDULE_SCHEMAS: Final[Json] = {
    "ScheduleDefinition": {
        "type": "object",
        "properties": _DEFINITION,
        "required": ["action"],
        "additionalProperties": False,
    },
    "Occurrence": {
        "type": "object",
        "description": "What became of a moment of a schedule.",
        "properties": {
            "dueAt": _INSTANT,
            "outcome": {"type": "string", "examples": ["submitted", "refused", "missed"]},
            "operationId": {"type": "string"},
            "cause": {"type": "string", "examples": ["schedule", "trigger", "backfill"]},
            "by": {"type": "string"},
            "doneUntil": _INSTANT,
            "recordedAt": _INSTANT,
            "detail": {"type": "string"},
        },
        "required": ["dueAt", "outcome", "recordedAt"],
    },
    "Schedule": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
            "status": {"type": "string", "examples": ["Active", "Paused"]},
            **_DEFINITION,
            "caller": {"type": "string", "description": "In whose name operations begin."},
            "createdAt": _INSTANT,
            "changedAt": _INSTANT,
            "nextAt": {**_INSTANT, "description": "When it is due next; absent while it is paused."},
            "pausedBecause": {"type": "string", "description": "Why opstream paused it."},
            "last": {"$ref": SCHEMAS + "Occurrence"},
        },
        "required": ["name", "status", "action", "input", "createdAt", "changedAt"],
    },
}
SCHEDULE_PARAMETERS: Final[Json] = {
    "ScheduleName": {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "The name of the schedule.",
        "schema": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
        "example": "nightly",
    },
    "Count": {
        "name": "count",
        "in": "query",
        "description": "How many moments to show.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PREVIEW, "default": 10},
    },
}
_EXAMPLE: Final[Json] = {"action": "book:reindex", "cron": "30 3 * * 1-5", "timeZone": "Europe/Berlin"}
_SPAN: Final[Json] = {
    "type": "object",
    "properties": {"from": _INSTANT, "to": _INSTANT},
    "required": ["from", "to"],
    "additionalProperties": False,
}


def schedule_paths() -> Json:
    """Build the paths of schedules."""
    one = ref("schemas", "Schedule")
    return {
        "/schedules": {"get": _path("schedules", "The schedules", 200, _listed(one), parameters=[])},
        "/schedules/{name}": {
            "get": _path("schedule", "A schedule", 200, one),
            "put": _set(one),
            "delete": _path("schedule.delete", "Delete a schedule; what it has begun goes on", 204, None, *_CHANGES),
        },
        "/schedules/{name}:preview": {
            "get": _path(
                "schedule.preview",
                "When a schedule is due next",
                200,
                _listed(_INSTANT),
                parameters=["ScheduleName", "Count"],
            )
        },
        "/schedules/{name}:trigger": {"post": _trigger()},
        "/schedules/{name}:backfill": {"post": _backfill()},
        "/schedules/{name}:pause": {"post": _path("schedule.pause", "Pause a schedule", 200, one, *_PAUSES)},
        "/schedules/{name}:resume": {
            "post": _path("schedule.resume", "Have a paused schedule go on", 200, one, *_PAUSES)
        },
        "/schedules/{name}/history": {
            "get": _path(
                "schedule.history",
                "What became of the moments of a schedule",
                200,
                _listed(ref("schemas", "Occurrence")),
            )
        },
    }


_PAUSES: Final = ("InvalidCancel", "TooLargeCancel", "UnsupportedCancel", "CrossSiteRequest", "Unavailable")
_CHANGES: Final = ("InvalidCancel", "TooLargeCancel", "UnsupportedCancel", "Unavailable")


def _listed(schema: Json) -> Json:
    return {"type": "object", "properties": {"value": {"type": "array", "items": schema}}, "required": ["value"]}


def _path(
    name: str, summary: str, status: int, schema: Json | None, *errors: str, parameters: list[str] | None = None
) -> Json:
    named = ["ScheduleName"] if parameters is None else parameters
    found = ["ScheduleNotFound"] if named else []
    response: Json = {"description": summary, "headers": header_refs()}
    if schema is not None:
        response["content"] = json_content(schema)
    return {
        "operationId": name,
        "summary": summary,
        "tags": [TAG],
        "parameters": refs("parameters", *named, "api-version", "x-ms-client-request-id"),
        "responses": {str(status): response, **error_responses(*(errors or ("InvalidRead", "Unreadable")), *found)},
    }


def _set(one: Json) -> Json:
    path = _path("schedule.set", "Make a schedule, or change it", 200, one, "ScheduleRefused", *_CHANGES)
    made = {**path["responses"]["200"], "description": "Made"}
    return {
        **path,
        "requestBody": {
            "required": True,
            "content": json_content(ref("schemas", "ScheduleDefinition"), {"schedule": {"value": _EXAMPLE}}),
        },
        "responses": dict(sorted({**path["responses"], "201": made}.items())),
    }


def _trigger() -> Json:
    path: dict[str, Any] = _path(
        "schedule.trigger",
        "Have an operation of a schedule begin now",
        202,
        ref("schemas", "StatusMonitor"),
        *("InvalidSubmit", "TooLargeSubmit", "UnsupportedCancel", "CrossSiteRequest", "ResourceBusy", "Unavailable"),
    )
    path["responses"]["202"]["headers"] = header_refs("Operation-Location", "Operation-Id", "Retry-After")
    return path


def _backfill() -> Json:
    made = {
        "type": "object",
        "properties": {"dueAt": _INSTANT, "operationId": {"type": "string"}, "detail": {"type": "string"}},
        "required": ["dueAt"],
    }
    path = _path(
        "schedule.backfill",
        f"Make up for the moments of a time that has passed, {MAX_BACKFILL} at most",
        200,
        _listed(made),
        *("InvalidCancel", "TooLargeCancel", "UnsupportedCancel", "CrossSiteRequest", "Unavailable"),
    )
    example = {"from": "2026-11-24T00:00:00Z", "to": "2026-11-24T06:00:00Z"}
    return {**path, "requestBody": {"required": True, "content": json_content(_SPAN, {"night": {"value": example}})}}
