"""The route of payloads: `/status/{operation-id}/payloads/{payload}` (docs/payloads.md)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any, Final

from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from opstream_api.access.authentication import principal_of
from opstream_api.dependencies import Dependencies
from opstream_api.errors import method_not_allowed
from opstream_api.http.conditional_headers import etag_matches
from opstream_api.http.request_log import logged_request
from opstream_api.http.requests import check_query, parse_headers, single_value
from opstream_api.http.responses import StreamedResponse, empty_response
from opstream_api.payloads.desk import FoundPayload
from opstream_api.payloads.ranges import parse_range
from opstream_api.read_access import find_to_read

_PAYLOAD: Final = "/status/{operation_id:str}/payloads/{unique:str}"
_PATH: Final = re.compile(r"/status/[^/]+/payloads/[^/]+")
_READS: Final = frozenset({"GET", "HEAD"})
_ALLOW_READ: Final = "GET, HEAD"
_EVERY: Final = [HttpMethod.GET, HttpMethod.HEAD, HttpMethod.POST, HttpMethod.OPTIONS]
_NO_PIECES: Final[tuple[bytes, ...]] = ()
_UNTRUSTED: Final = {
    # Whatever an action has made, a browser must not run it as a page of this service.
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}

AnyRequest = Request[Any, Any, Any]


def payload_routes(dependencies: Dependencies) -> list[HTTPRouteHandler]:
    """Return the handler of `/status/{operation-id}/payloads/{payload}`."""

    @route(_PAYLOAD, http_method=_EVERY)
    async def payload(request: AnyRequest) -> ASGIApp:
        if request.method not in _READS:
            raise method_not_allowed(_ALLOW_READ)
        return await _read(dependencies, request)

    return [payload]


def allowed_of_payloads(path: str) -> str | None:
    """Return the methods of a path of these routes, for `Allow`; None for any other path."""
    return _ALLOW_READ if _PATH.fullmatch(path) else None


async def _read(dependencies: Dependencies, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    principal = principal_of(scope)
    found = await find_to_read(dependencies, principal, request.path_params["operation_id"])
    logged_request(scope).operation_id = found.stored_id
    with found.shown_as_own():
        payload = await dependencies.payloads.find(found.stored_id, request.path_params["unique"])
        own = _headers(payload)
        if etag_matches(headers, payload.etag):
            return empty_response(304, {"ETag": payload.etag, "Cache-Control": own["Cache-Control"]})
        is_fresh = single_value(headers, "If-Range") in {None, payload.etag}
        size = payload.ref.size
        part = parse_range(single_value(headers, "Range"), size) if is_fresh else None
        if url := await dependencies.payloads.url(payload):
            return empty_response(307, {"Location": url, "Cache-Control": "no-store"})
        length = size if part is None else part.length
        status = 200 if part is None else 206
        if part is not None:
            own["Content-Range"] = part.content_range(size)
        own["Content-Length"] = str(length)
        pieces = _nothing() if request.method == "HEAD" else await dependencies.payloads.open(payload, part)
    access = dependencies.access
    ends = None if principal is None or access is None else access.ends.watch(principal)
    return StreamedResponse(pieces, media_type=payload.media_type, headers=own, access=ends, status_code=status)


def _headers(payload: FoundPayload) -> dict[str, str]:
    return {
        **_UNTRUSTED,
        "ETag": payload.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'attachment; filename="{payload.file_name}"',
    }


async def _nothing() -> AsyncGenerator[bytes, None]:
    """The body of an answer to HEAD."""
    for piece in _NO_PIECES:
        yield piece
