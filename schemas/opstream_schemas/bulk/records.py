"""What the events of a bulk operation record: what was asked for, in whose name, and what became of each item."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec

from .kinds import DEFAULT_RATE, MAX_RATE

MAX_RECORDED: Final = 100
"""Items that one event records, at most."""
MAX_REFUSALS: Final = 20
"""Items that were refused which a result names; the history names all."""
ITEM_MESSAGE_LIMIT: Final = 200
"""Bytes of the message of an item."""


class BulkInput(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", forbid_unknown_fields=True
):
    """The input of a bulk operation."""

    filter: Annotated[str, msgspec.Meta(min_length=1)]
    """Which operations, as of a list."""
    per_second: Annotated[int, msgspec.Meta(ge=1, le=MAX_RATE)] = DEFAULT_RATE
    """Items that are begun in a second, at most."""
    reason: str = ""
    """Of a cancel."""


class Authority(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """With which rights a bulk operation acts: those of the credentials with which it was asked for.

    Those of an API key count as they are at each item, and end when it is revoked. A token can't be asked again, so its
    scopes count until it ends.
    """

    key_id: str = ""
    """Of the API key; empty for a token."""
    scopes: tuple[str, ...] = ()
    """Of a token."""
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """When a token ends."""


class BulkItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What became of one operation."""

    id: str
    """The client's own id."""
    operation_id: str = ""
    """Of its follow-up, if it was retried."""
    status: str = ""
    """After a cancel: `Canceled`, or `Running` until it has stopped."""
    code: str = ""
    """Why nothing was done to it: the error code that a request for it alone would get."""
    message: str = ""


class BulkProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """How far a bulk operation is."""

    matched: int
    """Operations that the filter selected when it began."""
    done: int = 0
    refused: int = 0
    """Operations to which nothing was done."""
    after: str = ""
    """The place in the index of the last item; the next attempt goes on behind it. A number, as text."""
    items: tuple[BulkItem, ...] = ()
    """Those since the event before."""


class BulkResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The result of a bulk operation."""

    matched: int
    done: int
    refused: int
    refusals: tuple[BulkItem, ...] = ()
    """The first of those that were refused."""
