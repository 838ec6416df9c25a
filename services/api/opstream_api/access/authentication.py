"""The door: an ASGI middleware that lets requests with valid credentials pass, with their principal in the scope."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from opstream_api.errors import unauthenticated
from opstream_api.http.request_log import logged_request
from opstream_api.http.request_origin import is_own
from opstream_api.http.responses import error_as_asgi
from opstream_api.http.submit_request import mark_rejected
from opstream_journal.runtime.request_head import PROBES

from .principal import Principal

CHALLENGE: Final = "Bearer"
"""The value of `WWW-Authenticate` in a 401 (RFC 6750)."""

_KEY: Final = "opstream_principal"
"""Of the principal in the scope's `state`."""
_SCHEME: Final = b"bearer"


class Authenticator(Protocol):
    """Recognizes one form of credentials."""

    def takes(self, credentials: bytes) -> bool:
        """Return True if credentials have this form."""
        ...

    async def authenticate(self, credentials: bytes) -> Principal | None:
        """Return who sends a request with these credentials; None if they are not valid now."""
        ...


class AuthenticationMiddleware:
    """ASGI middleware: it refuses each request without valid credentials, but for some paths.

    Args:
        app: the wrapped app.
        authenticators: in the order in which they are asked.
        challenge: the value of `WWW-Authenticate` in a 401.
        open_paths: raw paths besides those of probes that need no credentials.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticators: Sequence[Authenticator],
        *,
        challenge: str = CHALLENGE,
        open_paths: Iterable[bytes] = (),
    ) -> None:
        self._app = app
        self._authenticators = tuple(authenticators)
        self._challenge = challenge
        self._open_paths = frozenset({*PROBES, *open_paths})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] == ScopeType.HTTP and scope["raw_path"] not in self._open_paths:
            principal = await self._principal(scope["headers"])
            if principal is None:
                error = unauthenticated(self._challenge)
                if not is_own(scope["path"]):
                    mark_rejected(error, {name for name, _ in scope["headers"]})
                await error_as_asgi(error)(scope, receive, send)
                return
            scope["state"][_KEY] = principal
            logged_request(scope).caller = principal.subject
        await self._app(scope, receive, send)

    async def _principal(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal | None:
        values = [value for name, value in headers if name == b"authorization"]
        if len(values) != 1:  # of two, a proxy in front may have checked the other one
            return None
        scheme, _, credentials = values[0].partition(b" ")
        if scheme.lower() != _SCHEME:
            return None
        credentials = credentials.strip(b" ")
        for authenticator in self._authenticators:
            if authenticator.takes(credentials):
                return await authenticator.authenticate(credentials)
        return None


def principal_of(scope: Any) -> Principal | None:  # noqa: ANN401 - ASGI's
    """Return who sends a request; None for any caller, because the service asks for no credentials."""
    found: Principal | None = scope["state"].get(_KEY)
    return found
