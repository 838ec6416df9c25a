"""Which operation a submit means: the id that its client brought, in either of two ways, or a new one. Pure.

OASIS Repeatable Requests 1.0 names a request by a pair of headers. The pair becomes an operation id, so that both ways
have one mechanism behind them: an id exists once, whoever asks again gets the same operation (contract.md, Submit).
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from opstream_api.errors import ApiError
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.names import check_operation_id

from .requests import Headers, single_value

OPERATION_ID: Final = "Operation-Id"
REPEATABILITY_REQUEST_ID: Final = "Repeatability-Request-ID"
REPEATABILITY_FIRST_SENT: Final = "Repeatability-First-Sent"
REPEATABILITY_RESULT: Final = "Repeatability-Result"

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")
_HTTP_DATE: Final = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} "
    r"[0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
)
"""IMF-fixdate (RFC 9110, Date/Time Formats)."""


class IdempotencyKey(msgspec.Struct, frozen=True, kw_only=True):
    """Which operation a submit means."""

    operation_id: str
    header: str
    """What named it; `Operation-Id` for an id that was made here, since that is how to ask again."""

    @property
    def is_repeatable(self) -> bool:
        """Whether the answer has to say `Repeatability-Result`."""
        return self.header == REPEATABILITY_REQUEST_ID


def uses_repeatability(headers: Headers) -> bool:
    """Whether a request asks for OASIS repeatability, be it wrongly."""
    return REPEATABILITY_REQUEST_ID.lower().encode() in headers or REPEATABILITY_FIRST_SENT.lower().encode() in headers


def parse_idempotency_key(headers: Headers, new_id: Callable[[], str]) -> IdempotencyKey:
    """The operation id of a submit; `new_id` draws one for a request that brings none.

    Raises:
        ApiError: `InvalidHeader`: outside of its grammar, sent twice, half a pair, or both ways at once.
    """
    own = single_value(headers, OPERATION_ID)
    if uses_repeatability(headers):
        if own is not None:
            raise _invalid(
                f"send either {OPERATION_ID} or {REPEATABILITY_REQUEST_ID}: each names the operation", OPERATION_ID
            )
        return IdempotencyKey(operation_id=_hash_pair(headers), header=REPEATABILITY_REQUEST_ID)
    if own is None:
        return IdempotencyKey(operation_id=new_id(), header=OPERATION_ID)
    try:
        return IdempotencyKey(operation_id=check_operation_id(own), header=OPERATION_ID)
    except InvalidName as error:
        raise _invalid(str(error), OPERATION_ID) from error


def _hash_pair(headers: Headers) -> str:
    request_id, first_sent = (
        single_value(headers, REPEATABILITY_REQUEST_ID),
        single_value(headers, REPEATABILITY_FIRST_SENT),
    )
    if request_id is None or first_sent is None:
        missing = REPEATABILITY_REQUEST_ID if request_id is None else REPEATABILITY_FIRST_SENT
        raise _invalid(
            f"{REPEATABILITY_REQUEST_ID} and {REPEATABILITY_FIRST_SENT} belong together, {missing} is missing", missing
        )
    if _REQUEST_ID.fullmatch(request_id) is None:
        raise _invalid(
            f"{REPEATABILITY_REQUEST_ID} must be 1 to 256 visible ASCII characters, best a UUID",
            REPEATABILITY_REQUEST_ID,
        )
    if not _is_http_date(first_sent):
        raise _invalid(
            f"{REPEATABILITY_FIRST_SENT} must be an HTTP date such as 'Tue, 24 Nov 2026 08:00:00 GMT', "
            f"not {first_sent!r}",
            REPEATABILITY_FIRST_SENT,
        )
    pair = f"{request_id}\n{first_sent}".encode()
    return urlsafe_b64encode(hashlib.sha256(pair).digest()).rstrip(b"=").decode()


def _is_http_date(text: str) -> bool:
    if _HTTP_DATE.fullmatch(text) is None:
        return False
    try:
        parsedate_to_datetime(text)
    except ValueError:
        return False
    return True


def _invalid(message: str, target: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_HEADER, message, target=target)
