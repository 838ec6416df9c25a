"""Upload tokens at the door: which URL a caller gets for a file, and what a request with one may do."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from opstream_api.access.principal import Principal
from opstream_api.access.token_keys import TokenKeys, url_principal
from opstream_api.errors import ApiError
from opstream_schemas.errors import ErrorCode

from .upload_token import UploadPlace, UploadTokens, owner_mark

PLACE_SECONDS: Final = 3_600
"""How long a place may be used: an upload has to begin within this time."""

_PATH: Final = re.compile(r"/payloads/([^/]+)/([^/]+)")


class UploadAccess:
    """Gives tokens for uploads, and knows what they open.

    Args:
        tokens: those of the installation.
        now: returns Unix seconds.
        keys: the API keys that they end with.
    """

    def __init__(
        self,
        tokens: UploadTokens,
        now: Callable[[], float],
        keys: TokenKeys,
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._keys = keys

    def give(self, principal: Principal, operation_id: str, name: str) -> tuple[str, datetime]:
        """Return a token for the upload of a file, and when it expires.

        Args:
            principal: it may submit something.
            operation_id: its own id of the operation.
            name: of the file.
        """
        until = int(self._now()) + PLACE_SECONDS
        if principal.expires_at is not None:
            until = min(until, int(principal.expires_at.timestamp()))
        place = UploadPlace(
            expires_at=until, key_id=principal.key_id, tenant=principal.tenant, owner=owner_mark(principal.subject)
        )
        return self._tokens.sign_place(place, operation_id, name), datetime.fromtimestamp(until, tz=UTC)

    def principal(self, token: str, path: str) -> Principal:
        """Return who sends a request with such a token: a principal without a subject, which may upload one file.

        Raises:
            ApiError: `PayloadNotFound`, whatever is wrong with the token.
        """
        found = _PATH.fullmatch(path)
        place = None if found is None else self._tokens.open_place(token, found[1], found[2], self._now())
        if place is None or not self._keys.allow(place, lambda scopes: bool(scopes.submits)):
            message = "this is no place for an upload, or not any more: POST /payloads gives another one"
            raise ApiError(ErrorCode.PAYLOAD_NOT_FOUND, message)
        return url_principal(place, uploads_for=place.owner)


def is_upload_path(path: str) -> bool:
    """Return True if a decoded path is that of an upload, `/payloads/{operation-id}/{name}`, valid or not."""
    return _PATH.fullmatch(path) is not None
