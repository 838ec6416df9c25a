"""The outermost ASGI middleware: it adds the request id, writes header names in the contract's case, and logs.

HTTP ignores the case of header names, but some clients do not (docs/contract.md). litestar and uvicorn write
lower case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from opstream_schemas.traces.tracer import METHODS, NO_TRACING, Span, Tracer

from .request_log import CLOSING_KEY, PROBES, REQUEST_KEY, LoggedRequest, RequestLog, is_operation_id, path_template
from .requests import parse_headers, parse_trace

CountRequest = Callable[[str, str, int, float], None]
"""Counts a request by its method, path, status code and seconds."""

NoteDenied = Callable[[HTTPScope, int], str]
"""Hears of a request that is answered with one of `DENIALS`, and its status code; returns the reason in a word, empty
for a request that is not denied."""

DENIALS: Final = frozenset({401, 403, 404, 421, 429})
"""Status codes of requests that may be denials."""

REQUEST_ID_KEY: Final = "opstream_request_id"
"""Key of the request id in the scope's `state`, for log lines."""

_CLIENT_ID_HEADER: Final = b"x-ms-client-request-id"
_CLIENT_ID: Final = re.compile(rb"[\x20-\x7e]{1,128}")


class _CasedName(bytes):
    """A header name that keeps its case: uvicorn calls `lower()` on each name before it writes it."""

    __slots__ = ()

    def lower(self) -> bytes:
        return self


HEADER_CASE: Final = {
    name.lower(): _CasedName(name)
    for name in (
        *(b"Allow", b"Cache-Control", b"Content-Type", b"ETag", b"Index-Lag", b"Operation-Id", b"Operation-Location"),
        *(b"Preference-Applied", b"Repeatability-Result", b"Retry-After", b"Vary", b"WWW-Authenticate"),
        *(b"Access-Control-Allow-Origin", b"Access-Control-Expose-Headers", b"Access-Control-Allow-Methods"),
        *(b"Access-Control-Allow-Headers", b"Access-Control-Max-Age", b"Referrer-Policy"),
        b"Operation-Stored-Id",
    )
}
"""Names as docs/contract.md writes them. `content-length` and `connection`, which uvicorn itself reads, stay lower."""


class HeaderMiddleware:
    """ASGI middleware: each response gets a request id and header names in the contract's case, and a line in the log.

    Args:
        app: the wrapped app.
        new_id: generates request ids.
        count: called with method, path, status code and seconds when a response begins.
        log: gets each request when it has ended; None for no log of requests.
        tracing: makes a span for each request but probes.
        denied: hears of requests that may be denials; None if no line shall say why.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        new_id: Callable[[], str],
        count: CountRequest,
        log: RequestLog | None = None,
        tracing: Tracer = NO_TRACING,
        denied: NoteDenied | None = None,
    ) -> None:
        self._app = app
        self._new_id = new_id
        self._count = count
        self._log = log
        self._tracing = tracing
        self._denied = denied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        request_id = self._new_id()
        state = scope.setdefault("state", {})
        state[REQUEST_ID_KEY] = request_id
        added = [(b"x-ms-request-id", request_id.encode())]
        client_id = _client_id(scope["headers"])
        if client_id is not None:
            added.append((_CLIENT_ID_HEADER, client_id))

        log = self._log
        request: LoggedRequest | None = None
        is_closing: Callable[[], bool] = scope.get(CLOSING_KEY, _never)  # type: ignore[assignment] # a key of ours
        if log is not None or self._tracing.is_on:
            request = state[REQUEST_KEY] = LoggedRequest(scope["method"], request_id)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(HEADER_CASE.get(name, name), value) for name, value in message["headers"]]
                message["headers"] = headers + added
                self._count(scope["method"], scope["path"], message["status"], perf_counter() - began)
                if message["status"] in DENIALS and self._denied is not None:
                    reason = self._denied(scope, message["status"])
                    if request is not None:
                        request.denial = reason
                if request is not None and not is_closing():
                    request.status = message["status"]
            elif request is not None and not message.get("more_body"):
                request.is_aborted = is_closing()
            await send(message)

        try:
            if request is None or not self._tracing.is_on or scope["path"] in PROBES:
                await self._app(scope, receive, send_with_headers)
            else:
                await self._call_traced(request, scope, receive, send_with_headers)
        finally:
            if log is not None and request is not None:
                log.add(request, scope["path"], began)

    async def _call_traced(self, request: LoggedRequest, scope: HTTPScope, receive: Receive, send: Send) -> None:
        parent = parse_trace(parse_headers(scope["headers"]))
        with self._tracing.request_span(request.method, scope["scheme"], parent) as span:
            request.span_ids = span.ids
            try:
                await self._app(scope, receive, send)
            finally:
                _describe(span, request, scope["path"])


def _describe(span: Span, request: LoggedRequest, path: str) -> None:
    """Give the span of a request that has ended its name and attributes."""
    route = request.route or path_template(request.method, path)
    span.rename(f"{request.method if request.method in METHODS else 'HTTP'} {route}")
    span.note("http.route", route)
    if request.status:
        span.note("http.response.status_code", request.status)
        if request.status >= 500:
            span.fail(str(request.status))
    if request.action:
        span.note("opstream.action", request.action)
    if is_operation_id(request.operation_id):
        span.note("opstream.operation.id", request.operation_id)


def _never() -> bool:
    return False


def _client_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the client's own id of the request, if it is valid and can be sent back."""
    found = [value for name, value in headers if name == _CLIENT_ID_HEADER]
    if len(found) == 1 and _CLIENT_ID.fullmatch(found[0]):
        return found[0]
    return None
