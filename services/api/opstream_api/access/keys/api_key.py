"""An API key, `ops_<id>_<secret>`, and its record, which has only the hash. Pure, but for the bytes of a new key.

The id finds the record, so that a request costs one look-up and one SHA-256. A slow hash is for passwords: a secret of
32 random bytes can't be guessed, however fast the hash is.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec

from opstream_api.access.principal import Principal, check_subject, check_tenant
from opstream_api.access.scopes import Scopes
from opstream_schemas.errors import InvalidName
from opstream_schemas.operation.priority import check_priority
from opstream_schemas.text import truncate_text

PREFIX: Final = "ops_"
"""What each key begins with, so that scanners of leaked secrets can find one."""
SECRET_BYTES: Final = 32
NOTE_LIMIT: Final = 200
"""Bytes of a note."""

_ID_LENGTH: Final = 10
_ID_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"
"""No '_', which ends the id; no characters that are mistaken for each other, since people read ids aloud."""
_ID_REGEX: Final = re.compile("[a-z0-9]{1,40}")
_DIGEST_REGEX: Final = re.compile("[0-9a-f]{64}")

Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class ApiKeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of an API key. Nothing in it lets a reader use the key."""

    id: str
    sha256: str
    """Of the whole key, in hex."""
    tenant: str = ""
    """Empty for the operator's own."""
    subject: str
    scopes: tuple[str, ...]
    created: Instant
    expires: Instant | None = None
    """None for never."""
    revoked: Instant | None = None
    """None for a key that is in use."""
    note: str = ""
    most_priority: str = ""
    """The highest priority that the key may ask for (docs/adr/0072); empty for any."""

    def principal(self) -> Principal:
        """Return whose requests the key makes.

        Raises:
            InvalidName: the record names something that is no tenant, subject, scope or priority.
        """
        return Principal(
            tenant=check_tenant(self.tenant),
            subject=check_subject(self.subject),
            scopes=Scopes.parse(self.scopes),
            expires_at=self.expires,
            key_id=self.id,
            most_priority=check_priority(self.most_priority) if self.most_priority else None,
        )

    def is_usable(self, now: datetime) -> bool:
        """Return True if the key is neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(ApiKeyRecord).decode


def create_key(
    *,
    tenant: str,
    subject: str,
    scopes: Sequence[str],
    now: datetime,
    expires: datetime | None,
    note: str = "",
    most_priority: str = "",
) -> tuple[str, ApiKeyRecord]:
    """Return a new key and its record. The key is shown once and kept nowhere.

    Raises:
        InvalidName: the tenant, the subject, a scope or the priority is none.
    """
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    key = f"{PREFIX}{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    record = ApiKeyRecord(
        id=key_id,
        sha256=digest_of(key.encode()).hex(),
        tenant=tenant,
        subject=subject,
        scopes=Scopes.parse(scopes).texts,
        created=now,
        expires=expires,
        note=truncate_text(note, NOTE_LIMIT),
        most_priority=most_priority,
    )
    record.principal()
    return key, record


def digest_of(key: bytes) -> bytes:
    """Return the SHA-256 of a key as a request has it."""
    return hashlib.sha256(key).digest()


def encode_key(record: ApiKeyRecord) -> bytes:
    """Return the bytes of a record."""
    return _encode(record)


def decode_key(data: bytes) -> ApiKeyRecord:
    """Decode a record.

    Raises:
        InvalidName: it is none. The message says why.
    """
    try:
        return check_record(_decode(data))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidName(f"it is no record of an API key: {error}") from error


def check_record(record: ApiKeyRecord) -> ApiKeyRecord:
    """Return a record whose parts are valid.

    Raises:
        InvalidName: one is not.
    """
    if _ID_REGEX.fullmatch(record.id) is None:
        raise InvalidName(f"the id {record.id[:80]!r} of an API key must be 1 to 40 characters of a-z and 0-9")
    if _DIGEST_REGEX.fullmatch(record.sha256) is None:
        raise InvalidName(f"the hash of the API key {record.id} must be 64 characters of 0-9 and a-f")
    record.principal()
    return record
