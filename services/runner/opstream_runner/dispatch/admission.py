"""Admission of attempts: an attempt starts once it has its resource's lock and a slot of its action's rate.

An operation that has to wait keeps neither a message nor a slot of the runner. A wake-up starts it later.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from math import ceil
from typing import Final

import msgspec

from opstream_journal import Connection, DeliveredMessage, JournalError
from opstream_journal.command_handler import CommandHandler
from opstream_journal.jetstream import rpc
from opstream_journal.stores.rate_limiter import RateLimiter
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.timers import schedule_wake_up
from opstream_runner.dependencies import RunnerDependencies
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import DecisionRefused, FoldRefused, InvalidEvent
from opstream_schemas.events import Canceled, EventData, Failed
from opstream_schemas.operation.commands import RequestCancel
from opstream_schemas.operation.failure_line import canceled_line, end_fields
from opstream_schemas.operation.priority import Priority
from opstream_schemas.operation.rate_limit import FIRST_SLOT, SECOND_SLOT, Rate, parse_rate, parse_slot
from opstream_schemas.operation.resource_lock import Claim, LockBusy, LockOwned, LockReplaced, busy_error
from opstream_schemas.operation.state import Operation

logger = logging.getLogger(__name__)

_CANCEL_BUDGET: Final = 5.0
_LOST_LOCK_DELAY: Final = 1.0
_SLOT_TOLERANCE: Final = 1.0
"""Seconds by which an attempt may miss its slot: clocks differ, and a wake-up needs a moment to arrive."""


class Admit(msgspec.Struct, frozen=True):
    """The attempt may start."""

    action_input: msgspec.Raw | None = None
    """The input as the action's version has it; None for that of the request."""


class Defer(msgspec.Struct, frozen=True):
    """Acknowledge the message: a wake-up will start the attempt."""


class Requeue(msgspec.Struct, frozen=True):
    """Requeue the message, so that it is delivered again after `delay` seconds."""

    delay: float


class Reject(msgspec.Struct, frozen=True):
    """Record this event instead of an attempt."""

    data: EventData


Admission = Admit | Defer | Requeue | Reject
_ADMIT: Final = Admit()
_DEFER: Final = Defer()


