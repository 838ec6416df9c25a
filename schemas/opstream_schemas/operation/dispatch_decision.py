"""The runner's decision table: the state of an operation and a delivered message to what the runner does. Pure.

The rows, their order and their numbers are those of docs/architecture.md. Each decision carries its row
number, so that the tests hold the table and the code together. `now` is compared with the deadline, and, as the broker
has it, with the start time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from opstream_schemas.events import EventData

from .commands import canceled_outcome, deadline_outcome, runner_lost_outcome
from .state import Operation

RETRY_REASON: Final = "retry"
"""Why a wake-up is scheduled: the next attempt is due after a backoff. The last token of its subject."""
START_REASON: Final = "start"
"""The same: the operation's start time."""
WAIT_REASON: Final = "wait"
"""The same: the end of a wait for a time, that the action asked for."""
TIMEOUT_REASON: Final = "timeout"
"""The same: the end of a wait for a signal."""
SIGNAL_REASON: Final = "signal"
"""The same: the signal is there."""
CANCEL_REASON: Final = "cancel"
"""The same: a client has canceled what waits, and its handler cleans up."""
SWEEP_REASON: Final = "overdue"
"""The same: the projector's sweep found nothing else that would move the operation on."""
UNDECIDABLE_RETRY_SECONDS: Final = 60.0
"""Seconds after which the message of an operation that can't be folded is delivered again."""


def wait_reason(operation: Operation) -> str:
    """Return why the wake-up is scheduled at the end of the wait that an operation is in."""
    return WAIT_REASON if operation.wait is None or operation.wait.signal is None else TIMEOUT_REASON


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """The delivered message: a request, or a wake-up timer that fired."""

    ticket: int
    """Stream sequence of the message."""
    scheduled_by: int = 0
    """Of a wake-up timer: stream sequence of the event that scheduled it. 0 for a request."""
    is_timely: bool = False
    """True if the broker has sent it at the moment that it was scheduled for, so that no clock of a runner has to say
    whether a start time has come. False for a request, and for what the sweep sends (`SWEEP_REASON`)."""


class Ack(msgspec.Struct, frozen=True, tag=True):
    """Acknowledge: nothing is left to do for this message."""

    row: int


class RedeliverLater(msgspec.Struct, frozen=True, tag=True):
    """Negative acknowledgement with a delay in seconds: this version can't decide."""

    row: int
    delay: float


class AppendEvent(msgspec.Struct, frozen=True, tag=True):
    """Append the event, then acknowledge."""

    row: int
    data: EventData


class BeginAttempt(msgspec.Struct, frozen=True, tag=True):
    """Append `started` for the next attempt and run it. Acknowledge after its outcome is stored."""

    row: int


class ScheduleWake(msgspec.Struct, frozen=True, tag=True):
    """Store a wake-up timer for `at`, then acknowledge."""

    row: int
    at: datetime | None
    """None: due at once, whatever the clocks of runners and broker say."""
    scheduled_by: int
    reason: str = RETRY_REASON
    """Of a wake-up with a time: the last token of its subject."""


DispatchDecision = Ack | RedeliverLater | AppendEvent | BeginAttempt | ScheduleWake


def decide_dispatch(
    operation: Operation | None, trigger: Trigger, *, now: datetime, max_attempts: int, clock_skew: float = 0.0
) -> DispatchDecision:
    """Return the decision of the first row that matches.

    Args:
        operation: the folded state; None if the fold refused an event (row 1).
        trigger: the delivered message.
        now: the runner's clock.
        max_attempts: the number of counted attempts that the action allows.
        clock_skew: the seconds by which the runner's clock is ahead of the broker's, which fires the wake-ups.
    """
    if operation is None:
        return RedeliverLater(1, UNDECIDABLE_RETRY_SECONDS)
    if operation.is_terminal:
        return Ack(2)
    live = operation.live
    if live is not None and live.ticket != trigger.ticket:
        return Ack(3)
    if operation.cancel is not None and not operation.cleans_up:
        return AppendEvent(4, canceled_outcome(operation))
    if now > operation.deadline:
        return AppendEvent(5, deadline_outcome(operation))
    if operation.attempt == 0:
        start_at = operation.start_at
        if start_at is None or trigger.is_timely or now - timedelta(seconds=clock_skew) >= start_at:
            return BeginAttempt(6)
        return ScheduleWake(6, start_at, operation.stream_sequence, START_REASON)
    if live is not None:
        if operation.attempts_used < max_attempts:
            return BeginAttempt(7)
        return AppendEvent(7, runner_lost_outcome(operation))
    return _decide_waiting(operation, trigger)


def _decide_waiting(operation: Operation, trigger: Trigger) -> DispatchDecision:
    waiting = operation.waiting
    if waiting is None:
        # Our fold never returns this: a started, open operation has a live attempt or waits for one.
        return RedeliverLater(1, UNDECIDABLE_RETRY_SECONDS)
    # Never the message of the attempt that ended, even if it was released and is due: the runner that ended the attempt
    # may be about to acknowledge this message, and then no message would be left for the new attempt.
    if waiting.sequence == trigger.scheduled_by:
        return BeginAttempt(8)
    if operation.wait is not None:
        at = None if operation.has_its_signal else waiting.retry_at
        return ScheduleWake(9, at, waiting.sequence, wait_reason(operation))
    return ScheduleWake(9, waiting.retry_at if waiting.counted else None, waiting.sequence)
