"""What a client's call can raise. All errors derive from `OperationsError`, and each message names the next step.

The module imports no HTTP library, so importing an error to catch it is cheap.
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
    """The request can't be sent: a URL, target or operation id is not valid, or the input is not JSON."""


class TokenUnavailable(OperationsError):
    """The command, or the function, that should give a token gave none."""


class RequestRefused(OperationsError):
    """The service refused the request (4xx) and recorded nothing. It would refuse the same request again.

    Args:
        what: the request, as the message names it.
        status: the HTTP status.
        error: the error body (docs/contract.md, Errors); None if the response has none, so it is not from opstream.
    """

    def __init__(self, what: str, status: int, error: ErrorObject | None) -> None:
        self.status = status
        self.code = error.code if error else ""
        """One of the contract's codes, e.g. `InvalidInput`; empty without an error body."""
        self.message = error.message if error else ""
        self.target = error.target if error else ""
        """The wrong part of the request: a header or a path into the input; or empty."""
        self.details: tuple[ErrorDetail, ...] = error.details if error else ()
        if error is None:
            check = "the credentials" if status in _CREDENTIAL_STATUSES else "the URL"
            shown = describe_status(status)
            super().__init__(f"{what} was refused with {shown} by something that is not opstream: check {check}")
        else:
            super().__init__(f"{what} was refused: {describe_error(error)}")


class UnexpectedAnswer(OperationsError):
    """The response is not opstream's, or is broken: a redirect, no JSON, an internal error, a result of another type.

    Args:
        message: what is wrong, and what to check.
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServiceUnavailable(OperationsError):
    """No usable response came within the call's timeout, although the client tried again.

    Args:
        trouble: what the last try got instead.
        hint: what to do.
        operation_id: to get the status later, or to submit the same request again: both submits are one operation,
            whether an earlier try was recorded or not.
        retry_after: seconds, from the last `Retry-After`; None if there was none.
    """

    def __init__(self, trouble: str, hint: str, *, operation_id: str, retry_after: float | None = None) -> None:
        super().__init__(f"{trouble}: {hint}")
        self.trouble = trouble
        self.operation_id = operation_id
        self.retry_after = retry_after


class WaitTimeout(OperationsError, TimeoutError):
    """The operation did not end within the call's timeout. It goes on.

    Args:
        message: the operation's state, and what to do.
        operation_id: its id.
        operation: as last seen; None if there was no response.
    """

    def __init__(self, message: str, *, operation_id: str, operation: Operation | None) -> None:
        super().__init__(message)
        self.operation_id = operation_id
        self.operation = operation


def wait_timeout(operation_id: str, seen: Operation | None, seconds: float, trouble: str) -> WaitTimeout:
    """The error for a wait of some seconds: with the operation as last seen, and what was in the way, or nothing."""
    state = f"is {seen.status}" if seen else "was not seen"
    why = f" ({trouble})" if trouble else ""
    message = f"operation {operation_id} {state} after {seconds:g} s and goes on{why}: wait for it again, or cancel it"
    return WaitTimeout(message, operation_id=operation_id, operation=seen)


class OperationFailed(OperationsError):
    """The operation ended as Failed.

    Args:
        operation: as it ended.
    """

    def __init__(self, operation: Operation) -> None:
        error = operation.monitor.error
        self.operation = operation
        self.code: int | str = error.code if error else 500
        """The action's error code: a word that its author chose, or an HTTP status."""
        self.message = error.message if error else ""
        self.target = error.target if error else ""
        super().__init__(f"operation {operation.id} failed: {self.code}: {self.message}".rstrip(": "))


class OperationCanceled(OperationsError):
    """The operation ended as Canceled.

    Args:
        operation: as it ended.
        reason: given with the cancel request; empty if there was none or it could not be read.
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
