"""The runner's decision table: what to do with a delivered message, from the operation's state alone.

The rows, their order and their numbers are those of docs/architecture.md. Pure: `now` is a parameter and
only the deadline is compared with it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from opstream_schemas.events import EventData

from .commands import canceled_outcome, deadline_outcome, runner_lost_outcome
from .state import Operation

UNDECIDABLE_RETRY_SECONDS: Final = 60.0
"""Seconds after which an operation that the fold refuses is looked at again."""


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """What a message says about itself."""

    ticket: int
    """Its stream sequence."""
    scheduled_by: int = 0
    """For a wake: stream sequence of the event that armed it; 0 for a request."""


class Ack(msgspec.Struct, frozen=True, tag=True):
    """Nothing is left to do for this message."""

    row: int


class RedeliverLater(msgspec.Struct, frozen=True, tag=True):
    """Nak with a delay: this code can't decide."""

    row: int
    delay: float


class AppendEvent(msgspec.Struct, frozen=True, tag=True):
    """Record the event, then ack."""

    row: int
    data: EventData


class BeginAttempt(msgspec.Struct, frozen=True, tag=True):
    """Record `started` for the next attempt and run it; ack once its outcome is stored."""

    row: int


class ScheduleWake(msgspec.Struct, frozen=True, tag=True):
    """Store a wake for `at`, then ack."""

    row: int
    at: datetime
    scheduled_by: int


DispatchDecision = Ack | RedeliverLater | AppendEvent | BeginAttempt | ScheduleWake


def decide_dispatch(
    operation: Operation | None, delivery: Trigger, *, now: datetime, max_attempts: int
) -> DispatchDecision:
    """The first row that matches.

    Args:
        operation: the folded state; None where the fold refused an event (row 1).
        delivery: the message.
        now: the runner's clock, for the deadline only.
        max_attempts: how many counted attempts the action allows.
    """
    if operation is None:
        return RedeliverLater(1, UNDECIDABLE_RETRY_SECONDS)
    if operation.is_terminal:
        return Ack(2)
    live = operation.live
    if live is not None and live.ticket != delivery.ticket:
        return Ack(3)
    if operation.cancel is not None:
        return AppendEvent(4, canceled_outcome(operation))
    if now > operation.deadline:
        return AppendEvent(5, deadline_outcome(operation))
    if operation.attempt == 0:
        return BeginAttempt(6)
    if live is not None:
        return (
            BeginAttempt(7)
            if operation.attempts_used < max_attempts
            else AppendEvent(7, runner_lost_outcome(operation))
        )
    return _decide_waiting(operation, delivery)


def _decide_waiting(operation: Operation, delivery: Trigger) -> DispatchDecision:
    waiting = operation.waiting
    if waiting is None:
        # The fold gives every started operation a live attempt or a wait; without either it is not our fold's.
        return RedeliverLater(1, UNDECIDABLE_RETRY_SECONDS)
    handed_back = waiting.ticket == delivery.ticket and not waiting.counted
    if handed_back or waiting.sequence == delivery.scheduled_by:
        return BeginAttempt(8)
    return ScheduleWake(9, waiting.retry_at, waiting.sequence)
