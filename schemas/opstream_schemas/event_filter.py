"""Which events of the journal, or of its archive, somebody wants to read. Pure. Callers: `opstream replay` and its kin.

What the broker can tell apart by subject it does (`EventFilter.filters`); the rest is looked for in the envelope.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Self

import msgspec

from . import subjects
from .errors import InvalidEvent, InvalidName
from .events import EVENT_DATA, CloudEvent
from .names import check_name, check_operation_id
from .text import MAX_NESTING, check_json

EVENT_NAMES: Final = tuple(data.name for data in EVENT_DATA)
"""Short names of the event types that this version knows."""

_ANY: Final = "*"
_TYPE: Final = re.compile(r"opstream\.action\.([a-z0-9-]{1,40})\.v[0-9]+")

_decode: Final = msgspec.json.Decoder(CloudEvent).decode


class EventTypeFilter(msgspec.Struct, frozen=True):
    """A type of event that is wanted."""

    name: str
    """The last token of its subject."""
    full_type: str = ""
    """Its CloudEvents type; empty for every version of it."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `succeeded` or `opstream.action.succeeded.v1`.

        Raises:
            InvalidName: it is neither; the message lists the short names.
        """
        if text in EVENT_NAMES:
            return cls(text)
        found = _TYPE.fullmatch(text)
        if found is None:
            raise InvalidName(f"{text!r} is no type of event: {', '.join(EVENT_NAMES)}, or opstream.action.NAME.v1")
        return cls(found[1], text)


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted; without anything, every event."""

    operation_id: str = ""
    resource: str = _ANY
    action: str = _ANY
    types: tuple[EventTypeFilter, ...] = ()

    def subject_filters(self, *, is_archive: bool) -> tuple[str, ...]:
        """Subject filters, which don't overlap; none if every subject is wanted."""
        names = sorted({one.name for one in self.types}) or [_ANY]
        if is_archive:
            chosen = [subjects.archive_filter(self.resource, self.action, name) for name in names]
            everything = subjects.archive_filter()
        else:
            operation_id = self.operation_id or _ANY
            chosen = [subjects.events_filter(operation_id, self.resource, self.action, name) for name in names]
            everything = subjects.events_filter(_ANY, _ANY, _ANY, _ANY)
        return () if everything in chosen else tuple(chosen)

    def matches(self, envelope: CloudEvent) -> bool:
        """Whether an event that came through the filters is wanted."""
        if self.operation_id and envelope.subject != self.operation_id:
            return False
        full = {one.full_type for one in self.types if one.full_type}
        if not full or envelope.type in full:
            return True
        name = _short_name(envelope.type)
        return any(one.name == name and not one.full_type for one in self.types)


def parse_action_filter(text: str) -> tuple[str, str]:
    """Parse `book:upload-start`, `book:*` or `*:upload-start`: resource and action, `*` for any.

    Raises:
        InvalidName: it is none of these.
    """
    resource, colon, action = text.partition(":")
    if not colon:
        raise InvalidName(f"{text!r} is no action: write RESOURCE:ACTION, e.g. book:upload-start, or book:*")
    names = ((resource, "resource"), (action, "action"))
    return tuple(one if one == _ANY else check_name(one, what) for one, what in names)  # type: ignore[return-value]


def is_event_subject(subject: str) -> bool:
    """Whether what lies there is meant to be an event; the journal's stream holds timers that fired, too."""
    return subject.startswith(("operations.", "archive."))


def decode_envelope(subject: str, payload: bytes) -> CloudEvent:
    """The envelope of what lies on an event's subject. Its data is not decoded, so it may be of any version.

    Raises:
        InvalidEvent: it is no CloudEvent of opstream, or another one than the subject says.
    """
    try:
        check_json(payload, MAX_NESTING + 2)  # as `decode_event` does: what nobody could decode is no event
        envelope = _decode(payload)
        check_operation_id(envelope.subject)
        owner, name = _parse_subject(subject)
        if owner not in {"", envelope.subject}:
            raise InvalidName(f"it is an event of operation {envelope.subject!r}")
        if name != _short_name(envelope.type):
            raise InvalidName(f"it is of the type {envelope.type!r}")
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise InvalidEvent(f"what lies on {subject} is no event of it: {error}") from error
    return envelope


def _parse_subject(subject: str) -> tuple[str, str]:
    """The operation id (empty in the archive, whose subjects name none), and the event's name."""
    if subject.startswith("operations."):
        parsed = subjects.parse_event_subject(subject)
        return parsed.operation_id, parsed.event
    return "", subjects.parse_archive_subject(subject).event


@lru_cache(256)
def _short_name(full: str) -> str:
    found = _TYPE.fullmatch(full)
    return found[1] if found else ""
