"""What the tokens in URLs have in common: each ends with the API key of the caller that asked for it, and opens little.

Which token opens what is in `status_access`, `signal_access` and `uploads/upload_access`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from .principal import Principal
from .scopes import Scopes

_NO_SCOPES: Final = Scopes.parse([])


class UrlGrant(Protocol):
    """What every token in a URL says of itself."""

    @property
    def expires_at(self) -> int:
        """Unix seconds."""
        ...

    @property
    def key_id(self) -> str:
        """The API key of the caller that asked for it; empty for a bearer token."""
        ...

    @property
    def tenant(self) -> str:
        """Of that caller."""
        ...


class TokenKeys:
    """The API keys that tokens in URLs depend on.

    Args:
        key_principal: returns the principal of an API key that is in use, by its id; None for any other.
        takes_tokens: the service takes bearer tokens, so a token in a URL may have none of its API keys.
    """

    def __init__(self, key_principal: Callable[[str], Principal | None], *, takes_tokens: bool) -> None:
        self._key_principal = key_principal
        self._takes_tokens = takes_tokens

    def allow(self, grant: UrlGrant, has_scope: Callable[[Scopes], bool]) -> bool:
        """Return True if the key of a token is in use, in the same tenant, and still has a scope that is needed.

        Of a token without a key: if the service takes bearer tokens.
        """
        if not grant.key_id:
            return self._takes_tokens
        found = self._key_principal(grant.key_id)
        return found is not None and found.tenant == grant.tenant and has_scope(found.scopes)


def url_principal(
    grant: UrlGrant, *, scopes: Scopes = _NO_SCOPES, opens_wait: int = 0, uploads_for: str = ""
) -> Principal:
    """Return who sends a request with a token in its URL: a principal without a subject."""
    return Principal(
        tenant=grant.tenant,
        subject="",
        scopes=scopes,
        expires_at=datetime.fromtimestamp(grant.expires_at, tz=UTC),
        key_id=grant.key_id,
        opens_wait=opens_wait,
        uploads_for=uploads_for,
    )
