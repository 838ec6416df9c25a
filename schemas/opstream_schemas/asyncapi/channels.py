"""Channels, which are subjects of the broker, and the operations on them. Pure.

AsyncAPI has no pattern for a parameter, so each has the extension `x-pattern`. The official NATS binding (0.1.0) has
members for operations only, so the stream and the filter of a channel are in the extension `x-jetstream`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from opstream_schemas import subjects
from opstream_schemas.events import EventData
from opstream_schemas.integrity import archive_subjects
from opstream_schemas.names import NAME_PATTERN, OPERATION_ID_PATTERN, Kind

from .messages import action_heading, tag_reference
from .payloads import typed_member
from .samples import SAMPLE_KIND
from .samples import SAMPLE_OPERATION_ID as SHOWN_ID
from .shared import Json, TypedAction, action_object_name, component_reference, first_line, reference

BINDING: Final = "journal"
BINDINGS: Final[Json] = {BINDING: {"nats": {"bindingVersion": "0.1.0"}}}

PARAMETERS: Final[Json] = {
    "operationId": {
        "description": "The operation's id: one token, `*` for the events of all operations.",
        "location": "$message.payload#/subject",
        "examples": [SHOWN_ID],
        "x-pattern": f"^{OPERATION_ID_PATTERN}$",
    },
    "resource": {
        "description": "The kind of resource that the action is about, `*` for all of them.",
        "examples": [SAMPLE_KIND.resource],
        "x-pattern": f"^{NAME_PATTERN}$",
    },
    "action": {
        "description": "What is done to the resource, `*` for all actions.",
        "examples": [SAMPLE_KIND.action],
        "x-pattern": f"^{NAME_PATTERN}$",
    },
}
_TEMPLATE_KIND: Final = Kind("{resource}", "{action}")
_WILDCARD_KIND: Final = Kind("*", "*")


def event_channel(data: type[EventData]) -> Json:
    """Return the channel of an event type, for all actions."""
    return _channel(
        data,
        _TEMPLATE_KIND,
        _WILDCARD_KIND,
        f"The event `{data.name}` of all actions",
        first_line(data.__doc__),
        data.name,
    )


def archive_channel(data: type[EventData]) -> Json:
    """Return the channel of an event type in the archive, for all actions and operations."""
    return {
        "address": archive_subjects.archive_subject(_TEMPLATE_KIND, data.name),
        "summary": f"The event `{data.name}` of all actions, in the archive",
        "description": "Copied by the broker, byte for byte, if the operator has made the archive.",
        **_content(data, data.name, ("resource", "action")),
        "x-jetstream": {
            "stream": subjects.ARCHIVE_STREAM,
            "filterSubject": archive_subjects.archive_filter(event=data.name),
        },
    }


def archive_channel_name(data: type[EventData]) -> str:
    """Return the name of an event type's channel in the archive. Names of actions' channels have more tokens."""
    return f"archive.{data.name}"


def action_channel(data: type[EventData], action: TypedAction) -> Json:
    """Return the channel of an event type and one action: a part of the type's channel, with its own message."""
    description = (
        f"A part of the channel `{data.name}`. `data.{typed_member(data)}` is described "
        f"as version {action.version} of the "
        "action has it; the journal may hold events of earlier versions."
    )
    return _channel(
        data,
        action.kind,
        action.kind,
        action_heading(data, action),
        description,
        action_object_name(action.kind, data.name),
    )


def send_operation(data: type[EventData], channel: str, summary: str) -> Json:
    """Return the operation on a channel: opstream sends."""
    return {
        "action": "send",
        "channel": reference("channels", channel),
        "messages": [reference("channels", channel, "messages", data.name)],
        "summary": summary,
        "tags": [tag_reference(data)],
        "bindings": component_reference("operationBindings", BINDING),
    }


def _channel(data: type[EventData], kind: Kind, filtered: Kind, summary: str, description: str, message: str) -> Json:
    parameters = ("operationId", *(("resource", "action") if kind is _TEMPLATE_KIND else ()))
    return {
        "address": subjects.event_subject("{operationId}", kind, data.name),
        "summary": summary,
        "description": description,
        **_content(data, message, parameters),
        "x-jetstream": {
            "stream": subjects.OPERATIONS_STREAM,
            "filterSubject": subjects.action_events_filter(filtered, data.name),
        },
    }


def _content(data: type[EventData], message: str, parameters: Iterable[str]) -> Json:
    return {
        "messages": {data.name: component_reference("messages", message)},
        "parameters": {name: component_reference("parameters", name) for name in parameters},
        "tags": [tag_reference(data)],
    }
