"""What an attempt needs before it may begin, beside its turn: the resource that it excludes others from, and a slot of
its action's rate. Caller: `dispatch.py`.

Whoever has to wait holds nothing meanwhile, no slot of the runner and no message: it is woken.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from math import ceil
from typing import Final

import msgspec

from opstream_journal import Connection, DeliveredMessage, JournalError
from opstream_journal.command_handler import CommandHandler
from opstream_journal.stores.rate_limiter import RateLimiter
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.timers import schedule_wake_up
from opstream_runner.dependencies import RunnerDependencies
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.errors import DecisionRefused, FoldRefused, InvalidEvent
from opstream_schemas.events import Canceled, EventData, Failed
from opstream_schemas.operation.commands import RequestCancel
from opstream_schemas.operation.rate_limit import Rate, parse_rate
from opstream_schemas.operation.resource_lock import Claim, LockBusy, LockOwned, LockReplaced, busy_error
from opstream_schemas.operation.state import Operation

logger = logging.getLogger(__name__)

_CANCEL_BUDGET: Final = 5.0
_LOST_LOCK_DELAY: Final = 1.0
_FIRST_SLOT: Final = "rate"
_SECOND_SLOT: Final = "late"
_PATIENCE: Final = 1.0
"""Seconds by which a slot may be missed: clocks differ, and wakes take a moment."""


class Admit(msgspec.Struct, frozen=True):
    """The attempt may begin."""


class Defer(msgspec.Struct, frozen=True):
    """Somebody will wake the operation: its message is done."""


class Requeue(msgspec.Struct, frozen=True):
    """The message has to come again, after `delay` seconds."""

    delay: float


class Reject(msgspec.Struct, frozen=True):
    """No attempt: record this instead."""

    data: EventData


Admission = Admit | Defer | Requeue | Reject
_ADMIT: Final = Admit()
_DEFER: Final = Defer()


class AdmissionControl:
    """The gate of one action.

    Args:
        link: the connection.
        tools: journal, clocks, ids.
        spec: the action.
    """

    def __init__(self, link: Connection, tools: RunnerDependencies, spec: ActionSpec) -> None:
        self._link = link
        self._tools = tools
        self._policy = spec.policy
        self._holds = ResourceLocks(link, tools.journal)
        self._rate: Rate | None = parse_rate(spec.policy.rate) if spec.policy.rate else None
        self._pacer = RateLimiter(link, spec.kind, self._rate) if self._rate else None
        self._carrier = CommandHandler(
            journal=tools.journal,
            source=tools.source,
            now=tools.now,
            monotonic=tools.monotonic,
            new_id=tools.new_id,
        )

    async def start(self) -> None:
        """Open the inbox for reads."""
        await self._holds.start()

    async def admit(self, operation: Operation, requested: int, message: DeliveredMessage) -> Admission:
        """Whether an attempt may begin now. The hold first: who waits for it must not use up a slot of the rate.

        Args:
            operation: in a state in which an attempt would begin.
            requested: stream sequence of its `requested` event.
            message: why it would begin.

        Raises:
            VersionConflict: something happened to the operation: decide again.
            JournalError: the broker did not answer, or refused.
        """
        admission = await self._acquire_lock(operation, requested, message) if operation.hold else _ADMIT
        if admission is _ADMIT and self._rate is not None and self._pacer is not None:
            return await self._reserve_slot(self._rate, self._pacer, operation, requested, message.subject)
        return admission

    async def release_lock(self, operation: Operation) -> None:
        """If the operation has ended, pass on what it held.

        Raises:
            JournalError: the broker did not answer, or refused; the projector does the same.
        """
        await self._holds.release(operation)

    async def try_release_lock(self, operation: Operation) -> None:
        """As `leave`, for whoever is done with the message: what fails now is the projector's to do."""
        try:
            await self._holds.release(operation)
        except JournalError as error:
            logger.info("operation %s: its hold is left to the projector: %s", operation.id, error)

    async def _acquire_lock(self, operation: Operation, requested: int, message: DeliveredMessage) -> Admission:
        claim = Claim(
            operation_id=operation.id,
            sequence=requested,
            kind=str(operation.kind),
            replaces=self._policy.on_conflict == "replace",
        )
        hold = operation.hold
        answer = await self._holds.acquire(hold, claim)
        if isinstance(answer, LockBusy):
            if self._policy.on_conflict == "reject" and operation.attempt == 0:
                return Reject(
                    Failed(error=busy_error(operation.kind, operation.resource_id, answer.owner.operation_id))
                )
            is_watchful = claim.replaces or bool(self._policy.exclusive_group)
            answer = await self._holds.enqueue(hold, operation, claim, is_watchful=is_watchful)
        if isinstance(answer, LockOwned):
            if answer.is_handed and operation.live is None and not subjects.is_wake(message.subject):
                # It was in the queue, so another delivery of this message may be about to acknowledge it: the attempt
                # belongs to the wake. Who handed it over sends one, unless that was us, before we died.
                if message.deliveries > 1:
                    await self._holds.wake(claim)
                return _DEFER
            return _ADMIT
        if operation.live is not None:
            # Its attempt died, and somebody took its hold from the bucket. Acknowledged, its message would be the last
            # that may begin another attempt: a wake is another ticket.
            return Requeue(_LOST_LOCK_DELAY)
        if isinstance(answer, LockReplaced):
            return Reject(Canceled(reason=_replaced_reason(answer.by.operation_id)))
        logger.info("operation %s waits for operation %s", operation.id, answer.owner.operation_id)
        if claim.replaces:
            await self._cancel_earlier(hold, claim, answer.owner)
        return _DEFER

    async def _cancel_earlier(self, hold: str, claim: Claim, holder: Claim) -> None:
        """Have those canceled that come before; after the claim is in the queue, so that none is missed."""
        for one in (holder, *await self._holds.waiters(hold)):
            if one.order < claim.order:
                await self._request_cancel(one.operation_id, RequestCancel(reason=_replaced_reason(claim.operation_id)))

    async def _request_cancel(self, operation_id: str, command: RequestCancel) -> None:
        try:
            operation = await self._carrier.handle(operation_id, command, budget=_CANCEL_BUDGET)
        except DecisionRefused as refused:
            logger.debug("nothing is to be replaced: %s", refused)
        except (FoldRefused, InvalidEvent) as refused:
            logger.warning("operation %s can't be replaced by this version: %s", operation_id, refused)
        else:
            if operation is not None and operation.is_terminal:
                await self._holds.release(operation)

    async def _reserve_slot(
        self, rate: Rate, pacer: RateLimiter, operation: Operation, requested: int, subject: str
    ) -> Admission:
        now = self._tools.now().timestamp()
        word, at = _parse_slot(subject)
        if word == _SECOND_SLOT or (word == _FIRST_SLOT and now <= at + max(rate.spacing, _PATIENCE)):
            return _ADMIT
        # Slots that were missed while no runner was there must not all be made up for at once; but once only, so that
        # a clock which is far off can't make an operation wait for ever.
        word = _SECOND_SLOT if word == _FIRST_SLOT else _FIRST_SLOT
        slot = await pacer.reserve(f"{operation.id}.{operation.attempt + 1}.{word}", now)
        # An attempt that died leaves a message which is the only one that may begin the next (its ticket): it is not
        # held up, those who come after it are. A slot that somebody has waited for is for its wake, also when it has
        # come: another delivery of this message may still be about to acknowledge it.
        if not slot or operation.live is not None:
            return _ADMIT
        armed_by = operation.waiting.sequence if operation.waiting else requested
        moment = datetime.fromtimestamp(slot, UTC)
        why = f"{word}-{ceil(slot * 1000)}"
        await schedule_wake_up(self._link, operation.kind, operation.id, why, at=moment, armed_by=armed_by)
        return _DEFER


def _replaced_reason(operation_id: str) -> str:
    return f"replaced by operation {operation_id}"


def _parse_slot(subject: str) -> tuple[str, float]:
    """Of a wake for a slot: its word, and the slot in Unix seconds."""
    if not subjects.is_wake(subject):
        return "", 0.0
    word, _, milliseconds = subjects.parse_wake_subject(subject).reason.partition("-")
    if word in {_FIRST_SLOT, _SECOND_SLOT} and milliseconds.isascii() and milliseconds.isdigit():
        return word, int(milliseconds) / 1000
    return "", 0.0
