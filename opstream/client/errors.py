"""What a client's call can raise. Everything derives from `OperationsError`, and every message names the next step.

Raised by the flows of this package. None of them needs an HTTP library, so catching them costs no import.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from opstream_schemas.status_monitor import ErrorDetail, ErrorObject

if TYPE_CHECKING:
    from .models import Operation

_CREDENTIAL_STATUSES: Final = frozenset({401, 403, 407})


class OperationsError(Exception):
    """Base of all errors of the client."""


class InvalidRequest(OperationsError, ValueError):
    """It can't even be sent: a URL, target or operation id outside of its grammar, an input that is not JSON."""


class RequestRefused(OperationsError):
    """The service refused the request (4xx). Sending the same again is refused again; nothing was recorded for it.

    Args:
        what: what was asked for.
        status: the HTTP status.
        error: the error body (contract.md, Errors); None where the answer has none, so it was not opstream's.
    """

    def __init__(self, what: str, status: int, error: ErrorObject | None) -> None:
        self.status = status
        self.code = error.code if error else ""
        """One of the contract's codes, e.g. `InvalidInput`; empty without an error body."""
        self.message = error.message if error else ""
        self.target = error.target if error else ""
        """What of the request is wrong: a header, a path into the input; or empty."""
        self.details: tuple[ErrorDetail, ...] = error.details if error else ()
        if error is None:
            check = "the credentials" if status in _CREDENTIAL_STATUSES else "the URL"
            told = describe_status(status)
            super().__init__(f"{what} was refused with {told} by something that is not opstream: check {check}")
        else:
            super().__init__(f"{what} was refused: {describe_error(error)}")


class UnexpectedAnswer(OperationsError):
    """What answered is not opstream, or is broken: a redirect, no JSON, an internal error, a result of another type.

    Args:
        message: what is odd, and what to check.
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServiceUnavailable(OperationsError):
    """No usable answer came within the time of the call, however often it was asked.

    Args:
        trouble: what came instead, the last time.
        hint: what to do.
        operation_id: the id that can be asked for later, and for a submit sent again with the same request: it is one
            operation then, whether an earlier try had been recorded or not.
        retry_after: seconds that the service last asked to wait; None if it did not.
    """

    def __init__(self, trouble: str, hint: str, *, operation_id: str, retry_after: float | None = None) -> None:
        super().__init__(f"{trouble}: {hint}")
        self.trouble = trouble
        self.operation_id = operation_id
        self.retry_after = retry_after


class WaitTimeout(OperationsError, TimeoutError):
    """The operation had not ended when the time of the call was up. It goes on.

    Args:
        message: how far it was, and what to do.
        operation_id: its id.
        operation: as it was seen last; None if the service never answered.
    """

    def __init__(self, message: str, *, operation_id: str, operation: Operation | None) -> None:
        super().__init__(message)
        self.operation_id = operation_id
        self.operation = operation


class OperationFailed(OperationsError):
    """The operation ended as Failed.

    Args:
        operation: as it ended.
    """

    def __init__(self, operation: Operation) -> None:
        error = operation.monitor.error
        self.operation = operation
        self.code: int | str = error.code if error else 500
        """What the action failed with: a word of its author's or an HTTP status."""
        self.message = error.message if error else ""
        self.target = error.target if error else ""
        super().__init__(f"operation {operation.id} failed: {self.code}: {self.message}".rstrip(": "))


class OperationCanceled(OperationsError):
    """The operation ended as Canceled.

    Args:
        operation: as it ended.
        reason: of whoever canceled it; empty if none was given or it could not be read.
    """

    def __init__(self, operation: Operation, reason: str) -> None:
        self.operation = operation
        self.reason = reason
        super().__init__(f"operation {operation.id} was canceled{f': {reason}' if reason else ''}")


def describe_status(status: int) -> str:
    """An HTTP status with its name, e.g. `404 Not Found`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def describe_error(error: ErrorObject) -> str:
    """An error body in one line."""
    place = f" ({error.target})" if error.target else ""
    more = "; ".join(f"{one.message}{f' ({one.target})' if one.target else ''}" for one in error.details[1:])
    return f"{error.code}: {error.message}{place}{f'; {more}' if more else ''}"
