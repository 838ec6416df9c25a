"""Events of files: what an attempt has added to its operation."""

from __future__ import annotations

import re
from typing import ClassVar, Final

import msgspec

from opstream_schemas.errors import InvalidName
from opstream_schemas.payloads.payload_ref import PayloadRef

from .base import EventData

FILE_NAME_PATTERN: Final = r"[A-Za-z0-9_][A-Za-z0-9._ ()+,@=-]{0,127}"
"""Regular expression of the name of a file, without anchors: one that no system takes for a path or an option."""
_PART: Final = "[a-z0-9][a-z0-9!#$&^_.+-]{0,63}"
MEDIA_TYPE_PATTERN: Final = f"{_PART}/{_PART}(?:; ?charset=[A-Za-z0-9_-]{{1,32}})?"
"""Regular expression of a media type, without anchors; of its parameters only `charset`."""
MAX_ATTACHMENTS: Final = 100
"""Files that an operation may have at once."""
MAX_UPLOADS: Final = 10
"""Files that a client may upload for an operation."""

_FILE_NAME: Final = re.compile(FILE_NAME_PATTERN)
_MEDIA_TYPE: Final = re.compile(MEDIA_TYPE_PATTERN)


class Attachment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file of an operation."""

    file_name: str
    media_type: str
    payload: PayloadRef


class Attached(EventData, frozen=True, kw_only=True):
    """The running attempt added a file to the operation. One with the name of an earlier one replaces it."""

    name: ClassVar[str] = "attached"
    type: ClassVar[str] = "opstream.action.attached.v1"

    attempt: int
    file_name: str
    media_type: str
    payload: PayloadRef


def check_uploads(uploads: tuple[Attachment, ...], *, has_some: bool) -> None:
    """Check that an event has uploads as its type says, each of another name.

    Args:
        uploads: as the event has them.
        has_some: True if the type of the event says so.

    Raises:
        ValueError: it has not.
    """
    if has_some != bool(uploads) or len({one.file_name for one in uploads}) != len(uploads):
        raise ValueError("a request has uploads as its type says, each of another name")


def check_file_name(value: str) -> str:
    """Return `value` if it is the name of a file.

    Raises:
        InvalidName: it is not one.
    """
    if _FILE_NAME.fullmatch(value) is None or value.endswith((".", " ")):
        raise InvalidName(
            f"file name {value[:160]!r} must be 1 to 128 characters of A-Z, a-z, 0-9, space and '._()+,@=-', and begin "
            "with a letter, a digit or '_'"
        )
    return value


def check_media_type(value: str) -> str:
    """Return `value` if it is a media type such as `application/pdf` or `text/plain; charset=utf-8`.

    Raises:
        InvalidName: it is not one.
    """
    if _MEDIA_TYPE.fullmatch(value) is None:
        raise InvalidName(f"{value[:160]!r} is not a media type such as application/pdf")
    return value


def check_document(document: msgspec.Raw | msgspec.UnsetType, payload: PayloadRef | None, *, is_claim: bool) -> None:
    """Check that an event has its input or result as its type says: here, or in a payload, and never both.

    Args:
        document: as the event has it.
        payload: as the event has it.
        is_claim: True if the type of the event says that it is a payload.

    Raises:
        ValueError: it has not.
    """
    if is_claim != (payload is not None) or is_claim == isinstance(document, msgspec.Raw):
        raise ValueError("an event has either its document or the claim check of a payload, as its type says")
