"""The paths of lists, counts and bulk requests, for a service that has an index. Pure."""

from __future__ import annotations

from typing import Final

from opstream_index.counts.group_field import DEFAULT_TOP, GROUP_FIELDS, MAX_TOP
from opstream_index.filters.fields import FIELD_NAMES, MEMBERS, ORDERS
from opstream_index.filters.order import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from opstream_index.filters.tokens import MAX_FILTER_LENGTH
from opstream_index.lists.examples import EXAMPLES
from opstream_schemas.bulk.kinds import DEFAULT_RATE, MAX_ITEMS, MAX_RATE, BulkAct
from opstream_schemas.operation.state import Status

from .operation_paths import TAG, monitor_links
from .responses import bulk_responses, index_components, list_responses
from .samples import OPERATION_ID, RESOURCE_ID, sample_index_errors, sample_monitor
from .shared import SCHEMAS, Json, header_refs, json_content, refs

LIST: Final = "list"
"""`operationId` of a list."""
COUNT: Final = "count"
"""`operationId` of a count."""

_FAILED_LATELY: Final = next(one.filter for one in EXAMPLES if "failed in the last hour" in one.question)
_TEXT: Final[Json] = {"type": "string"}
_INSTANT: Final[Json] = {"type": "string", "format": "date-time"}


def add_lists(document: Json, *, has_access: bool) -> None:
    """Add the paths, and their components, to the document of a service.

    Args:
        document: without it.
        has_access: True if the service asks for credentials.
    """
    document["paths"]["/status"] = {"get": _list()}
    document["paths"]["/status:count"] = {"get": _count()}
    for act in BulkAct:
        document["paths"][f"/status:{act}"] = {"post": _bulk(act)}
    components = document["components"]
    components["schemas"] = {**components["schemas"], **_schemas()}
    components["responses"] = {**components["responses"], **index_components(has_access=has_access)}
    components["examples"] = {**components["examples"], **sample_index_errors()}
    components["headers"] = {**components["headers"], **_HEADERS}
    components["parameters"] = {**components["parameters"], **_parameters()}


def _list() -> Json:
    names = ("filter", "orderby", "maxpagesize", "select", "cursor", "api-version", "x-ms-client-request-id")
    sample = {
        "value": [
            {
                "id": OPERATION_ID,
                "status": "Failed",
                "error": {"code": "Timeout", "message": "the printer did not answer within 30 s"},
                "kind": "book:upload-start",
                "resourceId": RESOURCE_ID,
                "createdAt": "2026-11-24T08:00:00Z",
                "startedAt": "2026-11-24T08:00:01Z",
                "finishedAt": "2026-11-24T08:05:00Z",
                "attempt": 1,
                "version": 1,
                "caller": "shop",
                "labels": {"team": "press"},
            }
        ],
        "nextLink": "https://api.example.com/status?filter=status%20eq%20'Failed'&cursor=AAAA",
    }
    return {
        "operationId": LIST,
        "summary": "A list of operations",
        "description": (
            "A page of the operations that the caller may read, newest first. A page may have fewer items than "
            "`maxpagesize`, or none, and still a `nextLink`: follow it until there is none. An operation that matches "
            "throughout is in exactly one page, whatever is written meanwhile."
        ),
        "tags": [TAG],
        "parameters": refs("parameters", *names),
        "responses": {
            "200": {
                "description": "A page",
                "headers": header_refs("Index-Lag", "Cache-Control"),
                "content": json_content({"$ref": SCHEMAS + "OperationPage"}, {"failed": {"value": sample}}),
            },
            **list_responses(),
        },
    }


def _count() -> Json:
    took = {"count": 118, "p50": 1.25, "p95": 4.1, "max": 9.2}
    statuses = {"Succeeded": 117, "Failed": 3}
    group = {"key": "book:upload-start", "count": 120, "statuses": statuses, "duration": took}
    sample = {"count": 120, "statuses": statuses, "duration": took, "by": "kind", "groups": 1, "value": [group]}
    return {
        "operationId": COUNT,
        "summary": "How many operations there are",
        "description": (
            "Counts the operations that the caller may read, how they stand and how long they took; with `by`, for "
            "each value of a field, the most frequent first. A count that takes too long ends early: `incomplete` then "
            "says from which time on all are counted."
        ),
        "tags": [TAG],
        "parameters": refs("parameters", "filter", "by", "top", "api-version", "x-ms-client-request-id"),
        "responses": {
            "200": {
                "description": "The count",
                "headers": header_refs("Index-Lag", "Cache-Control"),
                "content": json_content({"$ref": SCHEMAS + "OperationCount"}, {"byAction": {"value": sample}}),
            },
            **list_responses(),
        },
    }


