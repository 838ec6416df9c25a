"""Signal tokens: who has one may send one signal to one wait of one operation, and nothing else (docs/adr/0071). Pure.

A third party, such as a payment provider, gets one in the URL of the wait. As of a status token, its code holds all
parts together, and no process stores anything. It is worth nothing once the wait is over.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

MAX_SIGNAL_TOKEN: Final = 512
"""Characters of one. A longer one was not made here, and is not looked at."""

_PURPOSE: Final = b"opstream signal token, version 1"
"""With another one the same secret makes codes that mean something else."""
_HASH: Final = "sha256"
_CODE_BYTES: Final = 24
"""192 of its 256 bits, as of a status token."""


class SignalGrant(msgspec.Struct, frozen=True, array_like=True):
    """What a signal token says of itself."""

    wait: int
    """Stream sequence of the event that began the wait."""
    expires_at: int
    """Unix seconds: when the wait is over without the signal."""
    key_id: str
    """The API key of the caller that has read the URL: the token ends with that. Empty for a bearer token."""
    tenant: str
    """To whom the operation belongs."""


class SignalTokens:
    """Makes and verifies signal tokens.

    Args:
        secret: of the installation, the same in each API process. With another one, all tokens end.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, _PURPOSE, _HASH)

    def sign(self, grant: SignalGrant, operation_id: str, signal: str) -> str:
        """Return a token for a signal to an operation, of which the id is the one in the URL."""
        payload = _encode(grant)
        return f"{_text(payload)}.{_text(self._code(payload, operation_id, signal))}"

    def verify(self, token: str, operation_id: str, signal: str, now: float) -> SignalGrant | None:
        """Return what a token grants; None if it was not made here, is for something else, or has expired.

        Args:
            token: as the URL has it.
            operation_id: as the URL has it.
            signal: the name, as the URL has it.
            now: Unix seconds.
        """
        if len(token) > MAX_SIGNAL_TOKEN:
            return None
        try:
            payload = _data(token.partition(".")[0])
        except (binascii.Error, ValueError):
            return None
        # The code first: nothing of a token is read that was not made here. Compared as text, each has one spelling.
        expected = f"{_text(payload)}.{_text(self._code(payload, operation_id, signal))}"
        if not hmac.compare_digest(expected.encode(), token.encode()):
            return None
        try:
            grant = _decode(payload)
        except msgspec.MsgspecError:  # a newer version of opstream has made it
            return None
        return grant if now < grant.expires_at else None

    def _code(self, payload: bytes, operation_id: str, signal: str) -> bytes:
        # Neither an id nor a name has a line break, so the three can't be divided in another way.
        text = f"{operation_id}\n{signal}\n".encode() + payload
        return hmac.digest(self._key, text, _HASH)[:_CODE_BYTES]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(SignalGrant).decode


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _data(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
