"""The events of steps: parts of an attempt whose results a later attempt uses (docs/adr/0068)."""

from __future__ import annotations

from typing import ClassVar

import msgspec

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
    """A step that must run at most once is about to begin."""

    name: ClassVar[str] = "step-started"
    type: ClassVar[str] = "opstream.action.step-started.v1"


class StepSucceeded(_StepData, frozen=True, kw_only=True):
    """A step of the running attempt returned. Later attempts get its result."""

    name: ClassVar[str] = "step-succeeded"
    type: ClassVar[str] = "opstream.action.step-succeeded.v1"

    result: msgspec.Raw
    seconds: float
    """How long its last try took."""
    tries: int = 1


class StepFailed(_StepData, frozen=True, kw_only=True):
    """A step raised an error, in its last try. No decision depends on it."""

    name: ClassVar[str] = "step-failed"
    type: ClassVar[str] = "opstream.action.step-failed.v1"

    error: OperationError
    seconds: float
    tries: int = 1
