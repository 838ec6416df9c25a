"""The paths of submits, from the bytes of the request line. Pure; called by `app.py`.

A framework's decoded path will not do: it no longer tells `/` from `%2F`, and hides what was not UTF-8.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from opstream_api.errors import ApiError, not_found
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.names import Kind, check_resource_id

_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


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
    *resources, last = (_decode(segment) for segment in segments[1:])
    name, colon, action = last.rpartition(":")
    if not colon:
        raise not_found()
    try:
        kind = Kind.parse(f"{resources[0] if resources else name}:{action}")
    except InvalidName:
        raise not_found() from None
    if not resources:
        return SubmitPath(kind, "")
    try:
        return SubmitPath(kind, check_resource_id(name))
    except InvalidName as error:
        raise ApiError(ErrorCode.INVALID_PARAMETER, str(error), target="id") from error


def _decode(segment: bytes) -> str:
    if _BROKEN_ESCAPE.search(segment):
        raise ApiError(ErrorCode.INVALID_PARAMETER, "the path holds a '%' that no two hexadecimal digits follow")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise ApiError(ErrorCode.INVALID_PARAMETER, "the path is not UTF-8 after percent-decoding") from error
