"""`/openapi.json`: OpenAPI 3.1, with paths and schemas for each action of the catalog.

Start with `document.openapi_document`. Everything here is pure, except for `document_cache`, which keeps the encoded
document until the catalog changes. No request is handled here.
"""

from .document import API_VERSION, openapi_document

__all__ = ["API_VERSION", "openapi_document"]
