"""`/openapi.json`: OpenAPI 3.1, with each action of the catalog as paths and schemas of its own."""

from .document import API_VERSION, openapi_document

__all__ = ["API_VERSION", "openapi_document"]
