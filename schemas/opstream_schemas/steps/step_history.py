"""What is recorded of the steps of an operation, and the decision what to do when an attempt comes to one. Pure.

The rows of the decision are those of docs/steps.md; each decision carries its number.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from opstream_schemas.events import RecordedEvent, StepStarted, StepSucceeded
from opstream_schemas.payloads.payload_ref import PayloadRef


class OnChanged(StrEnum):
    """What to do with a step whose input is not the recorded one."""

    RERUN = "rerun"
    FAIL = "fail"
    KEEP = "keep"


class StepRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What later attempts need of one event: that a step began that must run once, or what it returned."""

    step: str
    key: str = ""
    input_hash: str
    attempt: int
    position: int = 0
    """Of the event within its operation."""
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """JSON; unset if the step only began, or its result is a payload."""
    payload: PayloadRef | None = None
    """Where the result is, if it is too large for an event."""

    @property
    def is_result(self) -> bool:
        """Return True if the step returned."""
        return self.payload is not None or isinstance(self.result, msgspec.Raw)


class RunStep(msgspec.Struct, frozen=True):
    """Call its function."""

    row: int


class UseResult(msgspec.Struct, frozen=True):
    """Take the recorded result."""

    row: int
    result: msgspec.Raw | msgspec.UnsetType
    """JSON; unset if it is a payload."""
    attempt: int
    """That recorded it."""
    payload: PayloadRef | None = None


class RefuseChanged(msgspec.Struct, frozen=True):
    """Fail: only results of another input are recorded."""

    row: int
    attempt: int


class RefuseInterrupted(msgspec.Struct, frozen=True):
    """Fail: it has begun, must not run twice, and has no recorded result."""

    row: int
    attempt: int


StepDecision = RunStep | UseResult | RefuseChanged | RefuseInterrupted


class _Records:
    """All that is recorded under one name and key."""

    __slots__ = ("last", "results", "started")

    def __init__(self) -> None:
        self.results: dict[str, UseResult] = {}
        """By the hash of the input."""
        self.last: UseResult | None = None
        """The one of `results` that was recorded last."""
        self.started: StepRecord | None = None
        """A start without a result; None if a result follows it."""


class StepHistory:
    """The steps of an operation that earlier attempts have recorded.

    Args:
        records: in the order of their events.
    """

    def __init__(self, records: Iterable[StepRecord] = ()) -> None:
        self._found: dict[tuple[str, str], _Records] = {}
        for record in records:
            found = self._found.setdefault((record.step, record.key), _Records())
            if record.is_result:
                recorded = UseResult(2, record.result, record.attempt, record.payload)
                found.last = found.results[record.input_hash] = recorded
                found.started = None
            else:
                found.started = record

    def started(self, step: str, key: str) -> StepRecord | None:
        """Return the record that a step, or children, of a name and key have begun, if no result follows it."""
        found = self._found.get((step, key))
        return None if found is None else found.started

    def decide(
        self, step: str, key: str, input_hash: str, *, on_changed: OnChanged, at_most_once: bool
    ) -> StepDecision:
        """Return what to do when the running attempt comes to a step. The first row that matches wins.

        Args:
            step: its name.
            key: its key; empty for none.
            input_hash: of its arguments now.
            on_changed: what to do if only results of other arguments are recorded.
            at_most_once: whether its function must not be called twice.
        """
        found = self._found.get((step, key))
        if found is None:
            return RunStep(1)
        if (same := found.results.get(input_hash)) is not None:
            return same
        if at_most_once and found.started is not None:
            return RefuseInterrupted(3, found.started.attempt)
        if (last := found.last) is None:
            return RunStep(4)
        match on_changed:
            case OnChanged.KEEP:
                return msgspec.structs.replace(last, row=5)
            case OnChanged.FAIL:
                return RefuseChanged(5, last.attempt)
            case OnChanged.RERUN:
                return RunStep(5)


def step_records(events: Iterable[RecordedEvent]) -> tuple[StepRecord, ...]:
    """Return what later attempts need of some events of an operation; mostly nothing."""
    return tuple(
        StepRecord(
            step=data.step,
            key=data.key,
            input_hash=data.input_hash,
            attempt=data.attempt,
            position=event.position,
            result=data.result if isinstance(data, StepSucceeded) else msgspec.UNSET,
            payload=data.result_payload if isinstance(data, StepSucceeded) else None,
        )
        for event in events
        if isinstance(data := event.data, StepStarted | StepSucceeded)
    )
