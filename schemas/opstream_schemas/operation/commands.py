"""Commands, and `decide`: an operation and a command to the next event, or to an error. Pure.

The caller loads the operation, decides, and appends with the loaded stream sequence as the expected version. After a
conflict it loads and decides again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from opstream_schemas.bulk.records import BulkProgress
from opstream_schemas.errors import (
    AttemptFenced,
    DecisionRefused,
    ErrorCode,
    OperationExists,
    OperationFinished,
    TooManyFiles,
)
from opstream_schemas.event_types.claims import MAX_ATTACHMENTS, Attachment
from opstream_schemas.events import (
    Attached,
    AttemptFailed,
    Canceled,
    CancelRequested,
    CleanUpBegun,
    EventData,
    Failed,
    OperationError,
    Progressed,
    Requested,
    Started,
    StepFailed,
    StepStarted,
    StepSucceeded,
    Succeeded,
    WaitBegun,
)
from opstream_schemas.payloads.payload_ref import PayloadRef
from opstream_schemas.text import truncate_text

from .state import CancelWish, Operation, Status

CODE_LIMIT: Final = 256
"""Bytes of UTF-8 that an error's code may have; a longer one is cut."""
_TARGET_LIMIT: Final = 256


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all commands."""


class RequestAction(Command, frozen=True, kw_only=True):
    """Begin an operation."""

    requested: Requested


class StartAttempt(Command, frozen=True, kw_only=True):
    """Start an attempt, which then owns the outcome."""

    runner: str
    token: str
    ticket: int
    lease: float
    clean_up: bool = False
    """See `Started.clean_up`."""


class ReportProgress(Command, frozen=True, kw_only=True):
    """Record how far the attempt is: percent from 0 to 100, and a text."""

    token: str
    percent: float
    message: str = ""
    bulk: BulkProgress | None = None
    """Of a bulk operation."""


class RecordStep(Command, frozen=True, kw_only=True):
    """Record what became of a step of the attempt."""

    token: str
    data: StepStarted | StepSucceeded | StepFailed | CleanUpBegun
    """A `CleanUpBegun` of an operation that nobody cancels records nothing: its handler stops for another reason."""


class BeginWait(Command, frozen=True, kw_only=True):
    """End the attempt, because its action waits. Another one goes on behind the wait."""

    token: str
    data: WaitBegun


class AttachFile(Command, frozen=True, kw_only=True):
    """Add a file to the operation. It is stored already."""

    token: str
    file: Attachment


class Succeed(Command, frozen=True, kw_only=True):
    """End the operation with the result of its action."""

    token: str
    result: bytes
    """JSON."""
    payload: PayloadRef | None = None
    """Where the result is, if it is stored as a payload; None to record it in the event."""


class Fail(Command, frozen=True, kw_only=True):
    """End the operation with an error of its action."""

    token: str
    error: OperationError


class FailAttempt(Command, frozen=True, kw_only=True):
    """End the attempt without an outcome, so that another one follows."""

    token: str
    error: OperationError
    retry_at: datetime
    counted: bool


class ConfirmCancel(Command, frozen=True, kw_only=True):
    """End the operation as canceled: the attempt has stopped, as a client had asked."""

    token: str


class RequestCancel(Command, frozen=True, kw_only=True):
    """Ask the operation to stop. It ends at once if no attempt is running, and none has to clean up."""

    by: str = ""
    reason: str = ""


class FailOperation(Command, frozen=True, kw_only=True):
    """End the operation with an error that comes from no attempt (a deadline, an operator)."""

    error: OperationError


def decide(operation: Operation | None, command: Command) -> EventData | None:
    """Return the data of the event that the command causes; None if the operation is in that state already.

    Args:
        operation: its folded state; None if it has no events.
        command: what is asked of it.

    Raises:
        OperationExists: the command is a request, and the id is taken.
        OperationFinished: the operation has an outcome.
        AttemptFenced: the command belongs to an attempt that is not the live one.
        DecisionRefused: there is no such operation, or another attempt is live.
    """
    if isinstance(command, RequestAction):
        if operation is not None:
            raise OperationExists(f"operation {operation.id} exists")
        return command.requested
    if operation is None:
        raise DecisionRefused("no such operation")
    if operation.is_terminal:
        if isinstance(command, RequestCancel) and operation.status is Status.CANCELED:
            return None
        raise OperationFinished(f"operation {operation.id} is {operation.status}")
    return _decide_open(operation, command)


def _decide_open(operation: Operation, command: Command) -> EventData | None:
    # Make the data exactly as it will be decoded (floats, no space around JSON): folding the event that was appended
    # and folding the one that is read back must give the same bytes.
    match command:
        case StartAttempt():
            if operation.live is not None and operation.live.ticket != command.ticket:
                raise DecisionRefused(f"attempt {operation.attempt} of operation {operation.id} is already running")
            return Started(
                attempt=operation.attempt + 1,
                runner=command.runner,
                token=command.token,
                ticket=command.ticket,
                lease=float(command.lease),
                clean_up=command.clean_up,
            )
        case ReportProgress():
            _check_live(operation, command.token)
            message = truncate_text(command.message)
            return Progressed(percent=float(command.percent), message=message, bulk=command.bulk)
        case RecordStep(data=CleanUpBegun()) if operation.cancel is None:
            _check_live(operation, command.token)
            return None
        case RecordStep(data=data):
            return msgspec.structs.replace(data, attempt=_check_live(operation, command.token))
        case BeginWait(data=wait):
            return msgspec.structs.replace(wait, attempt=_check_live(operation, command.token))
        case AttachFile():
            number = _check_live(operation, command.token)
            file = command.file
            names = {one.file_name for one in operation.attachments} | {file.file_name}
            if len(names) > MAX_ATTACHMENTS:
                raise TooManyFiles(f"operation {operation.id} has {MAX_ATTACHMENTS} files, and can't have more")
            return Attached(attempt=number, file_name=file.file_name, media_type=file.media_type, payload=file.payload)
        case Succeed():
            _check_live(operation, command.token)
            if command.payload is not None:
                return Succeeded(result_payload=command.payload)
            return Succeeded(result=msgspec.Raw(command.result.strip()))
        case Fail():
            _check_live(operation, command.token)
            return Failed(error=truncate_error(command.error))
        case FailAttempt():
            number = _check_live(operation, command.token)
            return AttemptFailed(
                attempt=number,
                error=truncate_error(command.error),
                retry_at=command.retry_at,
                counted=command.counted,
            )
        case ConfirmCancel():
            _check_live(operation, command.token)
            return canceled_outcome(operation)
        case RequestCancel():
            if operation.live is None and not operation.cleans_up:
                return Canceled(by=truncate_text(command.by), reason=truncate_text(command.reason))
            if operation.cancel is not None:
                return None
            return CancelRequested(by=truncate_text(command.by), reason=truncate_text(command.reason))
        case FailOperation():
            return Failed(error=truncate_error(command.error))
        case _:
            raise DecisionRefused(f"unknown command {type(command).__name__}")


def canceled_outcome(operation: Operation) -> Canceled:
    """Return the outcome of an operation that stopped at a client's request."""
    request = operation.cancel or CancelWish()
    return Canceled(by=request.by, reason=request.reason)


