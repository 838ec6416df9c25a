"""Answers as litestar sends them: a status monitor, a document, an error. Called by `app.py`.

Bodies are encoded here, once, straight from the contract's structs; litestar only carries bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from litestar import Response
from litestar.response.base import ASGIResponse

from opstream_api.errors import ApiError
from opstream_schemas.operation.fold import Operation
from opstream_schemas.status_monitor import ErrorBody, monitor

JSON: Final = "application/json"

_encode: Final = msgspec.json.Encoder().encode


def json_answer(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> ASGIResponse:
    """An answer whose body is JSON already."""
    return ASGIResponse(body=body, status_code=status, media_type=JSON, headers=dict(headers or {}))


def monitor_answer(
    operation: Operation, *, retry_after: int, status: int = 200, headers: Mapping[str, str] | None = None
) -> ASGIResponse:
    """The status monitor of an operation, with the pace of polling while it is not terminal.

    Args:
        operation: its state.
        retry_after: whole seconds.
        status: 200, or 202 for a submit.
        headers: further ones.
    """
    pace = {} if operation.is_terminal else {"Retry-After": str(retry_after)}
    return json_answer(_encode(monitor(operation)), status=status, headers={**(headers or {}), **pace})


def status_answer(
    operation: Operation, *, retry_after: int, waited: int, queue_position: int, is_known: Callable[[str], bool]
) -> ASGIResponse:
    """The answer to a read: the status monitor with its `ETag`, or 304 for a client that has it already.

    Args:
        operation: its state.
        retry_after: whole seconds.
        waited: whole seconds for which the client allowed the request to be held; 0 for not at all.
        queue_position: its place among those that wait for a resource; 0 for none.
        is_known: whether the client has the representation with an `ETag`.
    """
    body = _encode(monitor(operation, queue_position=queue_position))
    etag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    # A cache on the way may keep the answer, but has to ask whether it still holds.
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Prefer"}
    if waited:
        headers["Preference-Applied"] = f"wait={waited}"
    if not operation.is_terminal:
        headers["Retry-After"] = str(retry_after)
    return empty_answer(304, headers) if is_known(etag) else json_answer(body, headers=headers)


def empty_answer(status: int, headers: Mapping[str, str] | None = None) -> ASGIResponse:
    """An answer without a body."""
    return ASGIResponse(status_code=status, media_type=JSON, headers=dict(headers or {}))


def error_answer(error: ApiError) -> Response[bytes]:
    """The error body of the contract, with its code also as a header."""
    headers = {**error.headers, "x-ms-error-code": str(error.code)}
    return Response(encode_error(error.body), status_code=error.status, media_type=JSON, headers=headers)


def encode_error(body: ErrorBody) -> bytes:
    """JSON of an error body."""
    return _encode(body)