def _count_schemas() -> Json:
    seconds = {"type": "number", "minimum": 0}
    duration = {
        "title": "Durations",
        "type": "object",
        "description": "Seconds from the beginning of the first attempt to the end; percentiles are right to 5 %.",
        "required": ["count", "p50", "p95", "max"],
        "properties": {
            "count": {"type": "integer", "minimum": 1, "description": "Of how many operations."},
            "p50": {**seconds, "description": "Half of them took this long at most."},
            "p95": {**seconds, "description": "95 of 100 took this long at most."},
            "max": {**seconds, "description": "The longest."},
        },
    }
    members = {
        "count": {"type": "integer", "minimum": 0},
        "statuses": {
            "type": "object",
            "description": "The number by status; a status that none has is absent.",
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
        "duration": {
            "$ref": SCHEMAS + "Durations",
            "description": "Absent if none of the operations has begun and ended.",
        },
    }
    group = {
        "title": "OperationGroup",
        "type": "object",
        "required": ["count", "statuses"],
        "properties": {
            "key": {**_TEXT, "description": "The value of the field; absent for the operations without one."},
            **members,
        },
    }
    incomplete = {
        "title": "IncompleteCount",
        "type": "object",
        "description": "Only the operations from a time on are counted, all of those; absent if all are.",
        "required": ["field", "from"],
        "properties": {
            "field": {**_TEXT, "description": "Which time: `createdAt`, or `finishedAt` if the filter bounds that."},
            "from": _INSTANT,
        },
    }
    count = {
        "title": "OperationCount",
        "type": "object",
        "required": ["count", "statuses"],
        "properties": {
            **members,
            "by": {**_TEXT, "description": "As in the request."},
            "groups": {"type": "integer", "minimum": 0, "description": "How many values of the field there are."},
            "value": {
                "type": "array",
                "description": "The most frequent ones.",
                "items": {"$ref": SCHEMAS + "OperationGroup"},
            },
            "incomplete": {"$ref": SCHEMAS + "IncompleteCount"},
        },
    }
    return {"OperationCount": count, "OperationGroup": group, "Durations": duration, "IncompleteCount": incomplete}


_SUMMARIES: Final = {
    BulkAct.RETRY: "Do all operations again that failed or were canceled, of those that a filter selects",
    BulkAct.CANCEL: "Cancel all open operations of those that a filter selects",
}


def _bulk(act: BulkAct) -> Json:
    names = ("bulkFilter", "dryRun", "perSecond", "Operation-Id", "api-version", "x-ms-client-request-id")
    properties = {"reason": {"type": "string", "description": "Of each cancel.", "default": ""}}
    monitor = sample_monitor("notStarted", act.kind)
    monitor["value"] = {name: value for name, value in monitor["value"].items() if name != "resourceId"}
    sample = {"count": 1, "isWhole": True, "sample": [{"id": OPERATION_ID, "kind": "book:upload-start"}]}
    return {
        "operationId": f"{act}All",
        "summary": _SUMMARIES[act],
        "description": (
            "Starts a bulk operation, which does it in the caller's name, and goes on if its process is killed. Its "
            "progress is in its status, each item in its history, and the numbers are its result. Canceling it stops "
            "it; what is done stays done. With `dryRun=true` nothing is begun."
        ),
        "tags": [TAG],
        "parameters": refs("parameters", *names),
        "requestBody": {
            "required": False,
            "content": json_content(
                {"type": "object", "properties": properties, "additionalProperties": False},
                {"reason": {"value": {"reason": "the disk was full"}}},
            ),
        },
        "responses": {
            "200": {
                "description": "A dry run: how many operations are selected, and the oldest of them",
                "headers": header_refs("Index-Lag", "Cache-Control"),
                "content": json_content({"$ref": SCHEMAS + "BulkPreview"}, {"preview": {"value": sample}}),
            },
            "202": {
                "description": "The bulk operation is stored durably: its status monitor",
                "headers": header_refs("Operation-Location", "Operation-Id", "Retry-After"),
                "content": json_content({"$ref": SCHEMAS + "StatusMonitor"}, {"new": monitor}),
                "links": monitor_links(),
            },
            **bulk_responses(),
        },
    }


def _schemas() -> Json:
    item = {
        "title": "ListedOperation",
        "type": "object",
        "description": "What the index has of an operation: neither its input nor its result.",
        "required": ["id"],
        "properties": {
            "id": _TEXT,
            "status": {"type": "string", "enum": [str(status) for status in Status]},
            "error": {"$ref": SCHEMAS + "OperationError"},
            "kind": _TEXT,
            "resourceId": _TEXT,
            "createdAt": _INSTANT,
            "startAt": _INSTANT,
            "startedAt": _INSTANT,
            "finishedAt": _INSTANT,
            "attempt": {"type": "integer"},
            "version": {"type": "integer", "description": "Of the action."},
            "caller": _TEXT,
            "labels": {"type": "object", "additionalProperties": _TEXT},
            "retryOf": _TEXT,
            "parent": _TEXT,
        },
    }
    page = {
        "title": "OperationPage",
        "type": "object",
        "required": ["value"],
        "properties": {
            "value": {"type": "array", "items": {"$ref": SCHEMAS + "ListedOperation"}},
            "nextLink": {
                "type": "string",
                "format": "uri",
                "description": "Absolute URL of the next page; absent at the end.",
            },
        },
    }
    preview = {
        "title": "BulkPreview",
        "type": "object",
        "required": ["count", "isWhole", "sample"],
        "properties": {
            "count": {"type": "integer", "description": f"How many are selected, {MAX_ITEMS} at most."},
            "isWhole": {"type": "boolean", "description": "False if there are more, or not all could be counted."},
            "sample": {"type": "array", "items": {"$ref": SCHEMAS + "ListedOperation"}},
        },
    }
    return {"ListedOperation": item, "OperationPage": page, "BulkPreview": preview, **_count_schemas()}


_HEADERS: Final[Json] = {
    "Index-Lag": {
        "description": "Seconds that the index may be behind the journal.",
        "required": True,
        "schema": {"type": "string", "pattern": r"^[0-9]+\.[0-9]$"},
    }
}


def _parameters() -> Json:
    flag = {"type": "string", "enum": ["true", "false"], "default": "false"}
    rate = {"type": "integer", "minimum": 1, "maximum": MAX_RATE, "default": DEFAULT_RATE}
    bulk_filter = _parameter(
        "filter", "Which operations, as of a list.", {"type": "string", "minLength": 1, "maxLength": MAX_FILTER_LENGTH}
    )
    return {
        "bulkFilter": {**bulk_filter, "required": True, "example": "kind eq 'book:upload-start'"},
        "dryRun": _parameter("dryRun", "Only count, and show some.", flag),
        "perSecond": _parameter("perSecond", "Operations that are begun in a second, at most.", rate),
        "filter": _parameter(
            "filter",
            f"Which operations, e.g. `{_FAILED_LATELY}`. Fields: {', '.join(FIELD_NAMES)}. Operators: eq, ne, gt, "
            "ge, lt, le, in, and, or, not, parentheses, contains(message, 'text').",
            {"type": "string", "maxLength": MAX_FILTER_LENGTH},
        ),
        "orderby": _parameter(
            "orderby",
            f"One of {', '.join(ORDERS)}, and `asc` (the default) or `desc`. Without it: `createdAt desc`. By "
            "`finishedAt` only operations that have ended are listed.",
            {"type": "string", "enum": [f"{name}{way}" for name in ORDERS for way in ("", " asc", " desc")]},
        ),
        "maxpagesize": _parameter(
            "maxpagesize",
            "The most items of a page, which may have fewer.",
            {"type": "integer", "minimum": 1, "default": DEFAULT_PAGE_SIZE, "maximum": MAX_PAGE_SIZE},
        ),
        "select": _parameter(
            "select", f"Members of an item, separated by commas, of {', '.join(MEMBERS)}; `id` is always there.", _TEXT
        ),
        "by": _parameter(
            "by", f"The field by whose values operations are counted: one of {', '.join(GROUP_FIELDS)}.", _TEXT
        ),
        "top": _parameter(
            "top",
            "The most groups that are sent.",
            {"type": "integer", "minimum": 1, "default": DEFAULT_TOP, "maximum": MAX_TOP},
        ),
        "cursor": _parameter("cursor", "Where the list goes on: as `nextLink` has it.", _TEXT),
    }


def _parameter(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}
