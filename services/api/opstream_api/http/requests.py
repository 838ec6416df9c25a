"""The parts that requests of every route have in common: query, headers, body.

Each function reads one part and raises the contract's error for it. A route decides in which order.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from opstream_api.errors import ApiError
from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import Trace

Headers = Mapping[bytes, list[str]]
"""Values by lower-case name, in the order of the request."""

_KNOWN_PARAMETERS: Final = frozenset({"api-version"})
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_JSON: Final = re.compile(r"application/(?:[a-z0-9!#$&^_.-]+\+)?json")
_PLAIN_ENCODINGS: Final = frozenset({"", "identity"})
"""Some clients send the header without a value."""
_CHARSETS: Final = frozenset({"utf-8", "utf8"})
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.{0,200})?"
)
_TRACESTATE_LIMIT: Final = 512
"""Characters. W3C Trace Context asks to pass on at least so many, and allows to drop a longer one."""
_DISCARD_FACTOR: Final = 8
"""A body up to so many times the limit is read and discarded, so that a client that still sends can read its 413."""


class ClientGone(Exception):
    """The client has disconnected before its body had ended."""


def parse_headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return ASGI headers by name."""
    found: dict[bytes, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value.decode("latin-1"))
    return found


def single_value(headers: Headers, name: str) -> str | None:
    """Return the value of a header that may be sent once; None without it.

    Raises:
        ApiError: `InvalidHeader`: the request has it more than once.
    """
    values = headers.get(name.lower().encode(), [])
    if len(values) > 1:
        raise ApiError(ErrorCode.INVALID_HEADER, f"the header {name} was sent {len(values)} times", target=name)
    return values[0] if values else None


def check_query(query: bytes) -> None:
    """Refuse unknown query parameters, so that a misspelled one is not ignored in silence.

    Raises:
        ApiError: `InvalidParameter`, with the parameter as target.
    """
    if not query:
        return
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in _KNOWN_PARAMETERS:
            raise ApiError(ErrorCode.INVALID_PARAMETER, f"there is no query parameter {name!r}", target=name)


def base_url(headers: Headers, scheme: str) -> str:
    """Return the service's own URL as the client wrote it in `Host`.

    Raises:
        ApiError: `InvalidHeader`: `Host` is missing or malformed, so links can't be built.
    """
    host = single_value(headers, "Host")
    if host is None or _HOST.fullmatch(host) is None:
        raise ApiError(ErrorCode.INVALID_HEADER, "the request needs a Host header: HOST or HOST:PORT", target="Host")
    return f"{scheme}://{host}"


def parse_trace(headers: Headers) -> Trace | None:
    """Return the W3C Trace Context to continue; None without one. A malformed one is ignored, as the standard asks."""
    values = headers.get(b"traceparent", [])
    if len(values) != 1:
        return None
    found = _TRACEPARENT.fullmatch(values[0])
    if found is None or (found["more"] and values[0].startswith("00")):
        return None
    tracestate = ",".join(headers.get(b"tracestate", []))
    is_valid = len(tracestate) <= _TRACESTATE_LIMIT and tracestate.isascii() and tracestate.isprintable()
    return Trace(traceparent=values[0], tracestate=tracestate if is_valid else "")


def check_content_type(headers: Headers) -> None:
    """Accept a body that is declared as JSON in UTF-8. One that is not declared is refused later (`check_declared`).

    Raises:
        ApiError: `UnsupportedMediaType`; `InvalidHeader` for two content types.
    """
    encoding = single_value(headers, "Content-Encoding")
    if encoding is not None and encoding.strip().lower() not in _PLAIN_ENCODINGS:
        raise _unsupported(
            f"Content-Encoding {encoding!r} is not supported: send the body unencoded", "Content-Encoding"
        )
    value = single_value(headers, "Content-Type")
    if value is None:
        return
    media_type, *parameters = value.split(";")
    if _JSON.fullmatch(media_type.strip().lower()) is None:
        raise _unsupported(f"the input must be application/json, not {value!r}", "Content-Type")
    for parameter in parameters:
        name, _, charset = parameter.strip().partition("=")
        if name.lower() == "charset" and charset.strip('"').lower() not in _CHARSETS:
            raise _unsupported(f"the input must be UTF-8, not {charset!r}", "Content-Type")


def check_declared(headers: Headers, body: bytes) -> None:
    """Accept a body only if it is declared. A web page of another site can send one that is not.

    Raises:
        ApiError: `UnsupportedMediaType`.
    """
    if body and b"content-type" not in headers:
        raise _unsupported("a body needs the header Content-Type: application/json", "Content-Type")


async def read_body(receive: Callable[[], Awaitable[Any]], headers: Headers, limit: int) -> bytes | None:
    """Read the body; return None if the client disconnects first.

    Args:
        receive: ASGI's.
        headers: those of the request, for `Content-Length` and `Expect`.
        limit: bytes; a larger body is not kept.

    Raises:
        ApiError: `PayloadTooLarge`; `JournalUnavailable` if the service stops before the body has ended.
    """
    declared = int(_digits(headers.get(b"content-length", ["0"])[0]))
    if declared > limit * _DISCARD_FACTOR or (declared > limit and b"expect" in headers):
        # The body is not here yet, or too large to discard, so the connection can't be used for another request.
        raise _too_large(limit, {"Connection": "close"})
    chunks: list[bytes] = []
    size = 0
    has_more = True
    while has_more:
        try:
            message = await receive()
        except asyncio.CancelledError:
            # uvicorn cancels open requests at the end of its grace period; nothing of this one is recorded.
            raise _stopping() from None
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        has_more = message.get("more_body", False)
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif size > limit * _DISCARD_FACTOR:
            raise _too_large(limit, {"Connection": "close"})
        else:
            chunks.clear()
    if size > limit:
        raise _too_large(limit)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def stream_body(
    receive: Callable[[], Awaitable[Any]], headers: Headers, limit: int
) -> AsyncGenerator[bytes, None]:
    """Yield the body piece by piece, as it comes, whatever its size.

    Args:
        receive: ASGI's.
        headers: those of the request, for `Content-Length`.
        limit: bytes; one that is declared as larger is refused before anything is read.

    Raises:
        ApiError: `PayloadTooLarge`; `JournalUnavailable` if the service stops before the body has ended.
        ClientGone: the client disconnects first.
    """
    if int(_digits(headers.get(b"content-length", ["0"])[0])) > limit:
        raise _too_large(limit, {"Connection": "close"})
    has_more = True
    while has_more:
        try:
            message = await receive()
        except asyncio.CancelledError:
            raise _stopping() from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        has_more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            yield chunk


def _digits(text: str) -> str:
    return text if text.isascii() and text.isdigit() else "0"


def _unsupported(message: str, target: str) -> ApiError:
    return ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, target=target)


def _stopping() -> ApiError:
    message = "the service is stopping: send the same request again"
    return ApiError(ErrorCode.JOURNAL_UNAVAILABLE, message, headers={"Connection": "close"})


def _too_large(limit: int, headers: Mapping[str, str] | None = None) -> ApiError:
    return ApiError(ErrorCode.PAYLOAD_TOO_LARGE, f"the body has more than {limit} bytes", headers=headers)
