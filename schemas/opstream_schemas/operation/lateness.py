"""Which open operations are late, because what should move them on is lost. Pure.

An open operation moves on by a message: its request, a wake-up or a deadline. Each may be lost with its stream or its
consumer (docs/adr/0033). `find_late` says what of an operation's state should have happened by now. `is_lost` says by
the traces of that message on the broker whether it is still on its way.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from .state import Operation

GRACE: Final = timedelta(seconds=60)
"""How late something must be before it counts: longer than a message needs, also through a restart of the broker."""
UNCERTAIN_FOR: Final = timedelta(minutes=10)
"""How long a message that may be with a process is left alone, at least."""


class LateCause(StrEnum):
    """What is late. The value is used in log lines."""

    DEADLINE = "deadline"
    RETRY = "retry"
    SIGNAL = "signal"
    START = "start"
    LEASE = "lease"
    CANCEL = "cancel"


class Late(msgspec.Struct, frozen=True, kw_only=True):
    """What should have happened to an operation by now."""

    cause: LateCause
    since: datetime
    """When it was due; for a lease the begin of the operation, since its end is not recorded."""
    sequence: int
    """Stream sequence of the event that waits: `armed_by` of its wake-up; of a lease its ticket."""


class ConsumerPosition(msgspec.Struct, frozen=True, kw_only=True):
    """How far a durable consumer is, as stream sequences."""

    acknowledged: int
    """Up to here, the consumer delivers nothing any more."""
    delivered: int
    """Beyond this, it has delivered nothing yet."""

    def may_have(self, sequence: int) -> bool:
        """Return True if a process may have a message from it, which is not acknowledged."""
        return self.acknowledged < sequence <= self.delivered


class MessageTraces(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker has of the message that a late operation waits for."""

    timers: tuple[datetime, ...] = ()
    """When its timers fire that are scheduled now."""
    sequence: int = 0
    """Stream sequence of the last such message in the journal; 0 for none."""
    stored_at: datetime | None = None
    """When the journal stored that one."""
    queue: str = ""
    """The further queue of the action that gets that one (`Operation.queue`); empty for the one that each has."""


def find_late(
    operation: Operation,
    runners: ConsumerPosition | None,
    *,
    queue: ConsumerPosition | None = None,
    now: datetime,
    grace: timedelta = GRACE,
) -> Late | None:
    """Return what is late of an operation; None if nothing is.

    Args:
        operation: its state.
        runners: the position of the consumer that its runners share; None without one, as before the first runner.
        queue: the position of the consumer of its further queue; None without one.
        now: by the broker's clock, which also decides when timers fire.
        grace: see `GRACE`.
    """
    if operation.is_terminal:
        return None
    if operation.deadline + grace < now:
        return Late(cause=LateCause.DEADLINE, since=operation.deadline, sequence=operation.stream_sequence)
    if runners is None:
        return None  # a new consumer begins with the first request that exists
    waiting, live = operation.waiting, operation.live
    ready_at = operation.wait.ready_at if operation.wait is not None else None
    if waiting is not None and ready_at is not None:
        is_late = ready_at + grace < now
        return Late(cause=LateCause.SIGNAL, since=ready_at, sequence=waiting.sequence) if is_late else None
    if waiting is not None:
        is_late = waiting.retry_at + grace < now
        cause = LateCause.CANCEL if waiting.is_cut else LateCause.RETRY
        return Late(cause=cause, since=waiting.retry_at, sequence=waiting.sequence) if is_late else None
    if live is not None:
        # The broker guards an attempt by its message. Without it, nothing follows if the runner dies.
        is_guarded = live.ticket > runners.acknowledged or (queue is not None and queue.may_have(live.ticket))
        is_late = not is_guarded and operation.created_at + grace < now
        return Late(cause=LateCause.LEASE, since=operation.created_at, sequence=live.ticket) if is_late else None
    requested = operation.stream_sequence if operation.position == 1 else 0
    is_late = operation.due_at + grace < now and requested <= runners.delivered
    return Late(cause=LateCause.START, since=operation.due_at, sequence=requested) if is_late else None


def is_lost(
    late: Late,
    traces: MessageTraces,
    position: ConsumerPosition | None,
    *,
    now: datetime,
    grace: timedelta = GRACE,
    uncertain_for: timedelta = UNCERTAIN_FOR,
) -> bool:
    """Return True if nothing on the broker will move the operation on.

    Args:
        late: from `find_late`.
        traces: of the message that it waits for.
        position: of the consumer that gets this message; None without one.
        now: by the broker's clock.
        grace: see `GRACE`.
        uncertain_for: see `UNCERTAIN_FOR`.
    """
    if any(at + grace >= now for at in traces.timers):
        return False
    if position is None:
        return False
    sequence, stored_at = traces.sequence, traces.stored_at
    if late.cause is LateCause.START and late.sequence > sequence:
        sequence, stored_at = late.sequence, late.since  # the request itself
    if sequence > position.delivered:
        return False
    if sequence <= position.acknowledged:
        return True
    # Between the two, the consumer does not say which messages it still has: most likely a process works on it, or
    # hands it back again and again. Waiting for longer each time keeps those few that no process can handle from
    # getting a message every few minutes.
    patience = max(uncertain_for, (now - late.since) / 2)
    return stored_at is not None and stored_at + patience < now
