"""What an operation is at one moment: the state that the fold (`operation.py`) gives, and the value in the view."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

import msgspec

from opstream_schemas.events import Instant, OperationError, Trace
from opstream_schemas.names import Kind

FOLD_VERSION: Final = 2
"""Raised whenever the fold gives another result for the same events; snapshots of another version are not trusted."""


class Status(StrEnum):
    """The states of a status monitor (Azure guidelines, long-running operations)."""

    NOT_STARTED = "NotStarted"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


TERMINAL_STATUSES: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED})


class LiveAttempt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The attempt that owns the outcome."""

    number: int
    runner: str
    token: str
    ticket: int
    lease: float


class Waiting(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """No attempt is live; another follows."""

    ticket: int
    """Ticket of the attempt that ended."""
    counted: bool
    retry_at: Instant
    sequence: int
    """Stream sequence of the `attempt-failed` event, which a wake names as the one that armed it."""


class CancelWish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client's wish that the operation stops."""

    by: str = ""
    reason: str = ""


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The state of one operation after `position` events. Also, encoded as JSON, the value in the view."""

    id: str
    resource: str
    resource_id: str = ""
    action: str
    action_version: int
    request_hash: str
    caller: str = ""
    trace: Trace | None = None
    status: Status
    created_at: Instant
    deadline: Instant
    retention: float
    """Seconds from its end for which it can be seen, whatever its outcome unless the next two say otherwise."""
    retention_failed: float = 0.0
    """Instead, if it has failed; 0: as `retention`."""
    retention_canceled: float = 0.0
    """Instead, if it was canceled; 0: as `retention`."""
    hold: str = ""
    attempt: int = 0
    """Number of the last attempt that started; 0 before the first."""
    uncounted: int = 0
    """Those that were handed back without using up one of `max_attempts`."""
    live: LiveAttempt | None = None
    waiting: Waiting | None = None
    attempt_error: OperationError | None = None
    """Why the last attempt failed, until an outcome follows."""
    started_at: Instant | None = None
    finished_at: Instant | None = None
    percent_complete: float | None = None
    message: str = ""
    cancel: CancelWish | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: OperationError | None = None
    reason: str = ""
    skipped: int = 0
    """Events of unknown types that a reader passed over; also whatever a forced end did (ADR 0014)."""
    position: int
    stream_sequence: int
    last_hash: str
    fold_version: int

    @property
    def kind(self) -> Kind:
        """The resource and action."""
        return Kind(self.resource, self.action)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow any more."""
        return self.status in TERMINAL_STATUSES

    @property
    def effective_retention(self) -> float:
        """Seconds from its end for which it can be seen: by its outcome, and while it has none the longest of all."""
        match self.status:
            case Status.SUCCEEDED:
                return self.retention
            case Status.FAILED:
                return self.retention_failed or self.retention
            case Status.CANCELED:
                return self.retention_canceled or self.retention
            case _:
                return max(self.retention, self.retention_failed, self.retention_canceled)

    @property
    def minimum_retention(self) -> float:
        """Seconds from its end for which it can be seen at the least, whatever its outcome is or will be."""
        return min(self.retention, self.retention_failed or math.inf, self.retention_canceled or math.inf)

    @property
    def attempts_used(self) -> int:
        """Attempts that count towards `max_attempts`."""
        return self.attempt - self.uncounted
