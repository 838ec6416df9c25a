"""The claim check of a payload: where it is, how long, and which bytes. An event has it in place of the bytes.

A payload's key says whose it is: `OPERATION/UNIQUE`, with the id under which the operation is stored. No event names a
bucket, a path or a host, so a store can be moved, and a forged event opens nothing else (docs/adr/0075).
"""

from __future__ import annotations

import re
from typing import Annotated, Final, NamedTuple

import msgspec

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import OPERATION_ID_PATTERN, check_operation_id

SCHEME: Final = "payload:"
MAX_PAYLOAD: Final = 256 * 1024**3
"""Bytes of one payload: where its chunks begin must fit into one message of metadata (`object_meta.STRIDE`)."""

_UNIQUE: Final = "[0-9a-f]{32}"
_KEY_REGEX: Final = re.compile(f"({OPERATION_ID_PATTERN})/({_UNIQUE})")
_UNIQUE_REGEX: Final = re.compile(_UNIQUE)


class PayloadKey(NamedTuple):
    """The name of a payload in its store."""

    operation_id: str
    """The id under which the operation is stored that the payload belongs to."""
    unique: str
    """32 hexadecimal digits, never used twice."""

    def __str__(self) -> str:
        return f"{self.operation_id}/{self.unique}"


class PayloadRef(msgspec.Struct, frozen=True, kw_only=True):
    """What an event knows of a payload."""

    uri: str
    """`payload:OPERATION/UNIQUE`."""
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_PAYLOAD)]
    """Bytes, as they are stored."""
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """Of these bytes, in hex."""

    @property
    def key(self) -> PayloadKey:
        """Return the name in the store.

        Raises:
            InvalidName: the URI has another form.
        """
        return parse_payload_uri(self.uri)


def payload_key(operation_id: str, unique: str) -> PayloadKey:
    """Return the key of a new payload of an operation.

    Args:
        operation_id: the id under which the operation is stored.
        unique: a UUID, with or without its hyphens.

    Raises:
        InvalidName: one of the two has another form.
    """
    digits = unique.replace("-", "")
    if _UNIQUE_REGEX.fullmatch(digits) is None:
        raise InvalidName(f"{unique[:64]!r} is no UUID, which makes the name of a payload unique")
    return PayloadKey(check_operation_id(operation_id), digits)


def payload_uri(key: PayloadKey) -> str:
    """Return the URI that an event has."""
    return f"{SCHEME}{key}"


def parse_payload_key(text: str) -> PayloadKey:
    """Parse `OPERATION/UNIQUE`. What has this form has no other meaning to any store, such as a path with `..`.

    Raises:
        InvalidName: it has another form.
    """
    found = _KEY_REGEX.fullmatch(text)
    if found is None:
        raise InvalidName(f"{text[:128]!r} is not the key of a payload: OPERATION/UNIQUE")
    return PayloadKey(found[1], found[2])


def parse_payload_uri(uri: str) -> PayloadKey:
    """Parse `payload:OPERATION/UNIQUE`.

    Raises:
        InvalidName: it has another form.
    """
    if not uri.startswith(SCHEME):
        raise InvalidName(f"{uri[:128]!r} is not the URI of a payload: {SCHEME}OPERATION/UNIQUE")
    return parse_payload_key(uri.removeprefix(SCHEME))
