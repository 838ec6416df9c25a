"""The HTTP surface: which path is what, and the order in which a submit is checked. Made by `main.py` and by tests.

Holds no logic of operations: `submit.py` and `status.py` have it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, route
from litestar.enums import HttpMethod
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.response.base import ASGIResponse
from litestar.status_codes import HTTP_400_BAD_REQUEST
from litestar.types import ASGIApp, HTTPScope, Scope

from opstream_journal import JournalError
from opstream_schemas.errors import ErrorCode

from . import requests
from .answers import error_answer, json_answer, monitor_answer
from .capacity import Capacity
from .errors import ApiError, from_journal, method_not_allowed, not_found
from .headers import REQUEST_ID, HeaderCare
from .openapi import Document
from .paths import parse_submit_path
from .status import StatusReader
from .submit import Submission, Submitter

logger = logging.getLogger(__name__)

STATUS_PATH: Final = "/status/{operation_id:str}"

# litestar answers OPTIONS by itself, with 204, wherever a route does not take it.
_READS: Final = [HttpMethod.GET, HttpMethod.HEAD, HttpMethod.OPTIONS]
_SUBMITS: Final = [HttpMethod.POST, HttpMethod.OPTIONS]
_ALLOW_READS: Final = "GET, HEAD"
_ALLOW_SUBMIT: Final = "POST"
_READ_PATH: Final = re.compile(r"/(?:status/[^/]+|healthz|readyz|openapi\.json)")
_HEALTHY: Final = b'{"status":"ok"}'


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the app is made of."""

    submitter: Submitter
    status: StatusReader
    capacity: Capacity
    document: Document
    public_url: str
    """Base of status URLs; empty for each request's own host."""
    body_limit: int
    """Bytes."""
    new_operation_id: Callable[[], str]
    """For requests that bring none."""
    new_request_id: Callable[[], str]
    """For each request."""


def create_app(parts: Parts) -> ASGIApp:
    """The whole service as an ASGI app. It starts and stops nothing."""

    @route(STATUS_PATH, http_method=_READS, before_request=_refuse_options)
    async def status(scope: Scope) -> ASGIResponse:
        operation = await parts.status.read(scope["path_params"]["operation_id"])
        return monitor_answer(operation, retry_after=parts.status.retry_after(operation))

    @route("/healthz", http_method=_READS, before_request=_refuse_options)
    async def healthz() -> ASGIResponse:
        return json_answer(_HEALTHY)

    @route("/readyz", http_method=_READS, before_request=_refuse_options)
    async def readyz() -> ASGIResponse:
        try:
            await parts.capacity.check_now()
        except JournalError as error:
            raise from_journal(error) from error
        return json_answer(_HEALTHY)

    @route("/openapi.json", http_method=_READS, before_request=_refuse_options)
    async def openapi() -> ASGIResponse:
        return json_answer(await parts.document.current())

    @route(["/", "/{rest:path}"], http_method=_SUBMITS)
    async def submit(request: Request[Any, Any, Any]) -> ASGIResponse:
        return await _submit(parts, request)

    app = Litestar(
        [status, healthz, readyz, openapi, submit],
        exception_handlers={ApiError: _answer_error, HTTPException: _answer_framework, Exception: _answer_unexpected},
        logging_config=None,
        openapi_config=None,
    )
    return HeaderCare(app, new_id=parts.new_request_id)


async def _refuse_options(request: Request[Any, Any, Any]) -> None:
    if request.method == HttpMethod.OPTIONS:
        raise method_not_allowed(_ALLOW_READS)


async def _submit(parts: Parts, request: Request[Any, Any, Any]) -> ASGIResponse:
    scope = request.scope
    path = parse_submit_path(scope["raw_path"])
    if scope["method"] != HttpMethod.POST:
        raise method_not_allowed(_ALLOW_SUBMIT)
    requests.check_query(scope["query_string"])
    headers = requests.headers_of(scope["headers"])
    operation_id = requests.operation_id(headers) or parts.new_operation_id()
    base = parts.public_url or requests.base_url(headers, scope["scheme"])
    trace = requests.trace(headers)
    requests.check_content_type(headers)
    body = await requests.read_body(request.receive, headers, parts.body_limit)
    if body is None:
        # Nobody is left to read an answer, and half a request is none.
        return json_answer(b"", status=400)
    submission = Submission(
        kind=path.kind, resource_id=path.resource_id, operation_id=operation_id, body=body, trace=trace
    )
    accepted = await parts.submitter.submit(submission)
    return monitor_answer(
        accepted.operation,
        retry_after=accepted.retry_after,
        status=202,
        location=f"{base}/status/{operation_id}",
    )


def _answer_error(_request: Request[Any, Any, Any], error: ApiError) -> Response[bytes]:
    return error_answer(error)


def _answer_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """litestar's own refusals: no such route, another method, a broken Host."""
    if isinstance(error, MethodNotAllowedException):
        return error_answer(_refusal(request.scope))
    if isinstance(error, NotFoundException):
        return error_answer(not_found())
    if error.status_code == HTTP_400_BAD_REQUEST:
        return error_answer(ApiError(ErrorCode.INVALID_HEADER, "the Host header is not valid", target="Host"))
    return _answer_unexpected(request, error)


def _refusal(scope: HTTPScope) -> ApiError:
    if _READ_PATH.fullmatch(scope["path"]):
        return method_not_allowed(_ALLOW_READS)
    try:
        parse_submit_path(scope["raw_path"])
    except ApiError as error:
        return error
    return method_not_allowed(_ALLOW_SUBMIT)


def _answer_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    request_id = request.scope["state"][REQUEST_ID]
    logger.error("request %s failed: %r", request_id, request.scope["path"], exc_info=error)
    message = f"the request failed for a reason that is ours; the log has it under {request_id}"
    return error_answer(ApiError(ErrorCode.INTERNAL_ERROR, message))
