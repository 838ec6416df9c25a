"""A follow-up: the operation that does an ended one again, with the same input. Pure (docs/adr/0063).

Its id follows from the id of the operation that it does again. An id exists once, so however often a retry is asked
for, and by however many processes, there is one follow-up.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

from opstream_schemas.bulk.kinds import BULK_KINDS

from .state import Operation, Status

RETRIABLE: Final = frozenset({Status.FAILED, Status.CANCELED})
"""The statuses of operations that can be done again."""

_LONGEST_ID: Final = 64
_NUMBERED: Final = re.compile(r"(.+)-retry-([1-9][0-9]{0,8})")
_HASHED: Final = re.compile(r"retry-[A-Za-z0-9_-]{43}")
_BULK: Final = (
    "is a bulk operation: send its request again, POST /status:{} with its filter; what it has done stays done"
)


def follow_up_id(operation_id: str) -> str:
    """Return the id of the follow-up of an operation: `a` has `a-retry-1`, which has `a-retry-2`.

    No two operations have the same one. Where that would be too long, it is `retry-` and a hash.

    Args:
        operation_id: the client's own id.
    """
    numbered = _NUMBERED.fullmatch(operation_id)
    base, number = (operation_id, 0) if numbered is None else (numbered[1], int(numbered[2]))
    found = f"{base}-retry-{number + 1}"
    if len(found) <= _LONGEST_ID:
        return found
    return f"retry-{urlsafe_b64encode(sha256(operation_id.encode()).digest()).rstrip(b'=').decode()}"


def is_follow_up_id(operation_id: str) -> bool:
    """Return True if an id has a form of `follow_up_id`, so that no client may take it before there is a retry."""
    return bool(_NUMBERED.fullmatch(operation_id) or _HASHED.fullmatch(operation_id))


def why_not_retriable(operation: Operation) -> str:
    """Return why an operation can't be done again, and what to do; empty if it can."""
    match operation.status:
        case Status.SUCCEEDED:
            return "has succeeded, so there is nothing to do again: submit the action to have it done once more"
        case Status.NOT_STARTED | Status.RUNNING:
            return f"is {operation.status}: wait for its end, or cancel it"
        case _ if operation.uploads:
            return "has files that its client has uploaded for it alone: upload them again, and submit the action"
        case _ if operation.kind in BULK_KINDS:
            return _BULK.format(operation.action)
        case _:
            return ""
