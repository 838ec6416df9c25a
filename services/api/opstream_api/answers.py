"""Answers as litestar sends them: a status monitor, a document, an error. Called by `app.py`.

Bodies are encoded here, once, straight from the contract's structs; litestar only carries bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from litestar import Response
from litestar.response.base import ASGIResponse

from opstream_schemas.monitor import ErrorBody, monitor
from opstream_schemas.operation import Operation

from .errors import ApiError

JSON: Final = "application/json"

_encode: Final = msgspec.json.Encoder().encode


def json_answer(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> ASGIResponse:
    """An answer whose body is JSON already."""
    return ASGIResponse(body=body, status_code=status, media_type=JSON, headers=dict(headers or {}))


def monitor_answer(
    operation: Operation, *, retry_after: int, status: int = 200, location: str | None = None
) -> ASGIResponse:
    """The status monitor of an operation, with the pace of polling while it is not terminal.

    Args:
        operation: its state.
        retry_after: whole seconds.
        status: 200 for a read, 202 for a submit.
        location: absolute URL of the status, for a submit.
    """
    headers: dict[str, str] = {}
    if location is not None:
        headers["Operation-Location"] = location
    if not operation.is_terminal:
        headers["Retry-After"] = str(retry_after)
    return json_answer(_encode(monitor(operation)), status=status, headers=headers)


def error_answer(error: ApiError) -> Response[bytes]:
    """The error body of the contract, with its code also as a header."""
    headers = {**error.headers, "x-ms-error-code": str(error.code)}
    return Response(encode_error(error.body), status_code=error.status, media_type=JSON, headers=headers)


def encode_error(body: ErrorBody) -> bytes:
    """JSON of an error body."""
    return _encode(body)
