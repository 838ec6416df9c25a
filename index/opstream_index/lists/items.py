"""The items of a list: what a row of the index becomes, with the names of the status monitor. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NamedTuple

import msgspec

from opstream_index.filters.fields import MEMBERS
from opstream_index.operation_row import time_of


class ListRow(NamedTuple):
    """What a list reads of an operation. Times are microseconds since 1970 (UTC)."""

    place: int
    id: str
    own_id: str
    caller: str | None
    resource: str
    action: str
    resource_id: str | None
    status: str
    code: str | None
    message: str | None
    created_at: int
    start_at: int | None
    started_at: int | None
    finished_at: int | None
    attempt: int
    version: int
    labels: str | None
    """A JSON object."""
    retry_of: str | None
    parent: str | None
    expires_at: int


COLUMNS: Final = ListRow._fields


def item_of(row: ListRow, selected: Collection[str] = MEMBERS) -> dict[str, Any]:
    """Return an item of a list: the members that it has, in the order of `MEMBERS`.

    Args:
        row: what the index has.
        selected: the members that are asked for.
    """
    times = {
        name: None if value is None else time_of(value)
        for name, value in (
            ("createdAt", row.created_at),
            ("startAt", row.start_at),
            ("startedAt", row.started_at),
            ("finishedAt", row.finished_at),
        )
    }
    members: dict[str, Any] = {
        "id": row.own_id,
        "status": row.status,
        "error": None if row.code is None else {"code": _code(row.code), "message": row.message or ""},
        "kind": f"{row.resource}:{row.action}",
        "resourceId": row.resource_id,
        **times,
        "attempt": row.attempt or None,
        "version": row.version,
        "caller": row.caller,
        "labels": None if row.labels is None else msgspec.Raw(row.labels.encode()),
        "retryOf": row.retry_of,
        "parent": row.parent,
    }
    return {name: members[name] for name in MEMBERS if name in selected and members[name] is not None}


def _code(code: str) -> int | str:
    """Return a code as the status monitor has it, where an HTTP status is a number."""
    return int(code) if code.isascii() and code.isdigit() and len(code) <= 9 and str(int(code)) == code else code
