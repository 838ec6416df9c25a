"""Grants in URLs: what the holder may do, with an authentication code over that and over what it is for. Pure.

The code holds all parts together, so none can be exchanged for another, and no process stores anything.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, Generic, TypeVar

import msgspec

MAX_LENGTH: Final = 512
"""Characters of a token by default. A longer one was not made here, and is not looked at."""

_HASH: Final = "sha256"
_CODE_BYTES: Final = 24
"""192 of its 256 bits: far beyond what can be guessed, in a URL that is short."""

_G = TypeVar("_G", bound=msgspec.Struct)


class SealedGrants(Generic[_G]):
    """Makes tokens of one purpose, and opens them.

    Args:
        secret: of the installation, the same in each API process. With another one, all tokens end.
        purpose: with another one the same secret makes codes that mean something else.
        grant: what a token says of itself.
        max_length: characters of a token.
    """

    def __init__(self, secret: bytes, purpose: bytes, grant: type[_G], *, max_length: int = MAX_LENGTH) -> None:
        self._max_length = max_length
        self._key = hmac.digest(secret, purpose, _HASH)
        self._decode = msgspec.msgpack.Decoder(grant).decode

    def seal(self, grant: _G, *subjects: str) -> str:
        """Return a token.

        Args:
            grant: what it says.
            subjects: what it is for, always as many. None has a line break, so they can't be divided in another way.
        """
        return self._token(_encode(grant), subjects)

    def open(self, token: str, *subjects: str) -> _G | None:
        """Return what a token says; None if it was not made here, or is for something else.

        Args:
            token: as the URL has it.
            subjects: as they were sealed, from the URL.
        """
        if len(token) > self._max_length or not token.isascii():
            return None
        try:
            payload = _data(token.partition(".")[0])
        except (binascii.Error, ValueError):
            return None
        # The code first: nothing of a token is read that was not made here. Compared as text, each has one spelling.
        if not hmac.compare_digest(self._token(payload, subjects).encode(), token.encode()):
            return None
        try:
            return self._decode(payload)
        except msgspec.MsgspecError:  # a newer version of opstream has made it
            return None

    def _token(self, payload: bytes, subjects: tuple[str, ...]) -> str:
        about = "".join(f"{one}\n" for one in subjects).encode()
        return f"{_text(payload)}.{_text(hmac.digest(self._key, about + payload, _HASH)[:_CODE_BYTES])}"


_encode: Final = msgspec.msgpack.Encoder().encode


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _data(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
