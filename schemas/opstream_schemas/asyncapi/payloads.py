"""Schemas of the events: the envelope, the data of each type, and each event as both together. Pure.

They are JSON Schema draft-07, the default dialect of AsyncAPI 3.0 (ADR 0019).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from opstream_schemas.events import EVENT_DATA, EVENT_TYPES, CloudEvent, EventData, Requested, StepSucceeded, Succeeded
from opstream_schemas.names import NAME_PATTERN, OPERATION_ID_PATTERN

from .shared import SCHEMAS_PREFIX, Json, TypedAction, action_object_name, component_reference, first_line

TYPED_EVENTS: Final[tuple[type[EventData], ...]] = (Requested, Succeeded)
"""Events that hold the input or the result of an action."""

_WITH_DOCUMENTS: Final[tuple[type[EventData], ...]] = (*TYPED_EVENTS, StepSucceeded)
"""Events that hold a document, or the claim check of a payload."""
_ENVELOPE: Final = "CloudEvent"
_HASH: Final = "^([0-9a-f]{64})?$"
_MEMBERS: Final[Json] = {
    "specversion": {"const": "1.0"},
    "id": {"description": "Of the event; the same again is the same event, delivered once more."},
    "source": {"format": "uri-reference", "description": "The process that recorded it."},
    "type": {"description": "Types are only ever added: pass over those that you do not know."},
    "subject": {"pattern": f"^{OPERATION_ID_PATTERN}$", "description": "The operation's id."},
    "time": {"description": "When it was decided, by the clock of its source; `position` has the order."},
    "datacontenttype": {"const": "application/json"},
    "position": {"description": "Place among the events of the operation, from 1 without gaps."},
    "previoushash": {
        "pattern": _HASH,
        "description": "SHA-256 of the bytes of the event before it in the operation; empty for the first.",
    },
}
"""What the document adds to the types of the envelope's members."""


def event_schemas() -> Json:
    """Return the schemas of all events: `CloudEvent`, `Succeeded` (data), `opstream.action.succeeded.v1` (event), …"""
    _, made = msgspec.json.schema_components([CloudEvent, *EVENT_DATA], ref_template=SCHEMAS_PREFIX + "{name}")
    found: Json = msgspec.json.decode(msgspec.json.encode(made))  # a default may be a tuple
    envelope = found[_ENVELOPE]
    envelope["description"] = first_line(CloudEvent.__doc__)
    envelope["required"] = list(envelope["properties"])
    for name, more in _MEMBERS.items():
        member = {key: value for key, value in envelope["properties"][name].items() if key not in {"enum", "default"}}
        envelope["properties"][name] = member | more
    for data in _WITH_DOCUMENTS:
        role = typed_member(data)
        found[data.__name__]["oneOf"] = [{"required": [role]}, {"required": [f"{role}Payload"]}]
    for name in ("resource", "action"):
        found["Requested"]["properties"][name]["pattern"] = f"^{NAME_PATTERN}$"
    return {_ENVELOPE: envelope, **found, **{data.type: _event(data) for data in EVENT_DATA}}


def event_schema_names() -> Collection[str]:
    """Return the names of the schemas of all events, which a type of an action can't have."""
    return event_schemas().keys()


def action_schemas(action: TypedAction, schemas: Json) -> Json:
    """Return the schemas of an action: those that it brings, and the data of the events `TYPED_EVENTS` with them.

    The data is written out in full. With `allOf`, a member would have two schemas, and code generators use the first,
    which is not the action's.

    Args:
        action: an action of the catalog.
        schemas: the schemas so far, with those of `event_schemas`.
    """
    found = dict(action.components)
    for data in TYPED_EVENTS:
        role, name = typed_member(data), action_object_name(action.kind, f"{data.name}.data")
        common = schemas[data.__name__]
        members = common["properties"] | {role: action.input_schema if data is Requested else action.result_schema}
        found[name] = {**common, "title": name, "properties": members}
    return found


def action_event_schema(data: type[EventData], action: TypedAction) -> Json:
    """Return the schema of one of `TYPED_EVENTS` and one action."""
    name = action_object_name(action.kind, data.name)
    return {"title": name, **_enveloped(data, f"{name}.data")}


def typed_member(data: type[EventData]) -> str:
    """Return the name of the event's member whose schema is the action's."""
    return "input" if data is Requested else "result"


def _event(data: type[EventData]) -> Json:
    return {"title": data.type, "description": first_line(data.__doc__), **_enveloped(data, data.__name__)}


def _enveloped(data: type[EventData], name: str) -> Json:
    types = [one for one, type_ in EVENT_TYPES.items() if type_ is data]
    is_one = len(types) == 1
    members = {
        "type": {"const": data.type} if is_one else {"enum": types},
        "data": component_reference("schemas", name),
    }
    return {"allOf": [component_reference("schemas", _ENVELOPE), {"type": "object", "properties": members}]}
