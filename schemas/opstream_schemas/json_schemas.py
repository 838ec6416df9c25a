"""JSON Schemas of the events and of the operation, for programs in other languages."""

from __future__ import annotations

from typing import Any

import msgspec

from .events import EVENT_TYPES, CloudEvent, EventData, Requested, StepSucceeded, Succeeded
from .operation.state import Operation

_DOCUMENTS: dict[type[EventData], str] = {Requested: "input", StepSucceeded: "result", Succeeded: "result"}
"""The member that is a document, if it is no payload."""
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return JSON Schemas (2020-12): one for each event, by its type, and one for `operation`."""
    documents = {name: _event_schema(name, data) for name, data in EVENT_TYPES.items()}
    documents["operation"] = {"$schema": _DIALECT, **_inlined_schema(Operation), "title": "operation"}
    return documents


def _event_schema(name: str, data: type[EventData]) -> dict[str, Any]:
    envelope = _inlined_schema(CloudEvent)
    definitions = envelope.pop("$defs", {})
    body = _inlined_schema(data)
    definitions.update(body.pop("$defs", {}))
    if data in _DOCUMENTS:
        role = _DOCUMENTS[data] if name != getattr(data, "claim_type", "") else f"{_DOCUMENTS[data]}Payload"
        body["required"] = sorted({*body.get("required", ()), role})
    if data is Requested and name == Requested.sealed_type:
        body["required"] = sorted({*body["required"], "confidential"} - {"input"})
        body["oneOf"] = [{"required": ["input"]}, {"required": ["inputPayload"]}]
    elif data is Requested:
        del body["properties"]["confidential"]
    envelope["properties"]["type"] = {"const": name}
    envelope["properties"]["data"] = body
    envelope["required"] = sorted({*envelope["required"], "datacontenttype"})
    schema = {"$schema": _DIALECT, **envelope, "title": name, "description": body["description"]}
    if definitions:
        schema["$defs"] = definitions
    return schema


def _inlined_schema(model: type) -> dict[str, Any]:
    schema = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(model)))  # a default may be a tuple
    definitions = schema.pop("$defs", {})
    name = schema.pop("$ref").rpartition("/")[2]
    top: dict[str, Any] = definitions.pop(name)
    if definitions:
        top["$defs"] = definitions
    return top
