"""How the key of an operation is kept: wrapped by a key-encryption key (KEK); and the record that takes its place.

A value of the bucket `operation_keys` is JSON: a wrapped key, or the record that the operation was erased.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode
from binascii import Error as EncodingError
from collections.abc import Sequence
from typing import Final

import msgspec

from opstream_schemas.errors import InvalidKek, SealBroken, UnknownKek
from opstream_schemas.event_types.erasure import Erasure

from .operation_key import KEY_BYTES, NONCE_BYTES, Draw

MAX_KEKS: Final = 16
"""Key-encryption keys of one process: the present one, and those that it replaces."""

_ID_LENGTH: Final = 16
_COMMENT: Final = "#"


class Kek(msgspec.Struct, frozen=True):
    """A key-encryption key."""

    secret: bytes

    @property
    def id(self) -> str:
        """Return the first 16 hex digits of its SHA-256, by which a wrapped key names it."""
        return hashlib.sha256(b"opstream kek" + self.secret).hexdigest()[:_ID_LENGTH]

    def __repr__(self) -> str:
        """Name the key, and never show it."""
        return f"<KEK {self.id}>"


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the bucket has under the id of an operation: `kek` and `wrapped`, or `erased`."""

    kek: str = ""
    """Id of the KEK that has wrapped the key."""
    wrapped: bytes = b""
    """Nonce, ciphertext and tag."""
    erased: Erasure | None = None
    pending: bool = False
    """True from the record of an erasure until the wrapped key before it is destroyed on the broker's disk, too."""


def parse_keks(text: str) -> tuple[Kek, ...]:
    """Parse key-encryption keys: one a line, base64 of 32 bytes. The first wraps new keys, all of them open old ones.

    Empty lines and what follows a `#` are passed over.

    Raises:
        InvalidKek: there is none, too many, or a line is no key. No message shows a key.
    """
    lines = [(number, line.partition(_COMMENT)[0].strip()) for number, line in enumerate(text.splitlines(), start=1)]
    found: dict[str, Kek] = {}
    for number, line in lines:
        if not line:
            continue
        try:
            secret = b64decode(line, validate=True)
        except (EncodingError, ValueError):
            secret = b""
        if len(secret) != KEY_BYTES:
            raise InvalidKek(
                f"line {number} is no key: write base64 of {KEY_BYTES} random bytes, as 'opstream keys new' does"
            )
        kek = Kek(secret)
        found.setdefault(kek.id, kek)
    if not found:
        raise InvalidKek("there is no key: write one a line, as 'opstream keys new' does")
    if len(found) > MAX_KEKS:
        raise InvalidKek(f"there are {len(found)} keys, {MAX_KEKS} are allowed: remove those that nothing needs")
    return tuple(found.values())


def wrap_key(kek: Kek, operation_id: str, secret: bytes, draw: Draw = os.urandom) -> KeyEntry:
    """Return the key of an operation as it is kept."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = draw(NONCE_BYTES)
    wrapped = AESGCM(kek.secret).encrypt(nonce, secret, _context(operation_id))
    return KeyEntry(kek=kek.id, wrapped=nonce + wrapped)


def unwrap_key(keks: Sequence[Kek], operation_id: str, entry: KeyEntry) -> bytes:
    """Return the key of an operation.

    Raises:
        UnknownKek: none of these has wrapped it.
        SealBroken: it was wrapped for another operation, or changed since.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    kek = next((one for one in keks if one.id == entry.kek), None)
    if kek is None:
        raise UnknownKek(
            f"the key of operation {operation_id} is wrapped by the key-encryption key {entry.kek or '(none)'}, which "
            "this process does not have: add it to its file (docs/confidential.md)"
        )
    try:
        return AESGCM(kek.secret).decrypt(
            entry.wrapped[:NONCE_BYTES], entry.wrapped[NONCE_BYTES:], _context(operation_id)
        )
    except (InvalidTag, ValueError) as error:
        raise SealBroken(
            f"the key of operation {operation_id} is damaged: restore it (docs/confidential.md)"
        ) from error


def encode_entry(entry: KeyEntry) -> bytes:
    """Return the value of the bucket."""
    return msgspec.json.encode(entry)


def decode_entry(operation_id: str, data: bytes) -> KeyEntry:
    """Decode a value of the bucket.

    Raises:
        SealBroken: it is none.
    """
    try:
        entry = msgspec.json.decode(data, type=KeyEntry)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SealBroken(f"the key of operation {operation_id} can't be read: {error}") from error
    if bool(entry.wrapped) == (entry.erased is not None):
        raise SealBroken(f"the key of operation {operation_id} is neither a key nor erased")
    return entry


def _context(operation_id: str) -> bytes:
    return b"opstream key\0" + operation_id.encode()
