"""`/asyncapi.json`: AsyncAPI 3.0, with the input and result of each action of the catalog in channels of its own."""

from .document import action_asyncapi_document

__all__ = ["action_asyncapi_document"]
