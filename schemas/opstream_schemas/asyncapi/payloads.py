"""Schemas of the events as components: one envelope, the data of each type, and each type as the two together. Pure.

They are JSON Schema draft-07, the dialect that AsyncAPI 3.0 has by default (ADR 0019). Called by `messages.py` and
`document.py`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_schemas.events import EVENT_DATA, CloudEvent, EventData, Requested, Succeeded
from opstream_schemas.names import NAME_PATTERN, OPERATION_ID_PATTERN

from .shared import SCHEMAS_PREFIX, Json, TypedAction, action_object_name, component_reference, first_line

TYPED_EVENTS: Final[tuple[type[EventData], ...]] = (Requested, Succeeded)
"""Events that hold what an action takes or gives."""

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
"""What this document says of the envelope's members beyond their types."""


def event_schemas() -> Json:
    """The components `schemas`: `CloudEvent`, `Succeeded` (data), `opstream.action.succeeded.v1` (event), …"""
    _, found = msgspec.json.schema_components([CloudEvent, *EVENT_DATA], ref_template=SCHEMAS_PREFIX + "{name}")
    envelope = found[_ENVELOPE]
    envelope["description"] = first_line(CloudEvent.__doc__)
    envelope["required"] = list(envelope["properties"])
    for name, more in _MEMBERS.items():
        member = {key: value for key, value in envelope["properties"][name].items() if key not in {"enum", "default"}}
        envelope["properties"][name] = member | more
    for name in ("resource", "action"):
        found["Requested"]["properties"][name]["pattern"] = f"^{NAME_PATTERN}$"
    return {_ENVELOPE: envelope, **found, **{data.type: _event(data) for data in EVENT_DATA}}


def action_schemas(action: TypedAction, schemas: Json) -> Json:
    """The components of an action: those that it brings, and the data of events that hold something of it.

    The data is written out rather than made of the type's own and a difference: generators of code take the first of
    two schemas that a member has, which would lose the action's.

    Args:
        action: of the catalog.
        schemas: the components that there are, `payloads` among them.
    """
    found = dict(action.components)
    for data in TYPED_EVENTS:
        role, name = typed_member(data), action_object_name(action.kind, f"{data.name}.data")
        common = schemas[data.__name__]
        members = common["properties"] | {role: component_reference("schemas", action_object_name(action.kind, role))}
        found[name] = {**common, "title": name, "properties": members}
    return found


def action_event_schema(data: type[EventData], action: TypedAction) -> Json:
    """The schema of an event of one of the types `TYPED_EVENTS`, of one action."""
    name = action_object_name(action.kind, data.name)
    return {"title": name, **_enveloped(data, f"{name}.data")}


def typed_member(data: type[EventData]) -> str:
    """Which member of the data of one of the types `TYPED_EVENTS` is the action's."""
    return "input" if data is Requested else "result"


def _event(data: type[EventData]) -> Json:
    return {"title": data.type, "description": first_line(data.__doc__), **_enveloped(data, data.__name__)}


def _enveloped(data: type[EventData], name: str) -> Json:
    members = {"type": {"const": data.type}, "data": component_reference("schemas", name)}
    return {"allOf": [component_reference("schemas", _ENVELOPE), {"type": "object", "properties": members}]}
