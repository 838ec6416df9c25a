"""Files that the service sends as they are: with gzip for clients that accept it, and 304 for those that have them."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.enums import HttpMethod
from litestar.response.base import ASGIResponse

from opstream_api.errors import method_not_allowed
from opstream_api.http.conditional_headers import etag_matches
from opstream_api.http.requests import Headers

CACHE_FOR_A_DAY: Final = "public, max-age=86400"
"""For files that change only with the installed release. After a day a browser revalidates them."""
CACHE_REVALIDATED: Final = "public, no-cache"
"""For opstream's own files, which belong together and may change with each release."""
METHODS: Final = [HttpMethod.GET, HttpMethod.HEAD, HttpMethod.OPTIONS]
"""OPTIONS is listed to be refused: litestar would respond 204 by itself."""

_TYPES: Final = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".html": "text/html",
    "": "text/html",
}
_ALLOW: Final = "GET, HEAD"

AnyRequest = Request[Any, Any, Any]


class StaticFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file, ready to send."""

    body: bytes
    gzipped: bytes
    """The body with gzip; empty if gzip does not make it smaller."""
    digest: str
    media_type: str
    caching: str


def static_file(name: str, body: bytes, caching: str) -> StaticFile:
    """Build a file that is sent.

    Args:
        name: its name, of which the suffix says its media type.
        body: its bytes.
        caching: the value of `Cache-Control`.
    """
    gzipped = gzip.compress(body, mtime=0)
    return StaticFile(
        body=body,
        gzipped=gzipped if len(gzipped) < len(body) else b"",
        digest=hashlib.blake2b(body, digest_size=16).hexdigest(),
        media_type=_TYPES[Path(name).suffix],
        caching=caching,
    )


def file_response(file: StaticFile, headers: Headers, extra: Mapping[str, str]) -> ASGIResponse:
    """Build the response with a file: with gzip if the client accepts it, 304 if it has it.

    Args:
        file: what is sent.
        headers: those of the request.
        extra: further headers of the response.
    """
    is_gzipped = bool(file.gzipped) and _accepts_gzip(headers)
    # Two representations need two tags (RFC 9110, ETag).
    etag = f'"{file.digest}-gzip"' if is_gzipped else f'"{file.digest}"'
    response_headers = {
        "ETag": etag,
        "Cache-Control": file.caching,
        "Vary": "Accept-Encoding",
        "x-content-type-options": "nosniff",
        **extra,
    }
    if etag_matches(headers, etag):
        return ASGIResponse(status_code=304, media_type=file.media_type, headers=response_headers)
    if is_gzipped:
        response_headers["content-encoding"] = "gzip"
    return ASGIResponse(
        body=file.gzipped if is_gzipped else file.body, media_type=file.media_type, headers=response_headers
    )


def refuse_options(request: AnyRequest) -> None:
    """Refuse OPTIONS.

    Raises:
        ApiError: `MethodNotAllowed`.
    """
    if request.method == HttpMethod.OPTIONS:
        raise method_not_allowed(_ALLOW)


def _accepts_gzip(headers: Headers) -> bool:
    """Return True if `Accept-Encoding` has gzip, or `*`, with a weight above 0 (RFC 9110)."""
    weights: dict[str, bool] = {}
    for part in ",".join(headers.get(b"accept-encoding", [])).lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        weights[coding] = not any(parameter.replace(" ", "").strip("0.") == "q=" for parameter in parameters)
    return weights.get("gzip", weights.get("*", False))
