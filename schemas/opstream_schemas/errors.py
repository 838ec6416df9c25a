"""Errors of names, events, folds and decisions, and the error codes of the HTTP contract.

Every error of this package derives from `SchemasError`. No HTTP status appears here: the API maps codes to statuses in
one place.
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
    OPERATION_NOT_RETRIABLE = "OperationNotRetriable"
    RESOURCE_BUSY = "ResourceBusy"
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    UNSUPPORTED_MEDIA_TYPE = "UnsupportedMediaType"
    JOURNAL_UNAVAILABLE = "JournalUnavailable"
    JOURNAL_FULL = "JournalFull"
    INTERNAL_ERROR = "InternalError"
    RESULT_TOO_LARGE = "ResultTooLarge"
    INVALID_RESULT = "InvalidResult"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    RUNNER_LOST = "RunnerLost"
    RUNNER_STOPPED = "RunnerStopped"
    ATTEMPT_TIMED_OUT = "AttemptTimedOut"
    FAILED_BY_OPERATOR = "FailedByOperator"
    CROSS_SITE_REQUEST = "CrossSiteRequest"
    UNKNOWN_HOST = "UnknownHost"
    REQUEST_TIMEOUT = "RequestTimeout"
    TOO_MANY_CONNECTIONS = "TooManyConnections"
    UNAUTHENTICATED = "Unauthenticated"
    FORBIDDEN = "Forbidden"
    IDENTITY_PROVIDER_UNAVAILABLE = "IdentityProviderUnavailable"
    TOO_MANY_REQUESTS = "TooManyRequests"
    ACTION_NOT_SERVED = "ActionNotServed"
    SCHEDULE_NOT_FOUND = "ScheduleNotFound"
    ACTION_SERVED = "ActionServed"
    SCHEDULE_NAME_TAKEN = "ScheduleNameTaken"
    TOO_MANY_SCHEDULES = "TooManySchedules"
    INDEX_OFF = "IndexOff"
    INDEX_UNAVAILABLE = "IndexUnavailable"
    DELIVERY_NOT_FOUND = "DeliveryNotFound"
    DEAD_LETTER_NOT_FOUND = "DeadLetterNotFound"
    HANDLING_FAILED = "HandlingFailed"
    SERVICE_NOT_RUNNING = "ServiceNotRunning"
    INVALID_STEP = "InvalidStep"
    STEP_INPUT_CHANGED = "StepInputChanged"
    STEP_INTERRUPTED = "StepInterrupted"
    STEP_RESULT_TOO_LARGE = "StepResultTooLarge"
    INVALID_WAIT = "InvalidWait"
    WAIT_TIMED_OUT = "WaitTimedOut"
    REQUEST_ID_REUSED = "RequestIdReused"
    SIGNAL_TOO_LATE = "SignalTooLate"
    SIGNAL_REPEATED = "SignalRepeated"
    SENDER_NOT_ALLOWED = "SenderNotAllowed"
    TOO_MANY_SIGNALS = "TooManySignals"
    PAYLOAD_STORE_UNAVAILABLE = "PayloadStoreUnavailable"
    PAYLOAD_UNREADABLE = "PayloadUnreadable"
    PAYLOAD_NOT_FOUND = "PayloadNotFound"
    RANGE_NOT_SATISFIABLE = "RangeNotSatisfiable"
    CHILD_FAILED = "ChildFailed"
    CHILD_REFUSED = "ChildRefused"
    NOT_CONFIDENTIAL = "NotConfidential"
    OPERATION_OPEN = "OperationOpen"
    OPERATION_ERASED = "OperationErased"
    KEY_MISSING = "KeyMissing"
    KEYS_UNAVAILABLE = "KeysUnavailable"


class SchemasError(Exception):
    """The base of every error in this package."""


class InvalidName(SchemasError, ValueError):
    """A name, id or subject does not match its grammar. The message says which, and what is allowed."""


class InvalidEvent(SchemasError, ValueError):
    """Stored bytes are not an event of this contract."""


class FoldRefused(SchemasError):
    """An event does not continue the operation: it is foreign, damaged, or newer than this code."""


class DecisionRefused(SchemasError):
    """The state of the operation does not allow the command."""


class OperationExists(DecisionRefused):
    """An operation with this id exists already."""


class OperationFinished(DecisionRefused):
    """The operation has an outcome, which never changes."""


class TooManyFiles(DecisionRefused):
    """The operation has as many files as it may have."""


class AttemptFenced(DecisionRefused):
    """The attempt is no longer the live one: a later attempt owns the outcome."""


class SealBroken(SchemasError):
    """A sealed value, or a wrapped key, can't be opened: it belongs to another key, or was changed."""


class InvalidKek(SchemasError, ValueError):
    """What should be key-encryption keys is something else."""


class UnknownKek(SchemasError):
    """The key of an operation is wrapped by a key-encryption key that the process does not have."""
