"""`/asyncapi.json`: AsyncAPI 3.0, with the input and result of each action of the catalog in channels of its own.

Start with `document.action_asyncapi_document`. The document itself comes from `opstream_schemas.asyncapi`; this package
only adds the actions, with their schemas translated to draft-07. Everything here is pure.
"""

from .document import action_asyncapi_document

__all__ = ["action_asyncapi_document"]
