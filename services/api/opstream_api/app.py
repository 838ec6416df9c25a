"""The HTTP surface: which path is what, and the order in which a submit is checked. Made by `main.py` and by tests.

Holds no logic of operations: `submit.py` and `status.py` have it.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from litestar import Litestar, Request, Response, route
from litestar.enums import HttpMethod
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.response.base import ASGIResponse
from litestar.status_codes import HTTP_400_BAD_REQUEST, HTTP_500_INTERNAL_SERVER_ERROR
from litestar.types import ASGIApp, HTTPScope

from opstream_journal import JournalError
from opstream_schemas.errors import ErrorCode

from .dependencies import Dependencies
from .errors import ApiError, journal_error, method_not_allowed, not_found
from .http import idempotency as repeatability
from .http import requests
from .http.callback_header import parse_callback
from .http.docs_page import docs_routes
from .http.header_middleware import REQUEST_ID_KEY, HeaderMiddleware
from .http.requests import Headers, SubmitPath, parse_submit_path
from .http.responses import empty_response, error_response, json_response, monitor_response
from .operations.submit import Submission
from .status_routes import ALLOW_POST, ALLOW_READ, READS, status_routes

logger = logging.getLogger(__name__)

# litestar answers OPTIONS by itself, with 204, wherever a route does not take it.
_READS: Final = [*READS, HttpMethod.OPTIONS]
_SUBMITS: Final = [HttpMethod.POST, HttpMethod.OPTIONS]
_READ_PATH: Final = re.compile(
    r"/(?:status/[^/:]+|status/[^/]+/events|docs(?:/[^/]+)?|healthz|readyz|(?:openapi|asyncapi)\.json)"
)
_CANCEL_PATH: Final = re.compile(r"/status/[^/]*:cancel")
_OK_BODY: Final = b'{"status":"ok"}'


def create_app(parts: Dependencies) -> ASGIApp:
    """The whole service as an ASGI app. It starts and stops nothing."""

    @route("/healthz", http_method=_READS, before_request=_refuse_options)
    async def healthz() -> ASGIResponse:
        return json_response(_OK_BODY)

    @route("/readyz", http_method=_READS, before_request=_refuse_options)
    async def readyz() -> ASGIResponse:
        try:
            await parts.capacity.ensure_ready()
        except JournalError as error:
            raise journal_error(error) from error
        return json_response(_OK_BODY)

    @route("/openapi.json", http_method=_READS, before_request=_refuse_options)
    async def openapi() -> ASGIResponse:
        return json_response(await parts.openapi.current())

    @route("/asyncapi.json", http_method=_READS, before_request=_refuse_options)
    async def asyncapi() -> ASGIResponse:
        return json_response(await parts.asyncapi.current())

    @route(["/", "/{rest:path}"], http_method=_SUBMITS)
    async def submit(request: Request[Any, Any, Any]) -> ASGIResponse:
        return await _submit(parts, request)

    app = Litestar(
        [*status_routes(parts), *docs_routes(parts.docs_page), healthz, readyz, openapi, asyncapi, submit],
        exception_handlers={
            ApiError: _handle_api_error,
            HTTPException: _handle_framework_error,
            Exception: _handle_unexpected_error,
        },
        logging_config=None,
        openapi_config=None,
    )
    return HeaderMiddleware(app, new_id=parts.new_request_id)


async def _refuse_options(request: Request[Any, Any, Any]) -> None:
    if request.method == HttpMethod.OPTIONS:
        raise method_not_allowed(ALLOW_READ)


async def _submit(parts: Dependencies, request: Request[Any, Any, Any]) -> ASGIResponse:
    headers = requests.parse_headers(request.scope["headers"])
    try:
        path = parse_submit_path(request.scope["raw_path"])
        if request.method != HttpMethod.POST:
            raise method_not_allowed(ALLOW_POST)
        return await _take(parts, path, headers, request)
    except ApiError as error:
        # Of a 5xx nobody knows yet: the request may be recorded, and asking again tells.
        if repeatability.uses_repeatability(headers) and error.status < HTTP_500_INTERNAL_SERVER_ERROR:
            error.headers[repeatability.REPEATABILITY_RESULT] = "rejected"
        raise


async def _take(
    parts: Dependencies, path: SubmitPath, headers: Headers, request: Request[Any, Any, Any]
) -> ASGIResponse:
    scope = request.scope
    requests.check_query(scope["query_string"])
    requester = parts.callers.resolve(scope["client"], headers)
    identity = repeatability.parse_idempotency_key(headers, parts.new_operation_id)
    base = parts.public_url or requests.base_url(headers, scope["scheme"])
    trace = requests.parse_trace(headers)
    called_back = parse_callback(headers, parts.callback_policy)
    requests.check_content_type(headers)
    body = await requests.read_body(request.receive, headers, parts.body_limit)
    if body is None:
        return empty_response(400)  # nobody is left to read an answer, and half a request is none
    submission = Submission(
        kind=path.kind,
        resource_id=path.resource_id,
        key=identity,
        caller=requester,
        body=body,
        trace=trace,
        callback=called_back,
    )
    accepted = await parts.submitter.submit(submission)
    answered = {
        "Operation-Location": f"{base}/status/{identity.operation_id}",
        repeatability.OPERATION_ID: identity.operation_id,
    }
    if identity.is_repeatable:
        answered[repeatability.REPEATABILITY_RESULT] = "accepted"
    return monitor_response(accepted.operation, retry_after=accepted.retry_after, status=202, headers=answered)


def _handle_api_error(_request: Request[Any, Any, Any], error: ApiError) -> Response[bytes]:
    return error_response(error)


def _handle_framework_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """litestar's own refusals: no such route, another method, a broken Host."""
    if isinstance(error, MethodNotAllowedException):
        return error_response(_method_error(request.scope))
    if isinstance(error, NotFoundException):
        return error_response(not_found())
    if error.status_code == HTTP_400_BAD_REQUEST:
        return error_response(ApiError(ErrorCode.INVALID_HEADER, "the Host header is not valid", target="Host"))
    return _handle_unexpected_error(request, error)


def _method_error(scope: HTTPScope) -> ApiError:
    path = f"/{'/'.join(filter(None, scope['path'].split('/')))}"  # litestar passes over empty segments, too
    if _READ_PATH.fullmatch(path):
        return method_not_allowed(ALLOW_READ)
    if _CANCEL_PATH.fullmatch(path):
        return method_not_allowed(ALLOW_POST)
    try:
        parse_submit_path(scope["raw_path"])
    except ApiError as error:
        return error
    return method_not_allowed(ALLOW_POST)


def _handle_unexpected_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    request_id = request.scope["state"][REQUEST_ID_KEY]
    logger.error("request %s failed: %r", request_id, request.scope["path"], exc_info=error)
    message = f"the request failed for a reason that is ours; the log has it under {request_id}"
    return error_response(ApiError(ErrorCode.INTERNAL_ERROR, message))
