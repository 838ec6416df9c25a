"""The timeline of one operation, for people: the request, each attempt, and how long each phase took. Pure.

Unlike the fold (`operation/fold.py`) it refuses nothing: an auditor wants to see every message, and what is wrong with
it. Times are those in the events, so they come from the clocks of different processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from .errors import ErrorCode, InvalidEvent
from .events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    Failed,
    ForcedEnd,
    Instant,
    OperationError,
    Progressed,
    RecordedEvent,
    Requested,
    Signaled,
    Started,
    StepFailed,
    StepStarted,
    StepSucceeded,
    Succeeded,
    WaitBegun,
    decode_event,
    digest,
)
from .operation.forced_end import OperationMessage
from .operation.state import Status
from .payloads.payload_ref import PayloadRef


class PhaseKind(StrEnum):
    """What an operation does during a phase."""

    SCHEDULED = "scheduled"
    """Its start time had not come."""
    QUEUED = "queued"
    """No attempt has started: no runner was free, or it waited for its resource lock or rate limit."""
    RUNNING = "running"
    WAITING = "waiting"
    """An attempt ended without an outcome, or its action waits, and the next one has not started."""


class Phase(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A phase of an operation. Each phase begins where the previous one ends."""

    kind: PhaseKind
    begin: Instant
    end: Instant
    attempt: int
    """The attempt that ran, or after which it waited; 0 before the first."""

    @property
    def seconds(self) -> float:
        """Return the duration in seconds."""
        return (self.end - self.begin).total_seconds()


