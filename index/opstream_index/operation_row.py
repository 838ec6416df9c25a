"""The row of an operation in the index: what a list can show, filter by and sort by. Pure.

Nothing of an operation's input or result gets into a row. The texts in it are those that a status monitor shows too.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from opstream_schemas.operation.state import Operation
from opstream_schemas.text import is_sealed_text

PLACE_BITS: Final = 10
"""Bits of a place below the time: operations of one microsecond that can have places of their own, as a power of 2."""

NEVER: Final = 2**63 - 1
"""The end of the row of an open operation."""

_PLACES: Final = 1 << PLACE_BITS
_LAST: Final = NEVER & -_PLACES
_encode: Final = msgspec.json.Encoder(order="sorted").encode
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class OperationRow(NamedTuple):
    """One row of the table `operation`, in the order of its columns. Times are microseconds since 1970, in UTC."""

    place: int
    """The primary key, and the order of `createdAt`: `place_of`. A row keeps the place that it got first."""
    id: str
    """The id under which the operation is stored."""
    own_id: str
    """The id by which its client knows it."""
    tenant: str
    caller: str
    """With `tenant`, the owner; empty without authentication."""
    resource: str
    action: str
    resource_id: str
    status: str
    code: str | None
    """Of the error with which it ended, as text; None without one."""
    message: str | None
    """Of that error; of an open operation, what its action reported last; None without a text."""
    created_at: int
    start_at: int | None
    """The time before which no attempt begins; None for an operation that may begin at once."""
    started_at: int | None
    finished_at: int | None
    updated_at: int
    """When it ended; of an open operation, when it began, or was requested."""
    attempt: int
    version: int
    """Of the action."""
    labels: str | None
    """A JSON object; None without labels."""
    retry_of: str | None
    """The id of the operation of which it is a repetition; None of none."""
    parent: str | None
    """The id, as its client knows it, of the operation whose action asked for it; None for none."""
    position: int
    """Stream sequence of its last event that is in the row: a row replaces only one with a lower position."""
    expires_at: int
    """When the row ends: with the retention of the outcome; `NEVER` while it is open."""


def row_of(operation: Operation) -> OperationRow:
    """Return the row of an operation."""
    created = instant_of(operation.created_at)
    started = operation.started_at
    finished = operation.finished_at
    begun = created if started is None else instant_of(started)
    ended = None if finished is None else instant_of(finished)
    error = operation.error
    text = (operation.message if error is None else error.message) if ended is None or error is not None else ""
    if operation.confidential and is_sealed_text(text):
        text = ""  # it says nothing to anybody, also not after an erasure
    return OperationRow(
        place_of(created, operation.id),
        operation.id,
        operation.own_id or operation.id,
        operation.tenant,
        operation.caller,
        operation.resource,
        operation.action,
        operation.resource_id,
        operation.status.value,
        None if error is None else str(error.code),
        text or None,
        created,
        None if operation.start_at is None else instant_of(operation.start_at),
        None if started is None else begun,
        ended,
        begun if ended is None else ended,
        operation.attempt,
        operation.action_version,
        _encode(operation.labels).decode() if operation.labels else None,
        operation.retry_of or None,
        None if operation.parent is None else operation.parent.own_id or operation.parent.id,
        operation.stream_sequence,
        NEVER if ended is None else min(NEVER, ended + int(operation.effective_retention * 1e6)),
    )


def place_of(created: int, operation_id: str) -> int:
    """Return the place of an operation among all, in the order of their creation.

    The time is in the upper bits. The lower ones come from the id, so that operations of one microsecond differ, and an
    index that is made again most likely gives each operation the same place.

    Args:
        created: microseconds since 1970, before 2255.
        operation_id: the stored id.
    """
    return first_place(created) | (crc32(operation_id.encode()) & (_PLACES - 1))


def first_place(instant: int) -> int:
    """Return the lowest place of a time: operations created then or later have this place or a higher one.

    Args:
        instant: microseconds since 1970.
    """
    return max(-_LAST, min(_LAST, instant << PLACE_BITS))


def instant_of(time: datetime) -> int:
    """Return a time with zone as microseconds since 1970, in UTC."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(instant: int) -> datetime:
    """Return a number of microseconds since 1970 as a time, in UTC."""
    return _EPOCH + timedelta(microseconds=instant)
