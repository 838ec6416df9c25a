"""`Operation-Upload`: the claims of the files that a client has uploaded for the operation of a submit. Pure."""

from __future__ import annotations

from typing import Final

from opstream_api.errors import ApiError
from opstream_api.http.requests import Headers
from opstream_schemas.errors import ErrorCode
from opstream_schemas.event_types.claims import MAX_UPLOADS

UPLOAD_HEADER: Final = "Operation-Upload"
_NAME: Final = UPLOAD_HEADER.lower().encode()


def parse_claims(headers: Headers) -> tuple[str, ...]:
    """Return the claims of a submit; none without the header, which may be repeated, or name several.

    Raises:
        ApiError: `InvalidHeader`: there are too many.
    """
    values = headers.get(_NAME)
    if values is None:
        return ()
    found = tuple(one.strip() for value in values for one in value.split(","))
    if len(found) > MAX_UPLOADS:
        message = f"{UPLOAD_HEADER} names {len(found)} uploads, {MAX_UPLOADS} are allowed: put small files together"
        raise ApiError(ErrorCode.INVALID_HEADER, message, target=UPLOAD_HEADER)
    return found
