"""The key of one confidential operation: it seals texts and JSON, opens them, and hashes.

A sealed value is a text: `sealed:1:` and base64url of nonce, ciphertext and tag. AES-256-GCM, with a nonce drawn for
each value, and the operation's id as additional data, so that nothing sealed for one operation opens for another. In
the place of JSON it is a JSON text. `cryptography` is imported when the first key is made: a process without
confidential operations does not pay for it.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as EncodingError
from collections.abc import Callable
from typing import Final

import msgspec

from opstream_schemas.errors import SealBroken
from opstream_schemas.text import SEALED_PREFIX, is_sealed_text

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_SEALED_JSON: Final = b'"' + SEALED_PREFIX.encode()

Draw = Callable[[int], bytes]
"""Returns so many random bytes."""


def is_sealed(value: str | msgspec.Raw) -> bool:
    """Return True if a text, or a JSON document, looks like a sealed value. Only a key can tell whether it is one."""
    return is_sealed_text(value) if isinstance(value, str) else bytes(value).startswith(_SEALED_JSON)


class OperationKey:
    """The key of one operation.

    Args:
        operation_id: the id under which the operation is stored.
        secret: 32 random bytes.
        draw: makes nonces.
    """

    __slots__ = ("_cipher", "_context", "_draw", "_hash_key", "operation_id")

    def __init__(self, operation_id: str, secret: bytes, draw: Draw = os.urandom) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(secret)}")
        self.operation_id = operation_id
        self._context = operation_id.encode()
        self._cipher = AESGCM(hmac.digest(secret, b"opstream seal", "sha256"))
        self._hash_key = hmac.digest(secret, b"opstream hash", "sha256")
        self._draw = draw

    def __repr__(self) -> str:
        """Name the operation, and never the key."""
        return f"<key of operation {self.operation_id}>"

    def seal(self, text: str) -> str:
        """Return a text sealed. An empty one stays empty, and one that this key has sealed stays as it is."""
        if not text or self._has_sealed(text):
            return text
        nonce = self._draw(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, text.encode("utf-8", "surrogatepass"), self._context)
        return SEALED_PREFIX + urlsafe_b64encode(nonce + sealed).decode()

    def open(self, text: str) -> str:
        """Return what was sealed; a text that is not sealed as it is, such as a message of opstream's own.

        Raises:
            SealBroken: it was not sealed by this key, or was changed since.
        """
        from cryptography.exceptions import InvalidTag

        if not is_sealed_text(text):
            return text
        try:
            sealed = b64decode(text[len(SEALED_PREFIX) :], altchars=b"-_", validate=True)
            opened = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._context)
        except (InvalidTag, EncodingError, ValueError) as error:
            raise SealBroken(
                f"a value of operation {self.operation_id} was sealed by another key, or changed since"
            ) from error
        return opened.decode("utf-8", "surrogatepass")

    def seal_json(self, document: msgspec.Raw) -> msgspec.Raw:
        """Return a JSON document sealed, as a JSON text."""
        text = bytes(document).decode()
        if is_sealed(document) and self._has_sealed(text[1:-1]):
            return document
        return msgspec.Raw(f'"{self.seal(text)}"'.encode())

    def open_json(self, document: msgspec.Raw) -> msgspec.Raw:
        """Return the JSON document that was sealed; one that is not sealed as it is.

        Raises:
            SealBroken: as `open`.
        """
        if not is_sealed(document):
            return document
        return msgspec.Raw(self.open(bytes(document).decode()[1:-1]).encode())

    def keyed_hash(self, digest: str) -> str:
        """Return a hash (hex) of a hash that nobody without the key can compute, so that it gives no input away."""
        return hmac.digest(self._hash_key, digest.encode(), "sha256").hex()

    def _has_sealed(self, text: str) -> bool:
        """Return True if this key has sealed a text. What a client calls sealed is a text like any other."""
        if not is_sealed_text(text):
            return False
        try:
            self.open(text)
        except SealBroken:
            return False
        return True
