"""The document that says where to get a bearer token (RFC 9728), and the challenge that names it. Pure.

A client that knows only the URL of the service, such as an agent, finds by it the identity provider to ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

METADATA_PATH: Final = "/.well-known/oauth-protected-resource"

_CACHED: Final = "public, max-age=3600"
_NOT_CACHED: Final = "no-store"
_SCHEME: Final = "Bearer"
_REALM: Final = "opstream"
_INVALID_TOKEN: Final = "invalid_token"  # noqa: S105 - a code of RFC 6750
_INSUFFICIENT_SCOPE: Final = "insufficient_scope"


class ProtectedResource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The document; its members are those of RFC 9728, 2."""

    resource: str
    authorization_servers: tuple[str, ...]
    scopes_supported: tuple[str, ...] = ()
    bearer_methods_supported: tuple[str, ...] = ()
    resource_name: str = ""


class ResourceMetadata:
    """The document of one service.

    Args:
        issuers: who gives tokens for it.
        scopes: what a client may ask for.
        public_url: base URL of the service; empty if each request's own `Host` is used.
    """

    def __init__(self, issuers: Sequence[str], scopes: Sequence[str], public_url: str = "") -> None:
        self._issuers = tuple(issuers)
        self._scopes = tuple(scopes)
        self._public_url = public_url

    @property
    def url(self) -> str:
        """Return where the document is; empty if that depends on the request."""
        return f"{self._public_url}{METADATA_PATH}" if self._public_url else ""

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths of the document: below the public URL, and at the root of its host (RFC 9728, 3.1)."""
        path = urlsplit(self._public_url).path.rstrip("/")
        return (METADATA_PATH, f"{METADATA_PATH}{path}") if path else (METADATA_PATH,)

    @property
    def cache_control(self) -> str:
        """Return the `Cache-Control` of the document: with a public URL it changes only with the service's options."""
        # A cache that leaves the `Host` out of its key would give one client the address that another one wrote.
        return _CACHED if self._public_url else _NOT_CACHED

    def document(self, own_url: str) -> bytes:
        """Return the document as JSON.

        Args:
            own_url: the URL of the service as the client wrote it, for a service without a public one.
        """
        return msgspec.json.encode(
            ProtectedResource(
                resource=self._public_url or own_url,
                authorization_servers=self._issuers,
                scopes_supported=self._scopes,
                bearer_methods_supported=("header",),
                resource_name=_REALM,
            )
        )


def challenge(metadata_url: str = "", *, refused: str = "", scope: str = "") -> str:
    """Return the value of `WWW-Authenticate` (RFC 6750, 3; RFC 9728, 5.1).

    Args:
        metadata_url: of the document; empty if no bearer tokens are taken.
        refused: why the token of the request is refused; empty for a request without one, which gets no error code.
        scope: the scope that is missing; empty for another reason.
    """
    parts = [f'realm="{_REALM}"']
    if scope:
        parts += [f'error="{_INSUFFICIENT_SCOPE}"', f'scope="{_quotable(scope)}"']
    elif refused:
        parts += [f'error="{_INVALID_TOKEN}"', f'error_description="{_quotable(refused)}"']
    if metadata_url:
        parts.append(f'resource_metadata="{_quotable(metadata_url)}"')
    return f"{_SCHEME} {', '.join(parts)}"


def _quotable(text: str) -> str:
    """Return a text for between quotes: RFC 6750 allows neither quotes nor backslashes there, nor more than ASCII."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)
