"""A filter of the events of the journal or the archive. Pure.

The broker filters by subject (`EventFilter.subject_filters`). What a subject does not say is looked up in the envelope
(`EventFilter.matches`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Self

import msgspec

from . import subjects
from .errors import InvalidEvent, InvalidName
from .events import EVENT_DATA, CloudEvent
from .integrity import archive_subjects
from .names import check_name, check_operation_id
from .text import MAX_NESTING, check_json

EVENT_NAMES: Final = tuple(data.name for data in EVENT_DATA)
"""Short names of the event types that this version knows."""

_ANY: Final = "*"
_TYPE: Final = re.compile(r"opstream\.action\.([a-z0-9-]{1,40})\.v[0-9]+")

_decode: Final = msgspec.json.Decoder(CloudEvent).decode


class EventTypeFilter(msgspec.Struct, frozen=True):
    """A type of event that the filter lets pass."""

    name: str
    """Short name: the last token of the event's subject."""
    full_type: str = ""
    """CloudEvents type; empty for every version of it."""

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
            raise InvalidName(f"{text!r} is not a type of event: {', '.join(EVENT_NAMES)}, or opstream.action.NAME.v1")
        return cls(found[1], text)


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events pass. By default every event does."""

    operation_id: str = ""
    resource: str = _ANY
    action: str = _ANY
    types: tuple[EventTypeFilter, ...] = ()

    def subject_filters(self, *, is_archive: bool) -> tuple[str, ...]:
        """Return subject filters that don't overlap; none if every subject passes."""
        names = sorted({one.name for one in self.types}) or [_ANY]
        if is_archive:
            chosen = [archive_subjects.archive_filter(self.resource, self.action, name) for name in names]
            everything = archive_subjects.archive_filter()
        else:
            operation_id = self.operation_id or _ANY
            chosen = [subjects.events_filter(operation_id, self.resource, self.action, name) for name in names]
            everything = subjects.events_filter(_ANY, _ANY, _ANY, _ANY)
        return () if everything in chosen else tuple(chosen)

    def matches(self, envelope: CloudEvent) -> bool:
        """Return True if an event that passed the subject filters passes the rest of the filter."""
        if self.operation_id and envelope.subject != self.operation_id:
            return False
        full = {one.full_type for one in self.types if one.full_type}
        if not full or envelope.type in full:
            return True
        name = _short_name(envelope.type)
        return any(one.name == name and not one.full_type for one in self.types)


def parse_action_filter(text: str) -> tuple[str, str]:
    """Parse `book:upload-start`, `book:*` or `*:upload-start` into resource and action, `*` for any.

    Raises:
        InvalidName: the text has another form.
    """
    resource, colon, action = text.partition(":")
    if not colon:
        raise InvalidName(f"{text!r} is not an action: write RESOURCE:ACTION, e.g. book:upload-start, or book:*")
    names = ((resource, "resource"), (action, "action"))
    return tuple(one if one == _ANY else check_name(one, what) for one, what in names)  # type: ignore[return-value]


def is_event_subject(subject: str) -> bool:
    """Return True if the subject is an event's. The stream OPERATIONS also holds timers that fired."""
    return subject.startswith(("operations.", "archive."))


def decode_envelope(subject: str, payload: bytes) -> CloudEvent:
    """Decode the envelope of an event. Its data is not decoded, so the event may be of any type and version.

    Raises:
        InvalidEvent: the message is not a CloudEvent of opstream, or does not belong on this subject.
    """
    try:
        check_json(payload, MAX_NESTING + 2)  # the same limit as in `decode_event`
        envelope = _decode(payload)
        check_operation_id(envelope.subject)
        owner, name = _parse_subject(subject)
        if owner not in {"", envelope.subject}:
            raise InvalidName(f"it is an event of operation {envelope.subject!r}")
        if name != _short_name(envelope.type):
            raise InvalidName(f"it is of the type {envelope.type!r}")
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise InvalidEvent(f"the message on {subject} is not an event of that subject: {error}") from error
    return envelope


def _parse_subject(subject: str) -> tuple[str, str]:
    """Return the operation id, which is empty in the archive, and the event's short name."""
    if subject.startswith("operations."):
        parsed = subjects.parse_event_subject(subject)
        return parsed.operation_id, parsed.event
    return "", archive_subjects.parse_archive_subject(subject).event


@lru_cache(256)
def _short_name(full: str) -> str:
    found = _TYPE.fullmatch(full)
    return found[1] if found else ""
