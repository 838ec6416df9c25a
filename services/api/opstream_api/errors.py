"""The errors of the HTTP interface: the status of each code, and the translation of journal errors.

Only this module knows which HTTP status a code has. `http/responses.py` builds the response of an `ApiError`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec

from opstream_journal import EventTooLarge, JournalError, JournalFull, JournalUnavailable
from opstream_journal.errors import KeyMissing, KeyUnusable, OperationErased
from opstream_journal.outage_log import OutageLog
from opstream_payloads.errors import PayloadError, StoreUnavailable
from opstream_schemas.errors import ErrorCode
from opstream_schemas.logs.access_log import DenialReason
from opstream_schemas.names import Kind
from opstream_schemas.status_monitor import ErrorBody, ErrorDetail, ErrorObject
from opstream_schemas.text import truncate_text

logger = logging.getLogger(__name__)

STATUS_OF: Final[Mapping[ErrorCode, int]] = MappingProxyType(
    {
        ErrorCode.INVALID_INPUT: 400,
        ErrorCode.INVALID_HEADER: 400,
        ErrorCode.INVALID_PARAMETER: 400,
        ErrorCode.OPERATION_ID_REUSED: 400,
        ErrorCode.REQUEST_ID_REUSED: 400,
        ErrorCode.UNAUTHENTICATED: 401,
        ErrorCode.CROSS_SITE_REQUEST: 403,
        ErrorCode.FORBIDDEN: 403,
        ErrorCode.SENDER_NOT_ALLOWED: 403,
        ErrorCode.UNKNOWN_ACTION: 404,
        ErrorCode.OPERATION_NOT_FOUND: 404,
        ErrorCode.NOT_FOUND: 404,
        ErrorCode.SCHEDULE_NOT_FOUND: 404,
        ErrorCode.INDEX_OFF: 404,
        ErrorCode.DELIVERY_NOT_FOUND: 404,
        ErrorCode.DEAD_LETTER_NOT_FOUND: 404,
        ErrorCode.PAYLOAD_NOT_FOUND: 404,
        ErrorCode.METHOD_NOT_ALLOWED: 405,
        ErrorCode.REQUEST_TIMEOUT: 408,
        ErrorCode.OPERATION_FINISHED: 409,
        ErrorCode.ACTION_SERVED: 409,
        ErrorCode.OPERATION_NOT_RETRIABLE: 409,
        ErrorCode.RESOURCE_BUSY: 409,
        ErrorCode.SIGNAL_TOO_LATE: 409,
        ErrorCode.SIGNAL_REPEATED: 409,
        ErrorCode.TOO_MANY_SIGNALS: 409,
        ErrorCode.HANDLING_FAILED: 409,
        ErrorCode.SCHEDULE_NAME_TAKEN: 409,
        ErrorCode.TOO_MANY_SCHEDULES: 409,
        ErrorCode.NOT_CONFIDENTIAL: 409,
        ErrorCode.OPERATION_OPEN: 409,
        ErrorCode.OPERATION_ERASED: 409,
        ErrorCode.PAYLOAD_TOO_LARGE: 413,
        ErrorCode.UNSUPPORTED_MEDIA_TYPE: 415,
        ErrorCode.RANGE_NOT_SATISFIABLE: 416,
        ErrorCode.UNKNOWN_HOST: 421,
        ErrorCode.TOO_MANY_REQUESTS: 429,
        ErrorCode.INTERNAL_ERROR: 500,
        ErrorCode.PAYLOAD_UNREADABLE: 500,
        ErrorCode.KEY_MISSING: 500,
        ErrorCode.JOURNAL_UNAVAILABLE: 503,
        ErrorCode.JOURNAL_FULL: 503,
        ErrorCode.ACTION_NOT_SERVED: 503,
        ErrorCode.TOO_MANY_CONNECTIONS: 503,
        ErrorCode.IDENTITY_PROVIDER_UNAVAILABLE: 503,
        ErrorCode.INDEX_UNAVAILABLE: 503,
        ErrorCode.SERVICE_NOT_RUNNING: 503,
        ErrorCode.PAYLOAD_STORE_UNAVAILABLE: 503,
        ErrorCode.KEYS_UNAVAILABLE: 503,
    }
)
"""The codes of error responses (docs/contract.md). The other codes appear only in a status monitor."""

JOURNAL_OUTAGE: Final = OutageLog(
    logger, "requests are answered with 503, the journal is unavailable", "the journal accepts requests again"
)
"""The requests of this process that failed for the journal. `Submitter` notes the next one that succeeds."""

_STORE_OUTAGE: Final = OutageLog(
    logger, "requests are answered with 503, the payload store is unavailable", "the payload store works again"
)
"""The requests of this process that failed for the payload store."""

RETRY_AFTER: Final[Mapping[ErrorCode, int]] = MappingProxyType(
    {
        ErrorCode.JOURNAL_UNAVAILABLE: 1,  # a broker restart or a leader election takes seconds
        ErrorCode.TOO_MANY_CONNECTIONS: 1,
        ErrorCode.IDENTITY_PROVIDER_UNAVAILABLE: 5,
        ErrorCode.INDEX_UNAVAILABLE: 2,
        ErrorCode.PAYLOAD_STORE_UNAVAILABLE: 2,
        ErrorCode.TOO_MANY_REQUESTS: 1,  # at least: a limit says it exactly
        ErrorCode.SERVICE_NOT_RUNNING: 30,  # an operator has to start it
        ErrorCode.ACTION_NOT_SERVED: 60,  # an operator has to start a runner
        ErrorCode.KEYS_UNAVAILABLE: 60,  # an operator has to give the service its keys
        ErrorCode.JOURNAL_FULL: 30,  # an operator has to make room, or events have to expire
    }
)
"""Whole seconds after which a retry makes sense."""

MESSAGE_LIMIT: Final = 512
"""Bytes of a message, so that a quoted part of the request can't make the response large."""
TARGET_LIMIT: Final = 256
"""Bytes of a target."""


