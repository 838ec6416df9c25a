"""The whole document, put together from its parts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from opstream_schemas import subjects
from opstream_schemas.events import CONTENT_TYPE, EVENT_DATA, EventData

from .channels import (
    BINDINGS,
    PARAMETERS,
    action_channel,
    archive_channel,
    archive_channel_name,
    event_channel,
    send_operation,
)
from .messages import CORRELATIONS, TAGS, TRAITS, action_heading, action_message, event_message
from .payloads import TYPED_EVENTS, action_schemas, event_schemas
from .shared import Json, TypedAction, action_object_name, component_reference, first_line

ASYNCAPI_VERSION: Final = "3.0.0"
EVENTS_VERSION: Final = "1.0.0"
"""Version of the events. Types and members are only added, so the major number is that of the types (`.v1`)."""

_DESCRIPTION: Final = (
    "Every event of every operation, as it was recorded: CloudEvents 1.0, JSON, structured mode. `send` is what "
    "opstream does; you receive.\n\n"
    f"The events are kept in the JetStream stream `{subjects.OPERATIONS_STREAM}`. Read them with a consumer of your "
    "own on the subjects of one or more channels; a plain NATS subscription misses events, and also sees some that the "
    "stream has refused. A consumer delivers at least once: by `id` you know repetitions, by `position` the "
    "order within an operation. The stream holds other subjects, too (`wake.>`, `due.>`), which are opstream's own.\n\n"
    f"The stream `{subjects.ARCHIVE_STREAM}`, where the operator has made it, keeps the same events for longer, on few "
    "subjects without the operation's id.\n\n"
    "Types and members may be added: pass over those that you do not know."
)
_SERVERS: Final[Json] = {
    "broker": {
        "host": "{host}:{port}",
        "protocol": "nats",
        "title": "The NATS server or cluster that opstream runs on",
        "description": "Ask the operator for its address and your credentials; opstream publishes neither.",
        "variables": {
            "host": {"description": "A member of the cluster.", "default": "127.0.0.1"},
            "port": {"description": "Its port for clients.", "default": "4222"},
        },
    }
}


def asyncapi_document(actions: Iterable[TypedAction] = ()) -> Json:
    """Return the AsyncAPI 3.0 document.

    Args:
        actions: actions that get channels of their own, with schemas of their input and result.
    """
    channels: Json = {}
    operations: Json = {}
    messages: Json = {}
    schemas = event_schemas()
    data: type[EventData]
    for data in EVENT_DATA:
        messages[data.name] = event_message(data)
        channels[data.name] = event_channel(data)
        operations[f"send.{data.name}"] = send_operation(data, data.name, first_line(data.__doc__))
    for data in EVENT_DATA:
        name = archive_channel_name(data)
        channels[name] = archive_channel(data)
        operations[f"send.{name}"] = send_operation(data, name, first_line(data.__doc__))
    for action in actions:
        schemas |= action_schemas(action, schemas)
        for data in TYPED_EVENTS:
            name = action_object_name(action.kind, data.name)
            messages[name] = action_message(data, action)
            channels[name] = action_channel(data, action)
            operations[f"send.{name}"] = send_operation(data, name, action_heading(data, action))
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "opstream events",
            "version": EVENTS_VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [component_reference("tags", name) for name in TAGS],
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": _SERVERS,
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas,
            "parameters": PARAMETERS,
            "messageTraits": TRAITS,
            "correlationIds": CORRELATIONS,
            "operationBindings": BINDINGS,
            "tags": TAGS,
        },
    }
