"""The header `Range` (RFC 9110, 14): one range of bytes. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from opstream_api.errors import ApiError
from opstream_schemas.errors import ErrorCode

_RANGE: Final = re.compile(r"bytes=\s*(?:([0-9]{1,15})-([0-9]{0,15})|-([0-9]{1,15}))\s*", re.IGNORECASE)


class ByteRange(NamedTuple):
    """A part of a payload."""

    start: int
    """The first byte, from 0."""
    length: int

    def content_range(self, size: int) -> str:
        """Return the value of `Content-Range`."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def parse_range(text: str | None, size: int) -> ByteRange | None:
    """Return the part that a request asks for; None for the whole.

    Several ranges, and what is no range, ask for the whole, as RFC 9110 allows.

    Args:
        text: the value of `Range`; None without one.
        size: bytes of the payload.

    Raises:
        ApiError: `RangeNotSatisfiable`: the payload ends before it begins.
    """
    found = None if text is None else _RANGE.fullmatch(text)
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        length = min(int(suffix), size)
        start = size - length
    else:
        start = int(first)
        end = min(int(last) if last else size - 1, size - 1)
        if last and int(last) < start:
            return None
        length = end - start + 1
    if length <= 0:
        message = f"the payload has {size} bytes, and the range {text!r} has none of them"
        raise ApiError(
            ErrorCode.RANGE_NOT_SATISFIABLE, message, target="Range", headers={"Content-Range": f"bytes */{size}"}
        )
    return ByteRange(start, length)
