"""The archive's subjects, and how an event there tells where it came from. Built and parsed here and nowhere else.

The stream ARCHIVE holds the events of OPERATIONS on `archive.{resource}.{action}.{event}`: without the operation id,
which is in the event (CloudEvents `subject`): a broker keeps a few subjects in memory and not one for each event.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .errors import InvalidName
from .names import Kind, check_name
from .subjects import OPERATIONS_STREAM

ARCHIVE_FROM: Final = "operations.*.*.*.*"
"""What is copied: every event, and neither wakes nor deadlines."""
ARCHIVE_TO: Final = "archive.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}"
"""Where to (NATS subject mapping)."""
SOURCE_HEADER: Final = "Nats-Stream-Source"
"""The header that the broker adds to what it copies."""

_TOKENS: Final = 4
_SOURCE_TOKENS: Final = 5


class ArchiveSubject(msgspec.Struct, frozen=True):
    """A parsed subject of the archive."""

    kind: Kind
    event: str


class Origin(msgspec.Struct, frozen=True):
    """Where the broker copied an event from."""

    sequence: int
    """Stream sequence in OPERATIONS."""
    subject: str
    """In OPERATIONS, so with the operation id (`subjects.parse_event_subject`)."""


def archive_subject(kind: Kind, event: str) -> str:
    """Where the archive holds one event type of one action."""
    return f"archive.{kind.resource}.{kind.action}.{event}"


def archive_filter(resource: str = "*", action: str = "*", event: str = "*") -> str:
    """Events of the archive by resource, action and event type; whatever is left out may be anything."""
    return f"archive.{resource}.{action}.{event}"


def parse_archive_subject(subject: str) -> ArchiveSubject:
    """Parse `archive.{resource}.{action}.{event}`.

    Raises:
        InvalidName: the subject has another form.
    """
    tokens = subject.split(".")
    if len(tokens) != _TOKENS or tokens[0] != "archive":
        raise InvalidName(f"{subject!r} is not a subject of the archive: archive.RESOURCE.ACTION.EVENT")
    _, resource, action, event = tokens
    kind = Kind(check_name(resource, "resource"), check_name(action, "action"))
    return ArchiveSubject(kind, check_name(event, "event"))


def parse_origin(header: str) -> Origin:
    """Parse the value of `Nats-Stream-Source` as nats-server 2.15 writes it: stream, sequence, filter, transform,
    subject, and a name of the copying itself, with a space between two of them.

    Raises:
        InvalidName: the value has another form, or names another stream.
    """
    parts = header.split(" ")
    if len(parts) < _SOURCE_TOKENS or parts[0] != OPERATIONS_STREAM or not (parts[1].isascii() and parts[1].isdigit()):
        raise InvalidName(f"{header!r} does not tell where in {OPERATIONS_STREAM} an event was copied from")
    return Origin(sequence=int(parts[1]), subject=parts[4])
