"""Schemas of the events as components: one envelope, the data of each type, and each type as the two together. Pure.

They are JSON Schema draft-07, the dialect that AsyncAPI 3.0 has by default (ADR 0019). Called by `document.py`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_schemas.events import EVENT_DATA, CloudEvent, EventData
from opstream_schemas.names import NAME, OPERATION_ID

from .shared import SCHEMAS, Json, component, sentence

_ENVELOPE: Final = "CloudEvent"
_HASH: Final = "^([0-9a-f]{64})?$"
_MEMBERS: Final[Json] = {
    "specversion": {"const": "1.0"},
    "id": {"description": "Of the event; the same again is the same event, delivered once more."},
    "source": {"format": "uri-reference", "description": "The process that recorded it."},
    "type": {"description": "Types are only ever added: pass over those that you do not know."},
    "subject": {"pattern": f"^{OPERATION_ID}$", "description": "The operation's id."},
    "time": {"description": "When it was decided, by the clock of its source; `position` has the order."},
    "datacontenttype": {"const": "application/json"},
    "position": {"description": "Place among the events of the operation, from 1 without gaps."},
    "previoushash": {
        "pattern": _HASH,
        "description": "SHA-256 of the bytes of the event before it in the operation; empty for the first.",
    },
}
"""What this document says of the envelope's members beyond their types."""


def payloads() -> Json:
    """The components `schemas`: `CloudEvent`, `Succeeded` (data), `opstream.action.succeeded.v1` (event), …"""
    _, found = msgspec.json.schema_components([CloudEvent, *EVENT_DATA], ref_template=SCHEMAS + "{name}")
    envelope = found[_ENVELOPE]
    envelope["description"] = sentence(CloudEvent.__doc__)
    envelope["required"] = list(envelope["properties"])
    for name, more in _MEMBERS.items():
        member = {key: value for key, value in envelope["properties"][name].items() if key not in {"enum", "default"}}
        envelope["properties"][name] = member | more
    for name in ("resource", "action"):
        found["Requested"]["properties"][name]["pattern"] = f"^{NAME}$"
    return {_ENVELOPE: envelope, **found, **{data.type: _event(data) for data in EVENT_DATA}}


def _event(data: type[EventData]) -> Json:
    return {
        "title": data.type,
        "description": sentence(data.__doc__),
        "allOf": [
            component("schemas", _ENVELOPE),
            {
                "type": "object",
                "properties": {"type": {"const": data.type}, "data": component("schemas", data.__name__)},
            },
        ],
    }
