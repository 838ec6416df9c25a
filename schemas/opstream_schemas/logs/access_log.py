"""The records of the stream ACCESS_LOG: what was denied over HTTP, and what administrators did (docs/adr/0053). Pure.

A record has no secret and no text that a stranger chose: paths are templates, and an id of a key is one that exists.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from opstream_schemas.errors import InvalidEvent

RECORD_LIMIT: Final = 2048
"""Bytes of one record on the broker, headers included."""
DETAIL_LIMIT: Final = 500
"""Bytes of the detail of an act, so that a record stays below `RECORD_LIMIT`."""

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class DenialReason(StrEnum):
    """Why a request was denied. Readers take any other text, too: a later version may have more."""

    NO_CREDENTIALS = "no-credentials"
    MALFORMED_CREDENTIALS = "malformed-credentials"
    """A header `Authorization` that holds neither a key nor a token, or two of them."""
    UNKNOWN_KEY = "unknown-key"
    WRONG_SECRET = "wrong-secret"  # noqa: S105 - a reason
    EXPIRED_KEY = "expired-key"
    REVOKED_KEY = "revoked-key"
    INVALID_TOKEN = "invalid-token"  # noqa: S105 - a reason
    EXPIRED_TOKEN = "expired-token"  # noqa: S105 - a reason
    EARLY_TOKEN = "early-token"  # noqa: S105 - a reason
    WRONG_AUDIENCE = "wrong-audience"
    WRONG_ISSUER = "wrong-issuer"
    WRONG_SIGNATURE = "wrong-signature"
    UNKNOWN_SIGNING_KEY = "unknown-signing-key"
    INVALID_STATUS_TOKEN = "invalid-status-token"  # noqa: S105 - a reason
    ACCESS_ENDED = "access-ended"
    """Of a request that began with valid credentials."""
    MISSING_SCOPE = "missing-scope"
    FOREIGN_OPERATION = "foreign-operation"
    CROSS_SITE = "cross-site"
    UNKNOWN_HOST = "unknown-host"
    TOO_MANY_REQUESTS = "too-many-requests"
    TOO_MANY_OPEN = "too-many-open-operations"


class AdminAct(StrEnum):
    """What an administrator did; the last token of the record's subject."""

    KEY_ADDED = "key-added"
    KEY_REVOKED = "key-revoked"
    CANCELED = "canceled"
    """The operation of another caller."""
    RETRIED = "retried"
    """The same: a follow-up does it again, in the name of who asked."""
    PAUSED = "paused"
    """An action."""
    RESUMED = "resumed"
    """An action."""
    WITHDRAWN = "withdrawn"
    """An action."""
    REDELIVERED = "redelivered"
    """What a receiver of webhooks had not taken was sent again."""
    HANDLED_AGAIN = "handled-again"
    """A subscriber was asked to handle an event again that it had put aside."""
    SCHEDULE_CHANGED = "schedule-changed"
    """What an administrator did with the schedule of another caller; the detail says it."""
    ERASED = "erased"
    """The operation of another caller; by a command, any."""
    PROVISIONED = "provisioned"
    RESTORED = "restored"


class DenialRecord(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="denied", tag_field="type"
):
    """All denials of one caller, for one reason, in one minute, by one API process."""

    reason: str
    count: int
    first: _Instant
    last: _Instant
    tenant: str = ""
    caller: str = ""
    """The subject that credentials prove; empty for a stranger."""
    key_id: str = ""
    """Of a key that exists, whether or not the secret was right."""
    address: str = ""
    """Of a stranger, the network for IPv6; of a caller, one of its addresses."""
    method: str = ""
    """Of one of the requests."""
    path: str = ""
    """Template of the path of that request."""
    is_others: bool = False
    """True for those for which there was no row of their own, of any minute."""


class ActRecord(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag="act", tag_field="type"
):
    """One act of an administrator."""

    act: str
    """One of `AdminAct`, or of a later version's."""
    at: _Instant
    by: str = ""
    """The caller of a request; of a command the user and host that the operating system names, which prove nothing."""
    tenant: str = ""
    key_id: str = ""
    """Of the API key with which the request was made."""
    target: str = ""
    """Id of the key or operation, or what else it was done to."""
    detail: str = ""


AccessRecord = DenialRecord | ActRecord

_encode: Final = msgspec.json.Encoder().encode
_decode: Final[Callable[[bytes], AccessRecord]] = msgspec.json.Decoder(AccessRecord).decode


def encode_access_record(record: AccessRecord) -> bytes:
    """Return the bytes of a record on the broker."""
    return _encode(record)


def decode_access_record(payload: bytes) -> AccessRecord:
    """Decode a message of the stream ACCESS_LOG.

    Raises:
        InvalidEvent: it is no such record.
    """
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a record of the access log: {error}") from error
