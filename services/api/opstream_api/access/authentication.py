"""The door: an ASGI middleware that lets requests with valid credentials pass, with their principal in the scope."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from opstream_api.errors import ApiError, too_many_requests, unauthenticated
from opstream_api.http.request_log import logged_request
from opstream_api.http.request_origin import is_own
from opstream_api.http.responses import error_as_asgi
from opstream_api.http.submit_request import mark_rejected
from opstream_journal.runtime.request_head import PROBES
from opstream_schemas.logs.access_log import DenialReason

from .denials.denial import DENIAL_KEY, Denial
from .limits.request_limit import RequestLimit
from .principal import Owner, Principal
from .status_access import StatusAccess, private_answers, take_status_token

CHALLENGE: Final = "Bearer"
"""The value of `WWW-Authenticate` in a 401 (RFC 6750)."""

_KEY: Final = "opstream_principal"
"""Of the principal in the scope's `state`."""
_SCHEME: Final = b"bearer"
_REFUSED: Final = frozenset({401, 404})
"""Status codes for credentials that are not valid, of all kinds. Others have been proven, or could not be checked."""


class Authenticator(Protocol):
    """Recognizes one form of credentials."""

    def takes(self, credentials: bytes) -> bool:
        """Return True if credentials have this form."""
        ...

    async def authenticate(self, credentials: bytes) -> Principal | None:
        """Return who sends a request with these credentials; None if they are not valid now.

        Raises:
            ApiError: the same with a reason, or they can't be checked now.
        """
        ...

    def denial(self, credentials: bytes) -> Denial:
        """Return why credentials that were refused are not valid, for the access log. It takes as long for each."""
        ...


class AuthenticationMiddleware:
    """ASGI middleware: it refuses each request without valid credentials, but for some paths.

    Args:
        app: the wrapped app.
        authenticators: in the order in which they are asked.
        challenge: the value of `WWW-Authenticate` in a 401.
        open_paths: raw paths besides those of probes that need no credentials.
        status: knows what status tokens open; None for a service without them.
        limit: of each caller; None for no limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticators: Sequence[Authenticator],
        *,
        challenge: str = CHALLENGE,
        open_paths: Iterable[bytes] = (),
        status: StatusAccess | None = None,
        limit: RequestLimit | None = None,
    ) -> None:
        self._app = app
        self._authenticators = tuple(authenticators)
        self._challenge = challenge
        self._open_paths = frozenset({*PROBES, *open_paths})
        self._status = status
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] == ScopeType.HTTP and scope["raw_path"] not in self._open_paths:
            token = take_status_token(scope) if scope["query_string"] and self._status is not None else None
            if token is not None:
                send = private_answers(send)
            try:
                principal = scope["state"][_KEY] = await self._principal(scope, token)
                logged_request(scope).caller = principal.subject
                if self._limit is not None:
                    _check_limit(self._limit, principal, scope)
            except ApiError as error:
                if error.status in _REFUSED:
                    denial = self._denial(scope, token)
                    scope["state"][DENIAL_KEY] = denial if error.denial is None else Denial(error.denial)
                if not is_own(scope["path"]):
                    mark_rejected(error, {name for name, _ in scope["headers"]})
                await error_as_asgi(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _principal(self, scope: HTTPScope, status_token: str | None) -> Principal:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if not values and status_token is not None and self._status is not None:
            return self._status.principal(status_token, scope["path"])
        principal = await self._bearer(values)
        if principal is None:
            raise unauthenticated(self._challenge)
        return principal

    def _denial(self, scope: HTTPScope, status_token: str | None) -> Denial:
        """Return why a request was refused."""
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if not values and status_token is not None:
            return Denial(DenialReason.INVALID_STATUS_TOKEN)
        credentials = _credentials(values)
        for authenticator in self._authenticators:
            if credentials and authenticator.takes(credentials):
                return authenticator.denial(credentials)
        return Denial(DenialReason.MALFORMED_CREDENTIALS if values else DenialReason.NO_CREDENTIALS)

    async def _bearer(self, values: list[bytes]) -> Principal | None:
        credentials = _credentials(values)
        if not credentials:
            return None
        for authenticator in self._authenticators:
            if authenticator.takes(credentials):
                return await authenticator.authenticate(credentials)
        return None


def _check_limit(limit: RequestLimit, principal: Principal, scope: HTTPScope) -> None:
    """Count a request of a principal.

    A URL with a status token counts for itself, or its visitors could use up what the service that gave it may send.

    Raises:
        ApiError: `TooManyRequests`.
    """
    # No subject has a zero byte, so no URL is taken for a caller.
    caller = principal.owner if principal.subject else Owner(principal.tenant, f"\0{scope['path']}")
    wait = limit.take(caller)
    if wait:
        message = f"these credentials have sent more than {limit.rate} requests: wait as long as Retry-After says"
        raise too_many_requests(message, wait, DenialReason.TOO_MANY_REQUESTS)


def _credentials(values: list[bytes]) -> bytes:
    """Return the credentials of the headers `Authorization`; empty if there are none of this scheme."""
    if len(values) != 1:  # of two, a proxy in front may have checked the other one
        return b""
    scheme, _, credentials = values[0].partition(b" ")
    return credentials.strip(b" ") if scheme.lower() == _SCHEME else b""


def principal_of(scope: Any) -> Principal | None:  # noqa: ANN401 - ASGI's
    """Return who sends a request; None for any caller, because the service asks for no credentials."""
    found: Principal | None = scope["state"].get(_KEY)
    return found
