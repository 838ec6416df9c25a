"""A signal as HTTP brings it. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from opstream_api.errors import not_found
from opstream_api.http.requests import Headers
from opstream_api.http.submit_request import repeatability_hash, uses_repeatability
from opstream_api.inputs.input_validation import decode_input
from opstream_schemas.errors import InvalidName
from opstream_schemas.events import Signaled
from opstream_schemas.names import check_signal_name

VIA_URL = "url"
"""`Signaled.via` of a signal that came by the URL of its wait."""


class SignalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A signal whose path, headers and body are readable. Whether it fits is for the operation to say."""

    name: str
    document: bytes
    """The payload, JSON."""
    value: Any
    """The same, decoded."""
    by: str = ""
    """Who sends it; empty for an unknown sender."""
    request_id: str = ""
    """A hash of the Repeatability headers, or the wait whose URL was called; empty without both."""
    wait: int = 0
    """Stream sequence of the wait whose URL was called; 0 for any other request."""
    is_proven: bool = False
    """True if credentials have proven who sends it."""

    def data(self, document: bytes) -> Signaled:
        """Return the data of its event.

        Args:
            document: the payload as it is to be recorded: the same value.
        """
        request_hash = ""
        if self.request_id:
            said = {"name": self.name, "payload": self.value, "by": self.by}
            request_hash = hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()
        return Signaled(
            signal=self.name,
            payload=msgspec.Raw(document),
            by=self.by,
            via=VIA_URL if self.wait else "",
            request_id=self.request_id,
            request_hash=request_hash,
        )


def parse_signal_name(name: str) -> str:
    """Return the name of a signal in a path.

    Raises:
        ApiError: `NotFound`: there can be no such signal.
    """
    try:
        return check_signal_name(name)
    except InvalidName as error:
        raise not_found() from error


def parse_signal(name: str, headers: Headers, body: bytes, *, by: str, is_proven: bool, wait: int = 0) -> SignalRequest:
    """Read what a request sends.

    Args:
        name: of the signal, checked.
        headers: of the request.
        body: the payload; an empty one is `{}`.
        by: who sends it; empty for an unknown sender.
        is_proven: whether credentials have proven that.
        wait: see `SignalRequest`.

    Raises:
        ApiError: `InvalidHeader`, `InvalidInput`.
    """
    request_id = repeatability_hash(headers) if uses_repeatability(headers) else ""
    if wait:
        # A URL works once: a further call, with these headers or others, repeats the request.
        request_id = hashlib.sha256(f"wait {wait}".encode()).hexdigest()
    document, value = decode_input(body)
    return SignalRequest(
        name=name, document=document, value=value, by=by, request_id=request_id, wait=wait, is_proven=is_proven
    )