def deadline_outcome(operation: Operation) -> Failed:
    """Return the outcome of an operation that missed its deadline."""
    message = f"the operation did not finish by its deadline, {msgspec.to_builtins(operation.deadline)}"
    return Failed(error=OperationError(code=ErrorCode.DEADLINE_EXCEEDED, message=message))


def runner_lost_outcome(operation: Operation) -> Failed:
    """Return the outcome of an operation whose last attempt was lost with its runner."""
    message = f"the last of {operation.attempts_used} attempts ended with the runner that executed it"
    return Failed(error=OperationError(code=ErrorCode.RUNNER_LOST, message=message))


def operator_error(reason: str) -> OperationError:
    """Return the error of an operation that an operator ended."""
    message = "an operator ended the operation"
    return OperationError(code=ErrorCode.FAILED_BY_OPERATOR, message=f"{message}: {reason}" if reason else message)


def truncate_error(error: OperationError) -> OperationError:
    """Return the error with its texts cut to the length that an event may hold."""
    code = truncate_text(error.code, CODE_LIMIT) if isinstance(error.code, str) else error.code
    target = truncate_text(error.target, _TARGET_LIMIT)
    return OperationError(code=code, message=truncate_text(error.message), target=target)


def _check_live(operation: Operation, token: str) -> int:
    if operation.live is None or operation.live.token != token:
        raise AttemptFenced(
            f"operation {operation.id} is at attempt {operation.attempt}, and the command comes from another one"
        )
    return operation.live.number
