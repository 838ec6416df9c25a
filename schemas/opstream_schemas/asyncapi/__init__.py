"""The AsyncAPI 3.0 document of the events that others may read from the broker: channels, messages, schemas. Pure.

Begin with `document`, which puts the parts together. `channels` describes subjects, `messages` and `payloads` what is
on them, `samples` the examples; `shared` has the references between the parts. `opstream schemas` writes the document
as it is; the API adds the types of each action in the catalog.

Not allowed in: the catalog and HTTP. A `TypedAction` brings what the document says of one action.
"""

from .document import ASYNCAPI_VERSION, EVENTS_VERSION, asyncapi_document
from .payloads import event_schema_names
from .shared import SCHEMAS_PREFIX, Json, TypedAction, action_object_name

__all__ = [
    "ASYNCAPI_VERSION",
    "EVENTS_VERSION",
    "SCHEMAS_PREFIX",
    "Json",
    "TypedAction",
    "action_object_name",
    "asyncapi_document",
    "event_schema_names",
]
