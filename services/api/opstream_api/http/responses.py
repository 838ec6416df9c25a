"""Responses: a status monitor, a document, an error, a stream.

A body is encoded here, once, from the contract's structs. What is left to do is to send the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from litestar import Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from opstream_api.errors import ApiError
from opstream_journal.jetstream.connection import end_task
from opstream_schemas.operation.state import TERMINAL_STATUSES, Operation
from opstream_schemas.status_monitor import BlockedBy, ErrorBody, StatusMonitor, build_status_monitor

logger = logging.getLogger(__name__)

T = TypeVar("T")

JSON: Final = "application/json"
ABORT_KEY: Final = "opstream.abort"
"""Key in the ASGI scope of a function that drops the connection with all unread bytes (`server.HttpProtocol`)."""
WRITE_TIMEOUT: Final = 30.0
"""Seconds that a client may leave the buffers of its connection full. Then the connection is dropped."""

_JSON_TYPE: Final = (b"content-type", JSON.encode())
_BODYLESS: Final = frozenset({204, 304})
_encode: Final = msgspec.json.Encoder().encode


class EncodedResponse:
    """A response whose head and body are bytes already, as an ASGI app.

    Args:
        status_code: of HTTP.
        headers: their names in lower case; those of the body among them.
        body: empty for a status that has none (204, 304).
    """

    __slots__ = ("body", "headers", "status_code")

    def __init__(self, status_code: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
        self.status_code = status_code
        self.headers = headers
        self.body = body

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the response (ASGI). The server leaves the body out in answer to HEAD."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def json_response(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> EncodedResponse:
    """Build a response whose body is already JSON."""
    encoded = _encode_headers(headers)
    encoded += (_JSON_TYPE, (b"content-length", b"%d" % len(body)))
    return EncodedResponse(status, encoded, body)


def monitor_response(
    operation: Operation,
    *,
    retry_after: int,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    blocked_by: BlockedBy | None = None,
    cancel_requested_at: datetime | None = None,
) -> EncodedResponse:
    """Build a response with the status monitor of an operation, and `Retry-After` until it is terminal.

    Args:
        operation: the state of the operation.
        retry_after: whole seconds to wait before the next poll.
        status: 200, or 202 for a submit.
        headers: further headers.
        blocked_by: why it is not running now; None if it is not known.
        cancel_requested_at: since when it is to stop; None if it is not, or that is not known.
    """
    retry = {} if operation.is_terminal else {"Retry-After": str(retry_after)}
    body = _encode(build_status_monitor(operation, blocked_by=blocked_by, cancel_requested_at=cancel_requested_at))
    return json_response(body, status=status, headers={**(headers or {}), **retry})


def status_response(
    monitor: StatusMonitor, *, retry_after: int, waited: int, is_known: Callable[[str], bool]
) -> EncodedResponse:
    """Build the response to a read: the status monitor with its `ETag`, or 304 if the client has it.

    Args:
        monitor: the status monitor of the operation.
        retry_after: whole seconds to wait before the next poll.
        waited: whole seconds that the client allowed the request to wait; 0 for none.
        is_known: returns True if the client has the representation with an `ETag`.
    """
    body = _encode(monitor)
    etag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    # A cache may store the response, but must revalidate it (RFC 9111, no-cache).
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Prefer"}
    if waited:
        headers["Preference-Applied"] = f"wait={waited}"
    if monitor.status not in TERMINAL_STATUSES:
        headers["Retry-After"] = str(retry_after)
    return empty_response(304, headers) if is_known(etag) else json_response(body, headers=headers)


def empty_response(status: int, headers: Mapping[str, str] | None = None) -> EncodedResponse:
    """Build a response without a body."""
    if status in _BODYLESS:
        return EncodedResponse(status, _encode_headers(headers))
    return json_response(b"", status=status, headers=headers)


def error_response(error: ApiError) -> Response[bytes]:
    """Build a response with the contract's error body, and its code also as a header."""
    headers = {**error.headers, "x-ms-error-code": str(error.code)}
    return Response(encode_error(error.body), status_code=error.status, media_type=JSON, headers=headers)


def error_as_asgi(error: ApiError, members: Mapping[str, object] | None = None) -> EncodedResponse:
    """Build the same response as an ASGI app, outside of litestar. `members` are further ones of its JSON."""
    headers = {**error.headers, "x-ms-error-code": str(error.code)}
    body = _encode({"error": error.body.error, **members}) if members else encode_error(error.body)
    return json_response(body, status=error.status, headers=headers)


def encode_error(body: ErrorBody) -> bytes:
    """Encode an error body as JSON."""
    return _encode(body)


def _encode_headers(headers: Mapping[str, str] | None) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]


async def run_until_disconnect(
    receive: Receive, work: Coroutine[Any, Any, T], ended: asyncio.Future[None] | None = None
) -> T | None:
    """Return or raise what `work` does. If the client disconnects first, cancel `work` and return None.

    Args:
        receive: ASGI's.
        work: what the client waits for.
        ended: done when the client may not wait any longer, as if it had disconnected; None for never.
    """
    working = asyncio.create_task(work)
    disconnecting = asyncio.create_task(_wait_for_disconnect(receive))
    waited: list[asyncio.Future[Any]] = [working, disconnecting]
    try:
        await asyncio.wait([*waited, ended] if ended is not None else waited, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await end_task(disconnecting)
        await end_task(working)


class StreamedResponse(ASGIResponse):
    """A response that is sent in pieces, each as soon as it is produced and the client has read the one before.

    Args:
        pieces: the pieces of the body. The generator is always closed. If it raises, the connection is dropped, so
            that the client does not take the incomplete body for the whole.
        media_type: media type of the body.
        headers: further headers.
        access: yields a future that is done when the client may not read on; None if it always may.
        status_code: of HTTP.
    """

    _should_set_content_length = False

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        access: contextlib.AbstractContextManager[asyncio.Future[None]] | None = None,
        status_code: int = 200,
    ) -> None:
        super().__init__(media_type=media_type, headers=dict(headers or {}), status_code=status_code)
        self._pieces = pieces
        self._access = access
        self._has_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response (ASGI)."""
        abort: Callable[[], None] = scope[ABORT_KEY]  # type: ignore[typeddict-item]
        if self._access is None:
            await run_until_disconnect(receive, self._write(send, abort))
            return
        with self._access as ended:
            await run_until_disconnect(receive, self._write(send, abort), ended)
            if ended.done():
                await self._end(send, abort)

    async def _end(self, send: Send, abort: Callable[[], None]) -> None:
        """End the body between two pieces, so that an EventSource connects again, and is refused then."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                if not self._has_started:
                    await self.start_response(send)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            abort()

    async def _write(self, send: Send, abort: Callable[[], None]) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:
            try:
                self._has_started = True
                await self.start_response(send)
                async for piece in pieces:
                    async with asyncio.timeout(WRITE_TIMEOUT):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                async with asyncio.timeout(WRITE_TIMEOUT):  # which waits until the client has read the last piece
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                logger.info("a client did not read for %g s, its connection is dropped", WRITE_TIMEOUT)
                abort()
            except ApiError as error:
                logger.info("a response that has begun can't be completed: %s", error)
                abort()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
