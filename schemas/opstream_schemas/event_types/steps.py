"""The events of steps: parts of an attempt whose results a later attempt uses (docs/adr/0068)."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from opstream_schemas.payloads.payload_ref import PayloadRef

from .base import EventData, OperationError


class _StepData(EventData, frozen=True, kw_only=True):
    """What the events of steps share."""

    attempt: int
    step: str = msgspec.field(name="name")
    """The name that the action gives it; with `key` it is unique within an attempt."""
    key: str = ""
    """Which of several steps of the name; empty for the only one."""
    input_hash: str
    """SHA-256 (hex) of the JSON of its arguments."""


class StepStarted(_StepData, frozen=True, kw_only=True):
    """A step that must run at most once, or children, are about to begin."""

    name: ClassVar[str] = "step-started"
    type: ClassVar[str] = "opstream.action.step-started.v1"

    children: int | None = None
    """How many children it is about to ask for; 0 for one alone. None for a step that is a function."""


class StepSucceeded(_StepData, frozen=True, kw_only=True):
    """A step of the running attempt returned. Later attempts get its result."""

    name: ClassVar[str] = "step-succeeded"
    type: ClassVar[str] = "opstream.action.step-succeeded.v1"
    claim_type: ClassVar[str] = "opstream.action.step-succeeded.v2"
    """Of a result that is a payload. A process that knows no payloads refuses it, so that the step does not run again
    (docs/adr/0075)."""

    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """JSON; `UNSET` if it is a payload."""
    result_payload: PayloadRef | None = None
    """Where the result is, if it is too large for an event; None if it is here."""
    seconds: float
    """How long its last try took."""
    tries: int = 1

    @property
    def wire_type(self) -> str:
        """Return the type of version 2 for a result that is a payload, otherwise that of version 1."""
        return self.type if self.result_payload is None else self.claim_type


class StepFailed(_StepData, frozen=True, kw_only=True):
    """A step raised an error, in its last try. No decision depends on it."""

    name: ClassVar[str] = "step-failed"
    type: ClassVar[str] = "opstream.action.step-failed.v1"

    error: OperationError
    seconds: float
    tries: int = 1
