"""The routes of one operation: read or wait for its status, cancel it, read or follow its history.

`read_status` is called in front of litestar (`app.DirectRoutes`), the others are its routes.

What they do to an operation is in `operations/`: `status`, `watch`, `cancel` and `history`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from typing import Any, Final

from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPScope, Receive

from .dependencies import Dependencies
from .errors import method_not_allowed, not_found
from .http.conditional_headers import etag_matches, last_event_position, wait_seconds, wants_stream
from .http.request_log import logged_request
from .http.requests import check_content_type, check_declared, check_query, parse_headers, read_body
from .http.responses import (
    JSON,
    EncodedResponse,
    StreamedResponse,
    empty_response,
    json_response,
    monitor_response,
    run_until_disconnect,
    status_response,
)
from .operations.cancel import decode_reason
from .operations.history import STREAM_HEADERS

ALLOW_READ: Final = "GET, HEAD"
ALLOW_POST: Final = "POST"
READS: Final = [HttpMethod.GET, HttpMethod.HEAD]

STATUS_PREFIX: Final = "/status/"

_STATUS: Final = "/status/{target:str}"
_HISTORY: Final = "/status/{operation_id:str}/events"
_CANCEL: Final = "cancel"
_NOTHING: Final[tuple[bytes, ...]] = ()
_VARY: Final = {"Vary": "Accept"}

AnyRequest = Request[Any, Any, Any]


def status_routes(dependencies: Dependencies) -> list[HTTPRouteHandler]:
    """Return the handlers of the paths below `/status`."""

    # One handler for all methods of a path: litestar would add its own for OPTIONS, which responds 204.
    @route(_STATUS, http_method=[*READS, HttpMethod.POST, HttpMethod.OPTIONS])
    async def status(request: AnyRequest) -> ASGIApp:
        operation_id, colon, action = request.path_params["target"].rpartition(":")  # an operation id has no ':'
        if not colon:
            raise method_not_allowed(ALLOW_READ)  # a read does not get here: `read_status`
        if action != _CANCEL:
            raise not_found()
        _check_method(request, [HttpMethod.POST], ALLOW_POST)
        return await _cancel(dependencies, operation_id, request)

    @route(_HISTORY, http_method=[*READS, HttpMethod.OPTIONS])
    async def history(request: AnyRequest) -> ASGIApp:
        _check_method(request, READS, ALLOW_READ)
        return await _history(dependencies, request.path_params["operation_id"], request)

    return [status, history]


def _check_method(request: AnyRequest, methods: Collection[HttpMethod], allow: str) -> None:
    if request.method not in methods:
        raise method_not_allowed(allow)


async def read_status(
    dependencies: Dependencies, operation_id: str, scope: HTTPScope, receive: Receive
) -> EncodedResponse:
    """Answer GET and HEAD of `/status/{operation-id}`.

    Raises:
        ApiError: as `StatusReader.read`; `InvalidParameter`.
    """
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    seconds = wait_seconds(headers)
    if seconds:
        operation = await run_until_disconnect(receive, dependencies.watches.wait_until_terminal(operation_id, seconds))
        if operation is None:
            return empty_response(400)  # the client has disconnected
    elif seconds is None:
        operation = await dependencies.brief_waits.read(operation_id)
    else:
        operation = await dependencies.status.read(operation_id)
    return status_response(
        await dependencies.status.monitor(operation),
        retry_after=dependencies.status.retry_after(operation),
        waited=seconds or 0,
        is_known=lambda etag: etag_matches(headers, etag),
    )


async def _cancel(dependencies: Dependencies, operation_id: str, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    caller = dependencies.callers.resolve(scope["client"], headers)
    logged = logged_request(scope)
    logged.operation_id, logged.caller = operation_id, caller.identity
    check_content_type(headers)
    body = await read_body(request.receive, headers, dependencies.body_limit)
    if body is None:
        return empty_response(400)  # the client has disconnected
    check_declared(headers, body)
    operation = await dependencies.canceler.cancel(operation_id, by=caller.identity, reason=decode_reason(body))
    return monitor_response(operation, retry_after=dependencies.status.retry_after(operation))


async def _history(dependencies: Dependencies, operation_id: str, request: AnyRequest) -> ASGIApp:
    scope = request.scope
    logged_request(scope).operation_id = operation_id
    check_query(scope["query_string"])
    headers = parse_headers(scope["headers"])
    if not wants_stream(headers):
        document = await dependencies.history.document(operation_id)
        if not isinstance(document, bytes):
            if scope["http_version"] != "1.0":
                return StreamedResponse(document, media_type=JSON, headers=_VARY)
            # HTTP/1.0 has no chunks (RFC 9112, 6.1), and without its length an incomplete document looks complete.
            document = b"".join([piece async for piece in document])
        return json_response(document, headers=_VARY)
    position = last_event_position(headers)
    if await dependencies.history.is_at_end(operation_id, position):
        return empty_response(204)  # which ends the reconnects of an EventSource (HTML, Server-sent events)
    is_head = request.method == HttpMethod.HEAD
    stream = _no_pieces() if is_head else dependencies.history.follow(operation_id, position)
    return StreamedResponse(stream, media_type="text/event-stream", headers=STREAM_HEADERS)


async def _no_pieces() -> AsyncGenerator[bytes, None]:
    """The body of a stream in answer to HEAD."""
    for piece in _NOTHING:
        yield piece
