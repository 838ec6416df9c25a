"""What can be wrong with names, events, folds and decisions, and the error codes of the HTTP contract.

Everything that `opstream_schemas` raises derives from `SchemasError`. No HTTP status appears here: the API maps
codes to statuses in one place.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Stable, append-only codes that a client may see (docs/contract.md, Errors)."""

    INVALID_INPUT = "InvalidInput"
    INVALID_HEADER = "InvalidHeader"
    INVALID_PARAMETER = "InvalidParameter"
    OPERATION_ID_REUSED = "OperationIdReused"
    UNKNOWN_ACTION = "UnknownAction"
    OPERATION_NOT_FOUND = "OperationNotFound"
    NOT_FOUND = "NotFound"
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    OPERATION_FINISHED = "OperationFinished"
    RESOURCE_BUSY = "ResourceBusy"
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    UNSUPPORTED_MEDIA_TYPE = "UnsupportedMediaType"
    JOURNAL_UNAVAILABLE = "JournalUnavailable"
    JOURNAL_FULL = "JournalFull"
    INTERNAL_ERROR = "InternalError"
    RESULT_TOO_LARGE = "ResultTooLarge"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    RUNNER_LOST = "RunnerLost"
    RUNNER_STOPPED = "RunnerStopped"
    ATTEMPT_TIMED_OUT = "AttemptTimedOut"
    FAILED_BY_OPERATOR = "FailedByOperator"


class SchemasError(Exception):
    """Base of every error in this package."""


class InvalidName(SchemasError, ValueError):
    """A name, id or subject is outside its grammar; the message says which and what is allowed."""


class InvalidEvent(SchemasError, ValueError):
    """Stored bytes are not an event of this contract."""


class FoldRefused(SchemasError):
    """An event does not continue the operation it was folded onto (foreign, damaged or newer than this code)."""


class DecisionRefused(SchemasError):
    """A command can't be carried out in the operation's state."""


class OperationExists(DecisionRefused):
    """An operation with this id has been requested before."""


class OperationFinished(DecisionRefused):
    """The operation has reached a terminal state, which is never left."""


class AttemptFenced(DecisionRefused):
    """The attempt is not the operation's live one any more: a later attempt owns the outcome."""
