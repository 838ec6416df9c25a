"""Listed operations as rows of a table."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from opstream_schemas.events import OperationError

from .console import coloured, printable
from .event_row import as_utc
from .table import text_beside

HEADING: Final = "created (UTC)        status      took      id                                    what"

_COLOURS: Final = {"Succeeded": "green", "Failed": "red", "Canceled": "yellow", "Running": "cyan"}
_MINUTE: Final = 60
_HOUR: Final = 3_600


class ListedOperation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a row shows of an item of a list. A service of another version may send more, or less."""

    id: str
    status: str = ""
    kind: str = ""
    resource_id: str = ""
    error: OperationError | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    caller: str = ""


def list_row(operation: ListedOperation, *, has_colour: bool, width: int | None = None) -> str:
    """One operation as a row under `HEADING`. The width is in columns; None for no limit."""
    created = "" if operation.created_at is None else f"{as_utc(operation.created_at):%Y-%m-%d %H:%M:%S}"
    status = coloured(f"{printable(operation.status):<10}", _COLOURS.get(operation.status), has_colour=has_colour)
    head = f"{created:<19}  {status}  {_took(operation):>8}  {printable(operation.id):<36}"
    what = f"{operation.kind} {operation.resource_id}".strip()
    if operation.error is not None:
        what = f"{what}: {operation.error.code}: {operation.error.message}"
    return text_beside(head, printable(what), width)


def _took(operation: ListedOperation) -> str:
    """Return the time from the beginning to the end, in short."""
    if operation.started_at is None or operation.finished_at is None:
        return ""
    seconds = (operation.finished_at - operation.started_at).total_seconds()
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"
