"""The subjects of the stream ARCHIVE, and what its messages say of where they were copied from.

They have no operation id, which is in the event: so the broker keeps few of them in memory.
"""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind, check_name
from opstream_schemas.subjects import OPERATIONS_STREAM

ARCHIVE_SOURCE: Final = "operations.*.*.*.*"
"""Subjects that the archive copies: every event, but no wake-up timer and no deadline."""
ARCHIVE_DESTINATION: Final = "archive.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}"
"""Subject of the copy (NATS subject mapping)."""
ARCHIVE_SOURCE_HEADER: Final = "Nats-Stream-Source"
"""Header that the broker adds to a copy."""

_ARCHIVE_TOKENS: Final = 4
_SOURCE_TOKENS: Final = 5


class ArchiveSubject(msgspec.Struct, frozen=True):
    """A parsed subject of the archive."""

    kind: Kind
    event: str


class ArchiveOrigin(msgspec.Struct, frozen=True):
    """The message that the broker copied to the archive."""

    sequence: int
    """Stream sequence in OPERATIONS."""
    subject: str
    """Subject in OPERATIONS, so with the operation id (`parse_event_subject`)."""


def archive_subject(kind: Kind, event: str) -> str:
    """Return the subject of one event type of one action in the archive."""
    return f"archive.{kind.resource}.{kind.action}.{event}"


def archive_filter(resource: str = "*", action: str = "*", event: str = "*") -> str:
    """Return a filter of the archive; `*` stands for any value."""
    return f"archive.{resource}.{action}.{event}"


def parse_archive_subject(subject: str) -> ArchiveSubject:
    """Parse `archive.{resource}.{action}.{event}`.

    Raises:
        InvalidName: the subject has another form.
    """
    tokens = subject.split(".")
    if len(tokens) != _ARCHIVE_TOKENS or tokens[0] != "archive":
        raise InvalidName(f"{subject!r} is not a subject of the archive: archive.RESOURCE.ACTION.EVENT")
    _, resource, action, event = tokens
    kind = Kind(check_name(resource, "resource"), check_name(action, "action"))
    return ArchiveSubject(kind, check_name(event, "event"))


def parse_archive_origin(header: str) -> ArchiveOrigin:
    """Parse `Nats-Stream-Source` as nats-server 2.15 writes it: stream, sequence, filter, transform, subject, source.

    Raises:
        InvalidName: the value has another form, or names another stream.
    """
    parts = header.split(" ")
    if len(parts) < _SOURCE_TOKENS or parts[0] != OPERATIONS_STREAM or not (parts[1].isascii() and parts[1].isdigit()):
        raise InvalidName(f"{header!r} does not say which message of {OPERATIONS_STREAM} was copied")
    return ArchiveOrigin(sequence=int(parts[1]), subject=parts[4])
