"""`/openapi.json`: OpenAPI 3.1, with paths and schemas for each action of the catalog.

Start with `document.openapi_document`. Everything here is pure: no request is handled here, and nothing is kept.
`http/document_cache.py` keeps the encoded document until the catalog changes.
"""

from .document import API_VERSION, openapi_document

__all__ = ["API_VERSION", "openapi_document"]