class ApiError(Exception):
    """A request that gets an error response.

    Args:
        code: one of `STATUS_OF`.
        message: for a person; truncated to `MESSAGE_LIMIT`.
        target: the wrong part of the request: a header, a query parameter, a path into the input.
        details: each problem, if there are several.
        operation_id: the id of a submit, under which the same request can be sent again.
        headers: further headers of the response.
        denial: why a request is denied, for logs; None if the status and the credentials say it.
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
        denial: DenialReason | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.denial = denial
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
            self.headers.setdefault("Retry-After", str(RETRY_AFTER[code]))

    def with_id(self, stored_id: str, own_id: str) -> ApiError:
        """Return the same error with the client's own id of an operation where the stored one was."""
        error = self.body.error
        self.body = ErrorBody(error=msgspec.structs.replace(error, message=error.message.replace(stored_id, own_id)))
        return self

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS_OF[self.code]


def journal_error(error: JournalError, *, operation_id: str = "", is_repeatable: bool = False) -> ApiError:
    """Translate an error of the journal.

    Args:
        error: the journal's error. Its text goes to the log, not to the client.
        operation_id: id of a submit that may be sent again; empty for other requests.
        is_repeatable: True if the request's own headers name the operation (OASIS Repeatable Requests).
    """
    if isinstance(error, OperationErased):
        return ApiError(ErrorCode.OPERATION_ERASED, f"{error}, so nobody can compare or open it: use another id")
    if isinstance(error, KeyUnusable):
        return _key_error(error)
    if isinstance(error, EventTooLarge):
        return ApiError(ErrorCode.PAYLOAD_TOO_LARGE, "the request is larger than the journal accepts")
    again = _again(operation_id, is_repeatable=is_repeatable)
    if isinstance(error, JournalFull):
        message = f"the journal is full, so no new operation can be recorded now{again}"
        return ApiError(ErrorCode.JOURNAL_FULL, message, operation_id=operation_id)
    if isinstance(error, JournalUnavailable):
        JOURNAL_OUTAGE.failed(error)
    else:
        # A missing stream or an account's quota, for example: the operator has to act, the client can't.
        logger.error("the journal failed: %s", error)
    return ApiError(
        ErrorCode.JOURNAL_UNAVAILABLE, f"the journal did not answer in time{again}", operation_id=operation_id
    )


def payload_error(error: PayloadError, what: str, *, operation_id: str = "", is_repeatable: bool = False) -> ApiError:
    """Translate an error of the payload store.

    Args:
        error: its error. Its text goes to the log, not to the client.
        what: could not be done, as a sentence about the store.
        operation_id: as of `journal_error`.
        is_repeatable: as of `journal_error`.
    """
    if isinstance(error, StoreUnavailable):
        _STORE_OUTAGE.failed(error)
        message = f"the payload store did not answer, so {what}{_again(operation_id, is_repeatable=is_repeatable)}"
        return ApiError(ErrorCode.PAYLOAD_STORE_UNAVAILABLE, message, operation_id=operation_id)
    logger.error("%s: %s", what, error)
    return ApiError(ErrorCode.PAYLOAD_UNREADABLE, f"{what}: what was stored is not there as it was; the log says more")


