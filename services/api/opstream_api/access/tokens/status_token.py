"""Status tokens: who has one may read the status of one operation, and nothing else, until it expires. Pure.

A service that submits gets one in `Operation-Location` if it asks (`Prefer: status-token`), and gives that URL to a
browser, which then needs no key. Its authentication code holds key, tenant and end together with the operation's id, so
none of them can be exchanged for another. It contains no secret but itself.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

from opstream_api.http.conditional_headers import MAX_STATUS_TOKEN_SECONDS

STATUS_TOKEN_PARAMETER: Final = "token"  # noqa: S105 - a name
"""Query parameter of `Operation-Location` that has it."""
MAX_STATUS_TOKEN: Final = 512
"""Characters of one. A longer one was not made here, and is not looked at."""
CLOCK_LEEWAY: Final = 60
"""Seconds by which the clock of the process that gave a token may be ahead of that of the one that reads it."""

_PURPOSE: Final = b"opstream status token, version 1"
"""With another one the same secret makes codes that mean something else."""
_HASH: Final = "sha256"
_CODE_BYTES: Final = 24
"""192 of its 256 bits: far beyond what can be guessed, in a URL that is short."""


class StatusGrant(msgspec.Struct, frozen=True, array_like=True):
    """What a status token says of itself."""

    expires_at: int
    """Unix seconds."""
    key_id: str
    """The API key that asked for it: the token ends with that. Empty if a bearer token asked."""
    tenant: str
    """To whom the operation belongs."""


class StatusTokens:
    """Makes and verifies status tokens.

    Args:
        secret: of the installation, the same in each API process. With another one, all tokens end.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, _PURPOSE, _HASH)

    def sign(self, grant: StatusGrant, operation_id: str) -> str:
        """Return a token for an operation, of which the id is the one in the URL."""
        payload = _encode(grant)
        return f"{_text(payload)}.{_text(self._code(payload, operation_id))}"

    def verify(self, token: str, operation_id: str, now: float) -> StatusGrant | None:
        """Return what a token grants; None if it was not made here, is for another operation, or has expired.

        None, too, if it lasts longer than any that is given: it was made with a secret that has leaked.

        Args:
            token: as the URL has it.
            operation_id: as the URL has it.
            now: Unix seconds.
        """
        if len(token) > MAX_STATUS_TOKEN:
            return None
        try:
            payload = _data(token.partition(".")[0])
        except (binascii.Error, ValueError):
            return None
        # The code first: nothing of a token is read that was not made here. Compared as text, each has one spelling.
        expected = f"{_text(payload)}.{_text(self._code(payload, operation_id))}"
        if not hmac.compare_digest(expected.encode(), token.encode()):
            return None
        try:
            grant = _decode(payload)
        except msgspec.MsgspecError:  # a newer version of opstream has made it
            return None
        return grant if now < grant.expires_at <= now + MAX_STATUS_TOKEN_SECONDS + CLOCK_LEEWAY else None

    def _code(self, payload: bytes, operation_id: str) -> bytes:
        # An id has no line break, so the two can't be divided in another way.
        return hmac.digest(self._key, operation_id.encode() + b"\n" + payload, _HASH)[:_CODE_BYTES]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(StatusGrant).decode


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _data(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
