"""Cursors: a place in a list, bound to filter, order, the reader's scope and a moment of the journal, and signed.

A cursor that was changed, or that belongs to another list, is refused. What it has is no secret: times of operations
that its holder may read. The signature's secret is that of the installation, where there is one. Without
authentication there is nothing to protect but from mistakes, and the key is a constant.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Final

import msgspec

from opstream_index.filters.order import ListOrder
from opstream_index.filters.syntax import Term

from .plan import ListScope, Place

MAX_CURSOR_LENGTH: Final = 512
"""Characters of a cursor that is looked at."""
_MAC: Final = 16
"""Bytes of the signature."""
_PLAIN: Final = b"opstream list"


class CursorRefused(ValueError):
    """A text is no cursor of this list. The message says what to do."""


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a list goes on."""

    complete_until: int
    """Up to this moment of the journal the index was complete when the list began: microseconds since 1970 (UTC)."""
    place: Place


class _Binding(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor is bound to."""

    term: Term | None
    order: ListOrder
    scope: ListScope


class CursorSigner:
    """Writes and reads cursors.

    Args:
        secret: of the installation; empty for a service that asks for no credentials.
    """

    def __init__(self, secret: bytes = b"") -> None:
        self._secret = hmac.digest(secret or _PLAIN, b"cursor", "sha256")

    def write(self, cursor: Cursor, term: Term | None, order: ListOrder, scope: ListScope) -> str:
        """Return a cursor as a text for a URL."""
        body = msgspec.msgpack.encode(cursor)
        return urlsafe_b64encode(self._mac(body, term, order, scope) + body).rstrip(b"=").decode()

    def read(self, text: str, term: Term | None, order: ListOrder, scope: ListScope) -> Cursor:
        """Return what a text of `write` stands for.

        Raises:
            CursorRefused: it was changed, or belongs to another filter, order or caller.
        """
        refused = CursorRefused(
            "this cursor was changed, or belongs to a list with another filter, order or caller: follow nextLink as it "
            "is, or begin again without a cursor"
        )
        if len(text) > MAX_CURSOR_LENGTH:
            raise refused
        try:
            found = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (Base64Error, ValueError) as error:
            raise refused from error
        mac, body = found[:_MAC], found[_MAC:]
        if not hmac.compare_digest(mac, self._mac(body, term, order, scope)):
            raise refused
        if urlsafe_b64encode(found).rstrip(b"=").decode() != text:
            raise refused  # base64 has other spellings of the same bytes
        return msgspec.msgpack.decode(body, type=Cursor)

    def _mac(self, body: bytes, term: Term | None, order: ListOrder, scope: ListScope) -> bytes:
        bound = msgspec.msgpack.encode(_Binding(term, order, scope))
        return hmac.digest(self._secret, len(bound).to_bytes(4, "big") + bound + body, "sha256")[:_MAC]
