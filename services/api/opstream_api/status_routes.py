"""Routes of one operation: its status, waited for or not; canceling it; its history. Made by `app.py`.

Holds no logic of operations: `status.py`, `watch.py`, `cancel.py` and `history.py` have it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from .dependencies import Dependencies
from .errors import method_not_allowed, not_found
from .http import conditional_headers as preferences
from .http import requests
from .http.responses import (
    JSON,
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

_STATUS: Final = "/status/{target:str}"
_HISTORY: Final = "/status/{operation_id:str}/events"
_CANCEL: Final = "cancel"
_VARY: Final = {"Vary": "Accept"}

AnyRequest = Request[Any, Any, Any]


def status_routes(parts: Dependencies) -> list[HTTPRouteHandler]:
    """The handlers of everything below `/status`."""

    # One handler a path: litestar makes one of its own for OPTIONS otherwise, which answers 204.
    @route(_STATUS, http_method=[*READS, HttpMethod.POST, HttpMethod.OPTIONS])
    async def status(request: AnyRequest) -> ASGIResponse:
        target = request.path_params["target"]
        operation_id, colon, action = target.rpartition(":")  # an operation id has no colon
        if not colon:
            _check_method(request, READS, ALLOW_READ)
            return await _read(parts, target, request)
        if action != _CANCEL:
            raise not_found()
        _check_method(request, [HttpMethod.POST], ALLOW_POST)
        return await _cancel(parts, operation_id, request)

    @route(_HISTORY, http_method=[*READS, HttpMethod.OPTIONS])
    async def history(request: AnyRequest) -> ASGIResponse:
        _check_method(request, READS, ALLOW_READ)
        return await _history(parts, request.path_params["operation_id"], request)

    return [status, history]


def _check_method(request: AnyRequest, methods: Collection[HttpMethod], allow: str) -> None:
    if request.method not in methods:
        raise method_not_allowed(allow)


async def _read(parts: Dependencies, operation_id: str, request: AnyRequest) -> ASGIResponse:
    scope = request.scope
    requests.check_query(scope["query_string"])
    headers = requests.parse_headers(scope["headers"])
    seconds = preferences.wait_seconds(headers)
    if seconds:
        operation = await run_until_disconnect(
            request.receive, parts.watches.wait_until_terminal(operation_id, seconds)
        )
        if operation is None:
            return empty_response(400)  # for nobody
    else:
        operation = await parts.status.read(operation_id)
    return status_response(
        operation,
        retry_after=parts.status.retry_after(operation),
        waited=seconds,
        queue_position=await parts.status.queue_position(operation),
        is_known=lambda etag: preferences.etag_matches(headers, etag),
    )


async def _cancel(parts: Dependencies, operation_id: str, request: AnyRequest) -> ASGIResponse:
    scope = request.scope
    requests.check_query(scope["query_string"])
    headers = requests.parse_headers(scope["headers"])
    requester = parts.callers.resolve(scope["client"], headers)
    requests.check_content_type(headers)
    body = await requests.read_body(request.receive, headers, parts.body_limit)
    if body is None:
        return empty_response(400)
    operation = await parts.canceler.cancel(operation_id, by=requester.identity, reason=decode_reason(body))
    return monitor_response(operation, retry_after=parts.status.retry_after(operation))


async def _history(parts: Dependencies, operation_id: str, request: AnyRequest) -> ASGIResponse:
    scope = request.scope
    requests.check_query(scope["query_string"])
    headers = requests.parse_headers(scope["headers"])
    # HTTP/1.0 knows no chunks, so what has no length yet can't be sent to it piece by piece (RFC 9112, 6.1).
    is_old = scope["http_version"] == "1.0"
    if request.method == HttpMethod.HEAD or is_old or not preferences.wants_stream(headers):
        document = await parts.history.document(operation_id)
        if not isinstance(document, bytes):
            if not is_old:
                return StreamedResponse(document, media_type=JSON, headers=_VARY)
            document = b"".join([piece async for piece in document])
        return json_response(document, headers=_VARY)
    position = preferences.last_event_position(headers)
    if await parts.history.is_at_end(operation_id, position):
        return empty_response(
            204
        )  # an EventSource takes that for the end, and connects no more (HTML, Server-sent events)
    stream = parts.history.follow(operation_id, position)
    return StreamedResponse(stream, media_type="text/event-stream", headers=STREAM_HEADERS)
