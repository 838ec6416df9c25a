"""The headers of reads: `Prefer`, `If-None-Match`, `Accept`, `Last-Event-ID`. Pure.

A malformed header is ignored where RFC 9110 and RFC 7240 say so. What opstream defines itself is validated.
"""

from __future__ import annotations

import re
from typing import Final

from opstream_api.errors import ApiError
from opstream_schemas.errors import ErrorCode

from .requests import Headers, single_value

MAX_WAIT: Final = 60
"""Whole seconds that a request may wait. Proxies time out at about 100, and clients often earlier."""
STATUS_TOKEN_SECONDS: Final = 3600
"""Whole seconds that a status token lasts unless its request says otherwise."""
MAX_STATUS_TOKEN_SECONDS: Final = 86_400
"""Whole seconds that one lasts at most: a URL is copied, bookmarked and logged by others."""
LAST_EVENT_ID: Final = "Last-Event-ID"

_READ_LIMIT: Final = 1024
"""Characters of `Accept` and `Prefer` that are read. Browsers send 300, and each thousand takes milliseconds."""
_TAGS_LIMIT: Final = 4096
"""Characters of `If-None-Match` that are read. A tag beyond is as if the client had not sent it."""
_WAIT: Final = re.compile(r'(?:^|,)\s*wait\s*=\s*(?:([0-9]+)|"([0-9]+)")\s*(?=[;,]|$)', re.IGNORECASE)
_STATUS_TOKEN: Final = re.compile(
    r'(?:^|,)\s*status-token\s*(?:=\s*(?:([0-9]{1,9})|"([0-9]{1,9})")\s*)?(?=[;,]|$)', re.IGNORECASE
)
_QUOTED: Final = re.compile(r'"(?![0-9]+")[^"]*"')
"""A quoted text that is no number. What is inside is not a preference."""
_ETAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_POSITION: Final = re.compile(r"[0-9]{1,15}")
_QUALITY: Final = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_EVENT_STREAM: Final = "text/event-stream"
_JSON: Final = frozenset({"application/json", "application/*"})


def wait_seconds(headers: Headers) -> int | None:
    """Return the whole seconds that a request may wait, at most `MAX_WAIT`; None without `Prefer: wait` (RFC 7240)."""
    found = _WAIT.search(_QUOTED.sub('""', _joined(headers, b"prefer", _READ_LIMIT)))
    return min(int(found[1] or found[2]), MAX_WAIT) if found else None


def status_token_seconds(headers: Headers) -> int | None:
    """Return for how many whole seconds a submit asks for a status token; None if it asks for none.

    At most `MAX_STATUS_TOKEN_SECONDS`; `STATUS_TOKEN_SECONDS` if it does not say. `status-token=0` asks for none.
    """
    if b"prefer" not in headers:
        return None
    found = _STATUS_TOKEN.search(_QUOTED.sub('""', _joined(headers, b"prefer", _READ_LIMIT)))
    if found is None:
        return None
    seconds = int(found[1] or found[2] or STATUS_TOKEN_SECONDS)
    return min(seconds, MAX_STATUS_TOKEN_SECONDS) or None


def etag_matches(headers: Headers, etag: str) -> bool:
    """Return True if `If-None-Match` has the tag (RFC 9110: weak comparison, `*` matches any)."""
    values = _joined(headers, b"if-none-match", _TAGS_LIMIT)
    return values.strip() == "*" or etag in _ETAG.findall(values)


def wants_stream(headers: Headers) -> bool:
    """Return True if the client prefers Server-Sent Events: `Accept` has them, and JSON with no higher weight."""
    weights: dict[str, float] = {}
    for part in _joined(headers, b"accept", _READ_LIMIT).split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights[media_type] = _quality(parameters)
    json = max((weights[name] for name in _JSON if name in weights), default=0.0)
    return weights.get(_EVENT_STREAM, 0.0) > 0 and weights[_EVENT_STREAM] >= json


def last_event_position(headers: Headers) -> int:
    """Return the position of the last event that the client has; 0 without `Last-Event-ID`.

    Raises:
        ApiError: `InvalidHeader`: no id of an event stream has this form.
    """
    value = single_value(headers, LAST_EVENT_ID)
    if not value:
        return 0
    if _POSITION.fullmatch(value) is None:
        message = f"{LAST_EVENT_ID} must be the id of an event of this stream, a whole number, not {value!r}"
        raise ApiError(ErrorCode.INVALID_HEADER, message, target=LAST_EVENT_ID)
    return int(value)


def _joined(headers: Headers, name: bytes, limit: int) -> str:
    return ",".join(headers.get(name, []))[:limit]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return float(value) if _QUALITY.fullmatch(value.strip()) else 0.0
    return 1.0
