"""The AsyncAPI 3.0 document of all that others may read from the broker: channels, messages, schemas. Pure.

Callers: `opstream schemas`, which writes it as it is, and the API, which adds what the catalog knows of each action.
"""

from .document import ASYNCAPI_VERSION, EVENTS_VERSION, asyncapi_document
from .shared import SCHEMAS_PREFIX, Json, TypedAction, action_object_name

__all__ = [
    "ASYNCAPI_VERSION",
    "EVENTS_VERSION",
    "SCHEMAS_PREFIX",
    "Json",
    "TypedAction",
    "action_object_name",
    "asyncapi_document",
]
