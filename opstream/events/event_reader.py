"""Reads events from messages of the journal, as subscribers have them."""

from __future__ import annotations

from opstream_schemas import events as wire
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.subjects import parse_event_subject

from .errors import UnreadableEvent
from .model import CLASS_OF_DATA, Event, build_event
from .settlement import Settlement


def read_event(subject: str, data: bytes, sequence: int, deliveries: int, delivery: Settlement | None) -> Event:
    """Decode the event in a message.

    Raises:
        UnreadableEvent: it holds no event of this version, or another event than its subject names.
    """
    try:
        parsed = parse_event_subject(subject)
        found = wire.decode_event(data, sequence)
    except (InvalidEvent, InvalidName) as error:
        raise UnreadableEvent("Undecodable", str(error)) from error
    if found.operation_id != parsed.operation_id:
        raise UnreadableEvent("Foreign", f"the event is of operation {found.operation_id}, its subject is {subject}")
    if found.data is None:
        raise UnreadableEvent("UnknownType", f"type {found.type} is not known to this version of opstream")
    if found.data.name != parsed.event:
        raise UnreadableEvent("Foreign", f"the event is of type {found.type}, its subject is {subject}")
    return build_event(found, found.data, parsed.kind, deliveries, delivery, CLASS_OF_DATA[type(found.data)])