class AdmissionControl:
    """Decides whether attempts of one action may start.

    Args:
        connection: schedules wake-ups and reads locks.
        dependencies: journal, clocks and ids.
        spec: the action.
    """

    def __init__(self, connection: Connection, dependencies: RunnerDependencies, spec: ActionSpec) -> None:
        self._connection = connection
        self._now = dependencies.now
        self._policy = spec.policy
        self._locks = ResourceLocks(connection, dependencies.journal)
        self._rate: Rate | None = parse_rate(spec.policy.rate) if spec.policy.rate else None
        self._rate_limiter = RateLimiter(connection, spec.kind, self._rate) if self._rate else None
        self._commands = CommandHandler(
            journal=dependencies.journal,
            source=dependencies.source,
            now=dependencies.now,
            monotonic=dependencies.monotonic,
            new_id=dependencies.new_id,
        )

    async def start(self) -> None:
        """Open the inbox for reads."""
        await self._locks.start()

    async def admit(self, operation: Operation, request_sequence: int, message: DeliveredMessage) -> Admission:
        """Decide whether an attempt may start now.

        A request of low priority waits in the queue of that, if it is there. Then the lock comes: an operation that
        waits for it must not use up a slot of the rate.

        Args:
            operation: in a state that allows an attempt.
            request_sequence: stream sequence of its `requested` event.
            message: the delivery that would cause the attempt.

        Raises:
            VersionConflict: the operation has changed: decide again.
            JournalError: the broker did not respond, or refused.
        """
        if await self._waits_in_other_queue(operation, message):
            return _DEFER
        admission = await self._acquire_lock(operation, request_sequence, message) if operation.hold else _ADMIT
        if admission is _ADMIT and self._rate is not None and self._rate_limiter is not None:
            return await self._reserve_slot(
                self._rate, self._rate_limiter, operation, request_sequence, message.subject
            )
        return admission

    async def _waits_in_other_queue(self, operation: Operation, message: DeliveredMessage) -> bool:
        """Return True for a request that is to begin by its wake-up in the queue of low priority.

        If that wake-up is not in the journal, it was lost with its API, and nothing else begins the operation. One that
        was taken from that queue already is there, too: what made the operation wait then has another message for it.
        """
        if (
            self._policy.served_queue(operation.queue) != Priority.LOW
            or operation.attempt
            or subjects.is_wake(message.subject)
        ):
            return False
        subject = subjects.queued_request_subject(operation.kind, operation.id, Priority.LOW)
        return await rpc.get_last(self._connection, subjects.OPERATIONS_STREAM, subject) is not None

    async def release_lock(self, operation: Operation) -> None:
        """If the operation has ended, hand its lock to the next waiter.

        Raises:
            JournalError: the broker did not respond, or refused. The projector releases locks, too.
        """
        await self._locks.release(operation)

    async def try_release_lock(self, operation: Operation) -> None:
        """Do the same as `release_lock`, also for an operation that waits without its lock, but log an error: the
        projector will release the lock."""
        try:
            await self._locks.let_go(operation)
            await self._locks.release(operation)
        except JournalError as error:
            logger.info("operation %s: the projector has to release its lock: %s", operation.id, error)

    async def _acquire_lock(self, operation: Operation, request_sequence: int, message: DeliveredMessage) -> Admission:
        claim = Claim(
            operation_id=operation.id,
            sequence=request_sequence,
            kind=str(operation.kind),
            replaces=self._policy.on_conflict == "replace",
            let_go=operation.let_go,
        )
        lock = operation.hold
        answer = await self._locks.acquire(lock, claim)
        if isinstance(answer, LockBusy):
            if self._policy.on_conflict == "reject" and operation.attempt == 0:
                owner_id = _shown_id(operation, answer.owner.operation_id)
                return Reject(Failed(error=busy_error(operation.kind, operation.resource_id, owner_id)))
            is_watchful = claim.replaces or bool(self._policy.exclusive_group)
            answer = await self._locks.enqueue(lock, operation, claim, is_watchful=is_watchful)
        if isinstance(answer, LockOwned):
            if answer.is_handed and operation.live is None and not subjects.is_wake(message.subject):
                # The operation was in the queue, so a runner with an earlier delivery of this message may be about to
                # acknowledge it. So only a wake-up may start the attempt. The previous owner of the lock sends it, with
                # one exception: an earlier delivery took the lock over, and its runner died before it sent the wake-up.
                if message.deliveries > 1:
                    await self._locks.wake(claim)
                return _DEFER
            return _ADMIT
        if operation.live is not None:
            # Its attempt died, and its entry was removed from the bucket. Only this message may start another attempt,
            # because a wake-up has another ticket, so the message must not be acknowledged.
            return Requeue(_LOST_LOCK_DELAY)
        if isinstance(answer, LockReplaced):
            return Reject(Canceled(reason=_replaced_reason(_shown_id(operation, answer.by.operation_id))))
        logger.info("operation %s waits for operation %s", operation.id, answer.owner.operation_id)
        if claim.replaces:
            await self._cancel_earlier(operation, claim, answer.owner)
        return _DEFER

    async def _cancel_earlier(self, operation: Operation, claim: Claim, owner: Claim) -> None:
        """Cancel the lock's owner and the earlier waiters. The claim is in the queue already, so none is missed."""
        command = RequestCancel(reason=_replaced_reason(_shown_id(operation, claim.operation_id)))
        for one in (owner, *await self._locks.waiters(operation.hold)):
            if one.order < claim.order:
                await self._request_cancel(one.operation_id, command)

    async def _request_cancel(self, operation_id: str, command: RequestCancel) -> None:
        try:
            operation = await self._commands.handle(
                operation_id, command, budget=_CANCEL_BUDGET, on_appended=_log_if_canceled
            )
        except DecisionRefused as refused:
            logger.debug("there is nothing to replace: %s", refused)
        except (FoldRefused, InvalidEvent) as refused:
            logger.warning("operation %s can't be replaced by this version: %s", operation_id, refused)
        else:
            if operation is not None and operation.is_terminal:
                await self._locks.release(operation)

    async def _reserve_slot(
        self, rate: Rate, rate_limiter: RateLimiter, operation: Operation, request_sequence: int, subject: str
    ) -> Admission:
        # In the broker's time: one runner's clock must not move the slots of all, and the broker fires the wake-ups.
        now = self._now().timestamp() - self._connection.clock_skew
        word, at = _parse_slot(subject)
        if word == SECOND_SLOT or (word == FIRST_SLOT and now <= at + max(rate.spacing, _SLOT_TOLERANCE)):
            return _ADMIT
        # A missed slot is reserved again, so that operations whose slots passed without a runner do not all start at
        # once. It is reserved again only once, so that a wrong clock can't make an operation wait for ever.
        word = SECOND_SLOT if word == FIRST_SLOT else FIRST_SLOT
        slot = await rate_limiter.reserve(f"{operation.id}.{operation.attempt + 1}.{word}", now)
        # If an attempt died, only this message may start the next one, since no other has its ticket. So the attempt
        # starts now, and the reserved slot delays the attempts of other operations. In any other case a wake-up starts
        # the attempt, even if its slot is in the past, because a runner with an earlier delivery of this message may be
        # about to acknowledge it.
        if not slot or operation.live is not None:
            return _ADMIT
        armed_by = operation.waiting.sequence if operation.waiting else request_sequence
        moment = datetime.fromtimestamp(slot, UTC)
        why = f"{word}-{ceil(slot * 1000)}"
        await schedule_wake_up(self._connection, operation.kind, operation.id, why, at=moment, armed_by=armed_by)
        return _DEFER


def _log_if_canceled(operation: Operation) -> None:
    if operation.is_terminal:
        logger.info("%s", canceled_line(operation), extra=end_fields(operation))


def _shown_id(operation: Operation, other_id: str) -> str:
    """Return the id of another operation as a client may read it: none, if callers are told apart.

    An operation with an id of its client's own shares its lock with those of other callers, whose ids it must not see.
    """
    return "" if operation.own_id else other_id


def _replaced_reason(operation_id: str) -> str:
    return f"replaced by operation {operation_id}" if operation_id else "replaced by a later operation"


def _parse_slot(subject: str) -> tuple[str, float]:
    """Return the kind of a wake-up's slot, and the slot in Unix seconds; `("", 0.0)` for any other message."""
    return parse_slot(subjects.parse_wake_subject(subject).reason) if subjects.is_wake(subject) else ("", 0.0)
