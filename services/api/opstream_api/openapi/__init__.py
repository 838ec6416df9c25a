"""`/openapi.json`: OpenAPI 3.1, with paths and schemas for each action of the catalog.

Start with `document.openapi_document`. Everything here is pure: data in, data out. `http/document_cache.py` keeps the
encoded document until the catalog changes.

Not allowed in: requests, the broker, and rules of the contract. What is documented here is decided elsewhere: in
`http/`, `operations/`, `errors` and `opstream_schemas`.
"""

from .document import API_VERSION, openapi_document

__all__ = ["API_VERSION", "openapi_document"]
