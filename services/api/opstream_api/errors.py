"""Everything that an answer other than success can be: codes, their HTTP statuses, and how journal errors translate.

Raised anywhere in this package, turned into answers in `answers.py`. The only place that knows which HTTP status a
code has.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from opstream_journal import EventTooLarge, JournalError, JournalFull, JournalUnavailable
from opstream_schemas.errors import ErrorCode
from opstream_schemas.status_monitor import ErrorBody, ErrorDetail, ErrorObject
from opstream_schemas.text import truncate_text

logger = logging.getLogger(__name__)

STATUS_OF: Final[Mapping[ErrorCode, int]] = MappingProxyType(
    {
        ErrorCode.INVALID_INPUT: 400,
        ErrorCode.INVALID_HEADER: 400,
        ErrorCode.INVALID_PARAMETER: 400,
        ErrorCode.OPERATION_ID_REUSED: 400,
        ErrorCode.UNKNOWN_ACTION: 404,
        ErrorCode.OPERATION_NOT_FOUND: 404,
        ErrorCode.NOT_FOUND: 404,
        ErrorCode.METHOD_NOT_ALLOWED: 405,
        ErrorCode.OPERATION_FINISHED: 409,
        ErrorCode.RESOURCE_BUSY: 409,
        ErrorCode.PAYLOAD_TOO_LARGE: 413,
        ErrorCode.UNSUPPORTED_MEDIA_TYPE: 415,
        ErrorCode.INTERNAL_ERROR: 500,
        ErrorCode.JOURNAL_UNAVAILABLE: 503,
        ErrorCode.JOURNAL_FULL: 503,
    }
)
"""The codes that answer a request (contract.md, Errors). The others appear only inside of a status monitor."""

RETRY_AFTER: Final[Mapping[ErrorCode, int]] = MappingProxyType(
    {
        ErrorCode.JOURNAL_UNAVAILABLE: 1,  # a broker restart or an election is over in seconds
        ErrorCode.JOURNAL_FULL: 30,  # somebody has to make room, or events have to expire
    }
)
"""Whole seconds after which asking again makes sense."""

MESSAGE_LIMIT: Final = 512
"""Bytes of a message; whatever a client sent that is quoted in one can't make the answer large."""
TARGET_LIMIT: Final = 256
"""Bytes of a target."""


class ApiError(Exception):
    """A request that is answered with an error body.

    Args:
        code: one of `STATUS_OF`.
        message: for a person; cut at `MESSAGE_LIMIT`.
        target: what of the request is wrong: a header, a query parameter, a path into the input.
        details: the problems one by one, where there are several.
        operation_id: the id that a submit tried and that is safe to send again.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        target: str = "",
        details: tuple[ErrorDetail, ...] = (),
        operation_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.body = ErrorBody(
            error=ErrorObject(
                code=code,
                message=truncate_text(message, MESSAGE_LIMIT),
                target=truncate_text(target, TARGET_LIMIT),
                details=details,
                operation_id=operation_id,
            )
        )
        self.headers = dict(headers or {})
        if code in RETRY_AFTER:
            self.headers["Retry-After"] = str(RETRY_AFTER[code])

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS_OF[self.code]


def journal_error(error: JournalError, *, operation_id: str = "", is_repeatable: bool = False) -> ApiError:
    """How a client sees that the journal failed.

    Args:
        error: what the journal raised; its text goes to the log, not to the client.
        operation_id: of a submit that may be sent again; empty for a read.
        is_repeatable: whether its own headers name the operation already (OASIS Repeatable Requests).
    """
    if isinstance(error, EventTooLarge):
        return ApiError(ErrorCode.PAYLOAD_TOO_LARGE, "the request is larger than the journal takes")
    again = ": send the same request again, with the same Repeatability headers"
    if not is_repeatable:
        again = f": send the same request again with the header 'Operation-Id: {operation_id}'" if operation_id else ""
    if isinstance(error, JournalFull):
        message = f"the journal is full, so no new operation can be recorded now{again}"
        return ApiError(ErrorCode.JOURNAL_FULL, message, operation_id=operation_id)
    if isinstance(error, JournalUnavailable):
        logger.info("the journal is unavailable: %s", error)
    else:
        # A stream that is gone, a quota of the account: nothing that the client can change, but the operator must.
        logger.error("the journal failed: %s", error)
    return ApiError(
        ErrorCode.JOURNAL_UNAVAILABLE, f"the journal did not answer in time{again}", operation_id=operation_id
    )


def operation_not_found() -> ApiError:
    """An id that no operation has, any more."""
    return ApiError(ErrorCode.OPERATION_NOT_FOUND, "there is no such operation, or its retention is over")


def operation_unreadable(operation_id: str, error: Exception) -> ApiError:
    """An operation whose events can't be folded."""
    logger.error("operation %s can't be read: %s", operation_id, error)
    return ApiError(ErrorCode.INTERNAL_ERROR, f"operation {operation_id} can't be read; the log says why")


def not_found() -> ApiError:
    """A path that is nothing."""
    return ApiError(
        ErrorCode.NOT_FOUND,
        "there is nothing here: submit with POST /{resource}/{id}:{action} or POST /{resource}:{action}, "
        "read with GET /status/{operation-id}; /openapi.json lists the actions",
    )


def method_not_allowed(allow: str) -> ApiError:
    """A path that has other methods; `allow` lists them."""
    return ApiError(ErrorCode.METHOD_NOT_ALLOWED, f"this path takes {allow} only", headers={"Allow": allow})
