"""Answers as litestar sends them: a status monitor, a document, an error. Called by `app.py`.

Bodies are encoded here, once, straight from the contract's structs; litestar only carries bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec
from litestar import Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from opstream_api.errors import ApiError
from opstream_journal.jetstream.connection import end_task
from opstream_schemas.operation.state import Operation
from opstream_schemas.status_monitor import ErrorBody, build_status_monitor

logger = logging.getLogger(__name__)

T = TypeVar("T")

JSON: Final = "application/json"
ABORT_KEY: Final = "opstream.abort"
"""Key in the ASGI scope: drops the connection and all that was written but not read (`server.Protocol`)."""
WRITE_TIMEOUT: Final = 30.0
"""Seconds that a client may take to read what fills its connection's buffers, before it is hung up on."""

_encode: Final = msgspec.json.Encoder().encode


def json_response(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> ASGIResponse:
    """An answer whose body is JSON already."""
    return ASGIResponse(body=body, status_code=status, media_type=JSON, headers=dict(headers or {}))


def monitor_response(
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
    return json_response(_encode(build_status_monitor(operation)), status=status, headers={**(headers or {}), **pace})


def status_response(
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
    body = _encode(build_status_monitor(operation, queue_position=queue_position))
    etag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    # A cache on the way may keep the answer, but has to ask whether it still holds.
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Prefer"}
    if waited:
        headers["Preference-Applied"] = f"wait={waited}"
    if not operation.is_terminal:
        headers["Retry-After"] = str(retry_after)
    return empty_response(304, headers) if is_known(etag) else json_response(body, headers=headers)


def empty_response(status: int, headers: Mapping[str, str] | None = None) -> ASGIResponse:
    """An answer without a body."""
    return ASGIResponse(status_code=status, media_type=JSON, headers=dict(headers or {}))


def error_response(error: ApiError) -> Response[bytes]:
    """The error body of the contract, with its code also as a header."""
    headers = {**error.headers, "x-ms-error-code": str(error.code)}
    return Response(encode_error(error.body), status_code=error.status, media_type=JSON, headers=headers)


def encode_error(body: ErrorBody) -> bytes:
    """JSON of an error body."""
    return _encode(body)


async def run_until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns or raises; None if the client went away before, and then `work` is cancelled."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_wait_for_disconnect(receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await end_task(leaving)
        await end_task(working)


class StreamedResponse(ASGIResponse):
    """An answer that is sent piece by piece, each as fast as its client reads, and never faster than it is made.

    Args:
        pieces: of the body; closed at the end, however it comes. If it raises, the connection is dropped, so that no
            client takes what it got for the whole.
        media_type: of the body.
        headers: further ones.
    """

    _should_set_content_length = False

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], *, media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(media_type=media_type, headers=dict(headers or {}))
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await run_until_disconnect(receive, self._write(send, scope[ABORT_KEY]))  # type: ignore[typeddict-item]

    async def _write(self, send: Send, abort: Callable[[], None]) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:
            try:
                await self.start_response(send)
                async for piece in pieces:
                    async with asyncio.timeout(WRITE_TIMEOUT):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                async with asyncio.timeout(WRITE_TIMEOUT):  # it waits until the last piece is taken
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                logger.info("a client did not read for %g s and is hung up on", WRITE_TIMEOUT)
                abort()
            except ApiError as error:
                logger.info("an answer that had begun can't be ended: %s", error)
                abort()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