def note_payload_success() -> None:
    """Note that the payload store has answered."""
    _STORE_OUTAGE.recovered()


def _key_error(error: KeyUnusable) -> ApiError:
    """Translate what is wrong with the key of a confidential operation. What it is goes to the log."""
    logger.error("a confidential operation can't be sealed or opened: %s", error)
    if isinstance(error, KeyMissing):
        return ApiError(ErrorCode.KEY_MISSING, "the key of this operation is lost, so it can't be opened; see the log")
    message = "this operation is confidential, and the service has no key for it now; its log says what to do"
    return ApiError(ErrorCode.KEYS_UNAVAILABLE, message)


def action_not_served(kind: Kind, since: datetime, *, operation_id: str, is_repeatable: bool) -> ApiError:
    """The error for a submit of an action that has had no runner for longer than the service accepts.

    Args:
        kind: the action.
        since: when it had one last.
        operation_id: id of the submit, which may be sent again.
        is_repeatable: as of `journal_error`.
    """
    message = f"{kind} has had no runner since {since:%Y-%m-%dT%H:%M:%SZ}, and its operator has to start one"
    message += _again(operation_id, is_repeatable=is_repeatable)
    return ApiError(ErrorCode.ACTION_NOT_SERVED, message, operation_id=operation_id)


def _again(operation_id: str, *, is_repeatable: bool) -> str:
    if is_repeatable:
        return ": send the same request again, with the same Repeatability headers"
    return f": send the same request again with the header 'Operation-Id: {operation_id}'" if operation_id else ""


def operation_not_found() -> ApiError:
    """The error for an id that no operation has, or none any more."""
    return ApiError(ErrorCode.OPERATION_NOT_FOUND, "there is no such operation, or its retention is over")


def operation_unreadable(operation_id: str, error: Exception) -> ApiError:
    """The error for an operation whose events can't be folded. It also logs the cause."""
    logger.error("operation %s can't be read: %s", operation_id, error)
    return ApiError(ErrorCode.INTERNAL_ERROR, f"operation {operation_id} can't be read; the log says why")


def unauthenticated(challenge: str, denial: DenialReason | None = None) -> ApiError:
    """The error for a request without valid credentials: the same for those that are unknown, expired or revoked.

    Args:
        challenge: the value of `WWW-Authenticate` (RFC 9110, RFC 6750).
        denial: as `ApiError`.
    """
    return ApiError(
        ErrorCode.UNAUTHENTICATED,
        "this service needs valid credentials in the header 'Authorization: Bearer …': its operator gives them out",
        target="Authorization",
        headers={"WWW-Authenticate": challenge},
        denial=denial,
    )


def forbidden(scope: str, what: str) -> ApiError:
    """The error for a request whose credentials are valid, and lack a scope (RFC 6750, `insufficient_scope`).

    Args:
        scope: the narrowest scope that would allow it.
        what: what it would allow, as the object of "to".
    """
    return ApiError(
        ErrorCode.FORBIDDEN,
        f"these credentials need the scope {scope} to {what}: the service's operator can give it",
        target="Authorization",
        headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
    )


def too_many_requests(message: str, seconds: float, denial: DenialReason) -> ApiError:
    """The error for a caller that is over one of its limits, with the time until it is not (RFC 6585).

    Args:
        message: which limit.
        seconds: to wait; a fraction counts as a whole second, as `Retry-After` has no fractions.
        denial: which limit, in a word.
    """
    wait = max(1, math.ceil(seconds))
    return ApiError(ErrorCode.TOO_MANY_REQUESTS, message, headers={"Retry-After": str(wait)}, denial=denial)


def not_found() -> ApiError:
    """The error for an unknown path."""
    return ApiError(
        ErrorCode.NOT_FOUND,
        "there is nothing here: submit with POST /{resource}/{id}:{action} or POST /{resource}:{action}, "
        "read with GET /status/{operation-id}; /openapi.json lists the actions",
    )


def method_not_allowed(allow: str) -> ApiError:
    """The error for a known path with other methods, which `allow` lists."""
    return ApiError(ErrorCode.METHOD_NOT_ALLOWED, f"this path takes {allow} only", headers={"Allow": allow})
