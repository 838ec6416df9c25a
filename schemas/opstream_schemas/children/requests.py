"""The messages between the runner of a parent and the API, which submits the children. No stream stores them."""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_schemas.errors import ErrorCode, InvalidEvent
from opstream_schemas.event_types.base import OperationError
from opstream_schemas.names import check_operation_id

MAX_ITEMS: Final = 100
"""Children in one request."""


class ChildItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A child that is asked for."""

    index: int | None = None
    """`ParentRef.index`."""
    action: str
    """`resource:action`."""
    resource_id: str = ""
    input: msgspec.Raw
    """JSON."""


class ChildrenRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Asks for children. The subject names the parent's action, so that the broker lets only its runners send it."""

    parent: str
    """The id under which the parent is stored."""
    token: str
    """Of the parent's live attempt."""
    name: str
    key: str = ""
    items: tuple[ChildItem, ...]


class ChildrenAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What became of it."""

    error: OperationError | None = None
    """The first one; None if all children exist now."""
    is_final: bool = False
    """True if asking again would have the same answer."""


_decode_request: Final = msgspec.json.Decoder(ChildrenRequest).decode
_decode_answer: Final = msgspec.json.Decoder(ChildrenAnswer).decode


def decode_children_request(payload: bytes) -> ChildrenRequest:
    """Decode a request.

    Raises:
        InvalidEvent: it is none.
    """
    try:
        request = _decode_request(payload)
        check_operation_id(request.parent)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a request for children: {error}") from error
    if not 1 <= len(request.items) <= MAX_ITEMS:
        raise InvalidEvent(f"a request for children has 1 to {MAX_ITEMS} of them, not {len(request.items)}")
    return request


def decode_children_answer(payload: bytes) -> ChildrenAnswer:
    """Decode an answer. One that can't be read is an error that may pass: the API is of another version."""
    try:
        return _decode_answer(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        message = f"the answer of the API can't be read: {error}"
        return ChildrenAnswer(error=OperationError(code=ErrorCode.INTERNAL_ERROR, message=message))
