"""Messages: one for each event type, and for each action one with its input and one with its result. Pure.

Media type, headers and correlation id are the same for all, so they are in a message trait.
"""

from __future__ import annotations

from typing import Final

import msgspec

from opstream_schemas.events import CONTENT_TYPE, Canceled, EventData, Failed, Requested, Succeeded
from opstream_schemas.integrity.archive_subjects import ARCHIVE_SOURCE_HEADER

from .payloads import action_event_schema
from .samples import message_example
from .shared import Json, TypedAction, action_object_name, component_reference, first_line

EVENT_TRAIT: Final = "event"
OUTCOME_TAG: Final = "outcome"
LIFE_TAG: Final = "life"
_OUTCOMES: Final[tuple[type[EventData], ...]] = (Succeeded, Failed, Canceled)

TRAITS: Final[Json] = {
    EVENT_TRAIT: {
        "contentType": CONTENT_TYPE,
        "headers": {
            "type": "object",
            "properties": {
                "Nats-Msg-Id": {
                    "type": "string",
                    "minLength": 1,
                    "description": "The event's `id`, with which the broker drops what is published twice.",
                },
                "Content-Type": {"type": "string", "const": CONTENT_TYPE},
                ARCHIVE_SOURCE_HEADER: {
                    "type": "string",
                    "description": "In the archive only: stream and sequence that the event was copied from, the "
                    "filter, the transform and the subject there, with a space between two of them.",
                },
            },
            "required": ["Nats-Msg-Id", "Content-Type"],
        },
        "correlationId": component_reference("correlationIds", "operation"),
    }
}
CORRELATIONS: Final[Json] = {
    "operation": {
        "description": "The operation's id, which is the same in all of its events.",
        "location": "$message.payload#/subject",
    }
}
TAGS: Final[Json] = {
    OUTCOME_TAG: {"name": OUTCOME_TAG, "description": "The last event of an operation: exactly one of these."},
    LIFE_TAG: {"name": LIFE_TAG, "description": "What happens before the outcome."},
}


def tag_reference(data: type[EventData]) -> Json:
    """Return a reference to the tag of an event type."""
    return component_reference("tags", OUTCOME_TAG if data in _OUTCOMES else LIFE_TAG)


def event_message(data: type[EventData]) -> Json:
    """Return the message of an event type, for all actions."""
    summary = first_line(data.__doc__)
    return _message(data, data.type, summary, component_reference("schemas", data.type), [message_example(data)])


def action_message(data: type[EventData], action: TypedAction) -> Json:
    """Return the message of one of `TYPED_EVENTS` and one action, with the schema of its input or result."""
    shown = action.input if data is Requested else action.result
    examples = [] if shown is msgspec.UNSET else [message_example(data, action.kind, action.version, shown)]
    return _message(
        data,
        action_object_name(action.kind, data.name),
        action_heading(data, action),
        action_event_schema(data, action),
        examples,
    )


def action_heading(data: type[EventData], action: TypedAction) -> str:
    """Return a summary: which action, which event, and the summary of the action."""
    return f"{action.kind} {data.name}" + (f": {action.summary}" if action.summary else "")


def _message(data: type[EventData], name: str, summary: str, payload: Json, examples: list[Json]) -> Json:
    return {
        "name": name,
        "title": data.__name__,
        "summary": summary,
        "tags": [tag_reference(data)],
        "traits": [component_reference("messageTraits", EVENT_TRAIT)],
        "payload": payload,
        **({"examples": examples} if examples else {}),
    }