class TimelineStep(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    """A step of an attempt that ran; those whose recorded results it took are in the earlier attempt."""

    name: str
    key: str = ""
    end: str
    """`succeeded`, `failed`, or `begun` if nothing more is recorded."""
    at: Instant
    """When that was recorded."""
    seconds: float = 0.0
    tries: int = 1
    error: OperationError | None = None
    children: int = 0
    """How many children it asks for; 0 for a step that is a function."""


class TimelineAttempt(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    """One attempt."""

    number: int
    runner: str
    started_at: Instant
    ended_at: Instant | None = None
    """None while it runs, and for a lost attempt, whose end is not known."""
    end: str = ""
    """`succeeded`, `failed`, `canceled`, `handed back` (released), `waits`, or `lost`: the next
    attempt started, or the operation ended, without an event of this one. Empty while it runs."""
    error: OperationError | None = None
    counted: bool = True
    """True if it counts towards the action's `max_attempts`."""
    retry_at: Instant | None = None
    progress_events: int = 0
    percent: float | None = None
    """The last reported percentage."""
    message: str = ""
    steps: list[TimelineStep] = []
    waits_for: str = ""
    """The signal because of which it ended; empty for none."""
    refused: int = 0
    """How many signals of that name had come before, and did not fit."""
    child: str = ""
    """The child for whose end it waits; empty for none."""


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request to cancel the operation, or the one that its outcome names."""

    at: Instant
    by: str = ""
    reason: str = ""


class TimelineSignal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A signal that was sent to the operation."""

    at: Instant
    name: str
    by: str = ""
    """Who sent it; empty for an unknown sender."""
    via: str = ""
    """`url` if it came by the URL of a wait."""


class ChainStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The state of the operation's hash chain."""

    is_intact: bool
    """True if each event carries the hash of the one before it, and the positions have no gap."""
    begins_at: int = 0
    """Position of the first event, if it is not 1: earlier ones have expired, or were removed."""
    broken_at: int = 0
    """Position of the first event that does not continue the one before it."""
    why: str = ""


class Timeline(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    """What the messages say about one operation."""

    id: str
    requested_at: Instant | None = None
    request: Requested | None = None
    """None if it has expired."""
    status: Status = Status.NOT_STARTED
    attempts: list[TimelineAttempt] = []
    phases: list[Phase] = []
    wishes: list[CancelRequest] = []
    signals: list[TimelineSignal] = []
    ended_at: Instant | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result_payload: PayloadRef | None = None
    """Where the result is, if that is too large for an event."""
    error: OperationError | None = None
    canceled: CancelRequest | None = None
    forced: ForcedEnd | None = None
    events: int = 0
    unknown: int = 0
    """Number of events of types that this version does not know."""
    late: int = 0
    """Number of events after the outcome, which have no effect."""
    foreign: int = 0
    """Number of messages that are not events of the operation."""
    skew: float = 0.0
    """The most seconds by which an event's time was before that of an earlier event: the clocks differ. Phases count
    such a step as 0 seconds."""
    chain: ChainStatus = ChainStatus(is_intact=True)

    def seconds(self, kind: PhaseKind) -> float:
        """Return the seconds of all phases of a kind."""
        return sum(phase.seconds for phase in self.phases if phase.kind is kind)

    @property
    def total(self) -> float:
        """Return the seconds from the first event to the outcome, or to now."""
        return (self.phases[-1].end - self.phases[0].begin).total_seconds() if self.phases else 0.0


_ATTEMPT_LOST: Final = "lost"


def build_timeline(operation_id: str, messages: Sequence[OperationMessage], now: datetime) -> Timeline:
    """Return the timeline of an operation.

    Args:
        operation_id: the operation.
        messages: all messages on its subjects, in stream order.
        now: the end of the last phase, if there is no outcome.
    """
    builder = _TimelineBuilder(operation_id)
    chain = _ChainFollower()
    for message in messages:
        event = _decode(message)
        if event is None or event.operation_id != operation_id:
            builder.timeline.foreign += 1
            chain.pass_over(message)
            continue
        chain.check(event)
        builder.add(event)
    return builder.finish(now, chain.result)


def _decode(message: OperationMessage) -> RecordedEvent | None:
    try:
        return decode_event(message.payload, message.sequence, message.subject)
    except InvalidEvent:
        return None


class _ChainFollower:
    """Compares each event with the message right before it, whose hash it must carry."""

    def __init__(self) -> None:
        self._position = self._begins_at = 0
        self._hash = ""
        self._has_ended = False
        self._broken: ChainStatus | None = None
        self._count = 0

    @property
    def result(self) -> ChainStatus:
        return self._broken or ChainStatus(is_intact=True, begins_at=self._begins_at)

    def pass_over(self, message: OperationMessage) -> None:
        self._count += 1
        self._hash = digest(message.payload)

    def check(self, event: RecordedEvent) -> None:
        if not self._count and event.position > 1 and not isinstance(event.data, Requested):
            self._begins_at = event.position
        elif self._broken is None and (why := self._problem(event)):
            self._broken = ChainStatus(is_intact=False, begins_at=self._begins_at, broken_at=event.position, why=why)
        self._count += 1
        self._position, self._hash = event.position, event.digest
        self._has_ended = isinstance(event.data, Succeeded | Failed | Canceled)

    def _problem(self, event: RecordedEvent) -> str:
        """Return why the event does not continue the chain; empty if it does. A forced end may skip positions."""
        is_forced = isinstance(event.data, Failed) and event.data.forced is not None
        if event.previous_hash != self._hash:
            return "it does not carry the hash of the message before it"
        if not is_forced and event.position != self._position + 1:
            return f"it follows position {self._position}"
        if self._has_ended:
            return "it follows the outcome"
        if event.data is not None and isinstance(event.data, Requested) != (event.position == 1):
            return "the first event, and only the first, must be a request"
        return ""


class _TimelineBuilder:
    """Builds a timeline, event by event."""

    def __init__(self, operation_id: str) -> None:
        self.timeline = Timeline(id=operation_id, attempts=[], phases=[], wishes=[], signals=[])
        self._clock: datetime | None = None
        """The latest time so far."""
        self._phase = PhaseKind.QUEUED
        self._phase_attempt = 0
        self._start_at: datetime | None = None
        self._phase_begin: datetime | None = None

    def add(self, event: RecordedEvent) -> None:
        """Add the next event."""
        timeline = self.timeline
        timeline.events += 1
        if self._clock is None:
            self._phase_begin = event.time
            self._phase = PhaseKind.QUEUED if event.position == 1 else PhaseKind.RUNNING
        elif event.time < self._clock:
            timeline.skew = max(timeline.skew, (self._clock - event.time).total_seconds())
        self._clock = event.time if self._clock is None else max(self._clock, event.time)
        if timeline.ended_at is not None:
            timeline.late += 1
        elif event.data is None:
            timeline.unknown += 1
        else:
            self._apply(event, self._clock)

    def finish(self, now: datetime, chain: ChainStatus) -> Timeline:
        """Return the timeline."""
        if self._clock is not None and self.timeline.ended_at is None:
            self._close_phase(max(self._clock, now))
        self.timeline.chain = chain
        return self.timeline

    def _apply(self, event: RecordedEvent, at: datetime) -> None:
        timeline, data = self.timeline, event.data
        match data:
            case Requested():
                if timeline.request is None:
                    timeline.request, timeline.requested_at = data, event.time
                    self._start_at = data.start_at
                    if data.start_at is not None and data.start_at > at:
                        self._phase = PhaseKind.SCHEDULED
            case Started():
                self._end_attempt(_ATTEMPT_LOST, None)
                timeline.attempts.append(
                    TimelineAttempt(number=data.attempt, runner=data.runner, started_at=event.time)
                )
                timeline.status = Status.RUNNING
                self._begin_phase(PhaseKind.RUNNING, data.attempt, at)
            case Progressed():
                if (running := self._running_attempt()) is not None:
                    running.progress_events += 1
                    running.percent, running.message = data.percent, data.message
            case StepStarted() | StepSucceeded() | StepFailed():
                if (running := self._running_attempt()) is not None:
                    _add_step(running.steps, data, event.time)
            case WaitBegun():
                if (running := self._running_attempt()) is not None:
                    running.retry_at, running.counted = data.until, False
                    if data.signal is not None:
                        running.waits_for, running.refused = data.wait, len(data.refused)
                    if data.child is not None:
                        running.child = data.child.id
                self._end_attempt("waits", event.time)
                self._begin_phase(PhaseKind.WAITING, data.attempt, at)
            case AttemptFailed():
                if (running := self._running_attempt()) is not None:
                    running.retry_at, running.counted = data.retry_at, data.counted
                self._end_attempt("failed" if data.counted else "handed back", event.time, data.error)
                self._begin_phase(PhaseKind.WAITING, data.attempt, at)
            case Signaled():
                sent = TimelineSignal(at=event.time, name=data.signal, by=data.by, via=data.via)
                timeline.signals.append(sent)
            case CancelRequested():
                timeline.wishes.append(CancelRequest(at=event.time, by=data.by, reason=data.reason))
            case Succeeded():
                if isinstance(data.result, msgspec.Raw):
                    timeline.result = data.result.copy()
                timeline.result_payload = data.result_payload
                self._end_operation(Status.SUCCEEDED, "succeeded", event, at)
            case Failed():
                timeline.error, timeline.forced = data.error, data.forced
                self._end_operation(
                    Status.FAILED, _ATTEMPT_LOST if data.error.code == ErrorCode.RUNNER_LOST else "failed", event, at
                )
            case Canceled():
                timeline.canceled = CancelRequest(at=event.time, by=data.by, reason=data.reason)
                self._end_operation(Status.CANCELED, "canceled", event, at)

    def _running_attempt(self) -> TimelineAttempt | None:
        last = self.timeline.attempts[-1] if self.timeline.attempts else None
        return last if last is not None and not last.end else None

    def _end_attempt(self, how: str, at: datetime | None, error: OperationError | None = None) -> None:
        if (running := self._running_attempt()) is not None:
            running.end, running.ended_at, running.error = how, at, error

    def _begin_phase(self, kind: PhaseKind, attempt: int, at: datetime) -> None:
        self._close_phase(at)
        self._phase, self._phase_attempt = kind, attempt

    def _close_phase(self, at: datetime) -> None:
        begin = self._phase_begin or at
        if self._phase is PhaseKind.SCHEDULED and self._start_at is not None and self._start_at < at:
            self.timeline.phases.append(Phase(kind=self._phase, begin=begin, end=self._start_at, attempt=0))
            self._phase, begin = PhaseKind.QUEUED, self._start_at
        self.timeline.phases.append(Phase(kind=self._phase, begin=begin, end=at, attempt=self._phase_attempt))
        self._phase_begin = at

    def _end_operation(self, status: Status, how: str, event: RecordedEvent, at: datetime) -> None:
        self.timeline.status, self.timeline.ended_at = status, event.time
        self._end_attempt(how, event.time)
        self._close_phase(at)


def _add_step(steps: list[TimelineStep], data: StepStarted | StepSucceeded | StepFailed, at: datetime) -> None:
    begun = next((one for one in steps if (one.name, one.key, one.end) == (data.step, data.key, "begun")), None)
    if begun is not None:
        steps.remove(begun)
    step = TimelineStep(name=data.step, key=data.key, end="begun", at=at)
    if isinstance(data, StepStarted) and data.children is not None:
        step.children = data.children or 1
    if not isinstance(data, StepStarted):
        step.end = "succeeded" if isinstance(data, StepSucceeded) else "failed"
        step.seconds, step.tries = data.seconds, data.tries
    if isinstance(data, StepFailed):
        step.error = data.error
    steps.append(step)
