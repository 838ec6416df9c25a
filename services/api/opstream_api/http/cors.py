"""Answers for web pages of other sites, with which browsers give them what the service says (CORS, the Fetch standard).

Off unless the operator names origins. It grants nothing: a page needs a key, a bearer token or a status token, as any
client does, and sends it itself. Cookies and logins of the browser play no part, so no answer allows credentials.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from .responses import EncodedResponse

ANY_ORIGIN: Final = "*"

EXPOSED: Final = (
    *("Operation-Location", "Operation-Id", "Retry-After", "ETag", "Preference-Applied", "Repeatability-Result"),
    *("Index-Lag", "Operation-Stored-Id", "Signal-State"),
    *("WWW-Authenticate", "x-ms-error-code", "x-ms-request-id", "x-ms-client-request-id"),
)
"""Headers of responses that a page may read, besides those that each page may."""
ACCEPTED: Final = (
    *("Accept", "Authorization", "Content-Type", "Prefer", "If-None-Match", "Last-Event-ID"),
    *("Operation-Id", "Operation-Callback", "Operation-Label", "Operation-Start-At", "Operation-Start-After"),
    *("Operation-Priority",),
    *("Repeatability-Request-ID", "Repeatability-First-Sent"),
    *("traceparent", "tracestate", "x-ms-client-request-id"),
)
"""Headers that a page may send."""
METHODS: Final = "GET, HEAD, POST, PUT, DELETE"
"""The last two are those of schedules."""
PREFLIGHT_SECONDS: Final = 7200
"""Seconds for which a browser remembers an answer; those that allow the least cut it there."""

_ORIGIN: Final = b"origin"
_REQUEST_METHOD: Final = b"access-control-request-method"
_VARY: Final = (b"vary", b"Origin")


class CorsMiddleware:
    """ASGI middleware: it answers the preflights of allowed sites, and adds to each response what their browsers need.

    Args:
        app: the wrapped app.
        origins: the sites, as browsers write them; `ANY_ORIGIN` for all.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        self._app = app
        self._is_any = ANY_ORIGIN in origins
        self._origins = frozenset(origin.encode() for origin in origins)
        # With exact origins a response depends on the one that asks, also if that is not allowed: caches must know.
        self._vary = [] if self._is_any else [_VARY]
        self._exposed = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
        self._preflight = [
            (b"access-control-allow-methods", METHODS.encode()),
            (b"access-control-allow-headers", ", ".join(ACCEPTED).encode()),
            (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        origins, is_preflight = _look(scope)
        site = self._allowed(origins)
        added = [*self._vary]
        if site:
            added.append((b"access-control-allow-origin", site))
            if is_preflight:
                await EncodedResponse(204, [*added, *self._preflight])(scope, receive, send)
                return
            added.append(self._exposed)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _allowed(self, origins: list[bytes]) -> bytes:
        """Return the site to name in the response; empty for none."""
        if self._is_any:
            return ANY_ORIGIN.encode()
        return origins[0] if len(origins) == 1 and origins[0] in self._origins else b""


def _look(scope: HTTPScope) -> tuple[list[bytes], bool]:
    """Return the values of `Origin`, and whether a request is a preflight."""
    origins: list[bytes] = []
    is_preflight = False
    for name, value in scope["headers"]:
        if name == _ORIGIN:
            origins.append(value)
        elif name == _REQUEST_METHOD:
            is_preflight = scope["method"] == "OPTIONS"
    return origins, is_preflight
