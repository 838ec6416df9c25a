"""What a request says: path of a submit, query, headers, the bytes of its body. Called by the routes.

Each function checks one thing and raises the error of the contract for it; their order is `app.py`'s.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from opstream_api.errors import ApiError, not_found
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.events import Trace
from opstream_schemas.names import Kind, check_resource_id

Headers = Mapping[bytes, list[str]]
"""Values by lower-case name, in the order in which they were sent."""

_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_KNOWN_PARAMETERS: Final = frozenset({"api-version"})
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_JSON: Final = re.compile(r"application/(?:[a-z0-9!#$&^_.-]+\+)?json")
_CHARSETS: Final = frozenset({"utf-8", "utf8"})
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.{0,200})?"
)
_TRACESTATE_LIMIT: Final = 512
"""Characters that W3C Trace Context asks to pass on at least; more is left out, as it allows."""
_DISCARD_FACTOR: Final = 8
"""Times the limit that is read and thrown away, so that a client that is still sending gets to read its 413."""


class SubmitPath(msgspec.Struct, frozen=True):
    """What a path asks for."""

    kind: Kind
    resource_id: str
    """The resource's own id, decoded once; empty for `/{resource}:{action}`."""


def parse_submit_path(raw_path: bytes) -> SubmitPath:
    """Parse `/{resource}/{id}:{action}` or `/{resource}:{action}`; the last `:` separates.

    Args:
        raw_path: as it was sent, without the query.

    Raises:
        ApiError: `NotFound` for any other form, a reserved resource included; `InvalidParameter` for an encoding that
            is none and for an id outside of its grammar.
    """
    segments = raw_path.split(b"/")
    if len(segments) not in {2, 3} or segments[0]:
        raise not_found()
    *resources, last = (_decode_segment(segment) for segment in segments[1:])
    name, colon, action = last.rpartition(":")
    if not colon:
        raise not_found()
    try:
        kind = Kind.parse_routable(f"{resources[0] if resources else name}:{action}")
    except InvalidName:
        raise not_found() from None
    if not resources:
        return SubmitPath(kind, "")
    try:
        return SubmitPath(kind, check_resource_id(name))
    except InvalidName as error:
        raise ApiError(ErrorCode.INVALID_PARAMETER, str(error), target="id") from error


def parse_headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    """ASGI headers by name."""
    found: dict[bytes, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value.decode("latin-1"))
    return found


def single_value(headers: Headers, name: str) -> str | None:
    """The value of a header that may be sent once; None without it.

    Raises:
        ApiError: `InvalidHeader`: it was sent more than once.
    """
    values = headers.get(name.lower().encode(), [])
    if len(values) > 1:
        raise ApiError(ErrorCode.INVALID_HEADER, f"the header {name} was sent {len(values)} times", target=name)
    return values[0] if values else None


def check_query(query: bytes) -> None:
    """Refuse query parameters that nobody knows: a misspelled one must not be ignored in silence.

    Raises:
        ApiError: `InvalidParameter`, with the parameter as target.
    """
    if not query:
        return
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in _KNOWN_PARAMETERS:
            raise ApiError(ErrorCode.INVALID_PARAMETER, f"there is no query parameter {name!r}", target=name)


def base_url(headers: Headers, scheme: str) -> str:
    """The service's own URL as the client wrote it, from `Host`.

    Raises:
        ApiError: `InvalidHeader`: no usable `Host`, so no link could be made.
    """
    host = single_value(headers, "Host")
    if host is None or _HOST.fullmatch(host) is None:
        raise ApiError(ErrorCode.INVALID_HEADER, "the request needs a Host header: HOST or HOST:PORT", target="Host")
    return f"{scheme}://{host}"


def parse_trace(headers: Headers) -> Trace | None:
    """The W3C Trace Context to be continued. A malformed one is ignored, as that standard says."""
    values = headers.get(b"traceparent", [])
    if len(values) != 1:
        return None
    found = _TRACEPARENT.fullmatch(values[0])
    if found is None or (found["more"] and values[0].startswith("00")):
        return None
    state = ",".join(headers.get(b"tracestate", []))
    is_sane = len(state) <= _TRACESTATE_LIMIT and state.isascii() and state.isprintable()
    return Trace(traceparent=values[0], tracestate=state if is_sane else "")


def check_content_type(headers: Headers) -> None:
    """Take JSON in UTF-8, said so or not said at all.

    Raises:
        ApiError: `UnsupportedMediaType`, or `InvalidHeader` for two content types.
    """
    encoding = single_value(headers, "Content-Encoding")
    if encoding is not None and encoding.strip().lower() != "identity":
        raise _unsupported(
            f"a body with Content-Encoding {encoding!r} is not taken: send it as it is", "Content-Encoding"
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


async def read_body(receive: Callable[[], Awaitable[Any]], headers: Headers, limit: int) -> bytes | None:
    """The body; None if the client went away.

    Args:
        receive: ASGI's.
        headers: for the length and expectation that the client declares.
        limit: bytes; of a larger body nothing is kept.

    Raises:
        ApiError: `PayloadTooLarge`; `JournalUnavailable` when the service stops before the body has ended.
    """
    declared = int(_digits(headers.get(b"content-length", ["0"])[0]))
    if declared > limit * _DISCARD_FACTOR or (declared > limit and b"expect" in headers):
        # It has not sent the body yet, or too much of it to read on: the connection can't be used again.
        raise _too_large(limit, {"Connection": "close"})
    chunks: list[bytes] = []
    size = 0
    has_more = True
    while has_more:
        try:
            message = await receive()
        except asyncio.CancelledError:
            # uvicorn gives up what is still open once its grace is over; nothing of this request was recorded.
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


def _decode_segment(segment: bytes) -> str:
    if _BROKEN_ESCAPE.search(segment):
        raise ApiError(ErrorCode.INVALID_PARAMETER, "the path holds a '%' that no two hexadecimal digits follow")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise ApiError(ErrorCode.INVALID_PARAMETER, "the path is not UTF-8 after percent-decoding") from error


def _digits(text: str) -> str:
    return text if text.isascii() and text.isdigit() else "0"


def _unsupported(message: str, target: str) -> ApiError:
    return ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, target=target)


def _stopping() -> ApiError:
    message = "the service is stopping: send the same request again"
    return ApiError(ErrorCode.JOURNAL_UNAVAILABLE, message, headers={"Connection": "close"})


def _too_large(limit: int, headers: Mapping[str, str] | None = None) -> ApiError:
    return ApiError(ErrorCode.PAYLOAD_TOO_LARGE, f"the body has more than {limit} bytes", headers=headers)
