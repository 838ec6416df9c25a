"""The lock of an exclusive resource and its queue: which operation owns the lock next. Pure.

A lock is only a cache of the journal: an operation that has ended owns no lock, whatever the bucket says (ADR 0013).
Two rules follow, and `opstream_journal.stores.resource_locks` keeps them:

1. A lock is taken over only after the journal shows that its owner ended, by compare-and-set.
2. A waiter enqueues first and re-reads the lock second; an owner ends in the journal first and reads the queue second.
   So no wake-up is lost.

`decide_lock` returns one step at a time. The caller carries it out, adds what it learned, and asks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto

import msgspec

from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError
from opstream_schemas.names import Kind


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """An operation that owns a lock, or waits for it."""

    operation_id: str
    sequence: int
    """Stream sequence of its `requested` event."""
    kind: str
    """`book:upload-start`."""
    replaces: bool = False
    """True if it wants the operations before it canceled, instead of waiting for them."""
    is_handed: bool = False
    """True for an owner that waited in the queue, so it must be woken up.

    The message that brought it into the queue is acknowledged, or soon will be. So no attempt may start under the
    ticket of that message.
    """
    let_go: int = 0
    """`Operation.let_go` when the claim was made. A process that is late must not take away what was claimed since."""

    @property
    def order(self) -> tuple[int, str]:
        """Return the key that sorts claims by their turn."""
        return (self.sequence, self.operation_id)


class OperationStage(Enum):
    """What the journal says about an operation."""

    REQUESTED = auto()
    """No attempt has started, or its action waits."""
    STARTED = auto()
    ENDED = auto()
    """It has an outcome, or has expired."""


class LockState(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of a lock."""

    owner: Claim | None
    waiters: tuple[Claim, ...] | None = None
    """The queue; None if it was not read."""


class CheckOperation(msgspec.Struct, frozen=True):
    """Step: read from the journal at which stage an operation is."""

    operation_id: str


class ListWaiters(msgspec.Struct, frozen=True):
    """Step: read the queue."""


class GrantLock(msgspec.Struct, frozen=True):
    """Step: write a new owner, if the key has not changed since it was read."""

    to: Claim


class ClearLock(msgspec.Struct, frozen=True):
    """Step: remove the owner, if the key has not changed since it was read; the queue is empty."""


class LockOwned(msgspec.Struct, frozen=True):
    """Answer: the claim owns the lock."""

    is_handed: bool
    """See `Claim.is_handed`."""


class LockBusy(msgspec.Struct, frozen=True):
    """Answer: another operation, which has not ended, owns the lock. Without a claim: nothing is left to do."""

    owner: Claim
    stage: OperationStage


class LockReplaced(msgspec.Struct, frozen=True):
    """Answer: a later request wants the claim's operation canceled."""

    by: Claim


class LockFree(msgspec.Struct, frozen=True):
    """Answer: there is no owner and the queue is empty."""


LockStep = CheckOperation | ListWaiters | GrantLock | ClearLock | LockOwned | LockBusy | LockReplaced | LockFree
LockAnswer = LockOwned | LockBusy | LockReplaced


def decide_lock(lock: LockState, claim: Claim | None, known: Mapping[str, OperationStage]) -> LockStep:
    """Return the next step for a claim, or for a lock whose owner may have ended.

    Args:
        lock: what was read of the lock.
        claim: of an operation that has not ended and wants to start an attempt; None to only pass the lock on.
        known: the stages of operations, read from the journal after `lock`.
    """
    owner = lock.owner
    if owner is not None:
        if claim is not None and owner.operation_id == claim.operation_id:
            if owner.let_go < claim.let_go:  # not given on yet; nobody may do that from now on
                return GrantLock(claim)
            return LockOwned(owner.is_handed)
        stage = known.get(owner.operation_id)
        if stage is None:
            return CheckOperation(owner.operation_id)
        if stage is not OperationStage.ENDED:
            if claim is not None:
                step = _replacement(claim, (owner, *(lock.waiters or ())), known)
                if step is not None:
                    return step
            return LockBusy(owner, stage)
    if lock.waiters is None:
        return ListWaiters()
    return _next_owner(lock, claim, known)


def _next_owner(lock: LockState, claim: Claim | None, known: Mapping[str, OperationStage]) -> LockStep:
    waiters = lock.waiters or ()
    others = [one for one in waiters if claim is None or one.operation_id != claim.operation_id]
    if claim is not None:
        step = _replacement(claim, others, known)
        if step is not None:
            return step
    for one in sorted((*others, *([claim] if claim is not None else [])), key=lambda other: other.order):
        if one is claim:
            return GrantLock(msgspec.structs.replace(one, is_handed=len(others) < len(waiters)))
        stage = known.get(one.operation_id)
        if stage is None:
            return CheckOperation(one.operation_id)
        if stage is not OperationStage.ENDED:
            return GrantLock(msgspec.structs.replace(one, is_handed=True))
    return LockFree() if lock.owner is None else ClearLock()


def _replacement(claim: Claim, others: Sequence[Claim], known: Mapping[str, OperationStage]) -> LockStep | None:
    """Return the step that a later, replacing request causes; None if there is no such request.

    The claim looks for the request and the request looks for the claim, so one of them sees the other, whichever is
    written first.
    """
    for one in others:
        if one.replaces and one.order > claim.order:
            stage = known.get(one.operation_id)
            if stage is None:
                return CheckOperation(one.operation_id)
            if stage is not OperationStage.ENDED:
                return LockReplaced(one)
    return None


def busy_error(kind: Kind, resource_id: str, owner_id: str) -> OperationError:
    """Return the error of a request that does not wait for the resource (docs/contract.md, Errors).

    Args:
        kind: the action.
        resource_id: the resource's own id; empty without one.
        owner_id: id of the operation that has the lock; empty to leave it out, since it may be another caller's.
    """
    what = f"{kind.resource} {resource_id}" if resource_id else f"{kind}"
    owner = f"operation {owner_id}" if owner_id else "another operation"
    message = f"{owner} holds {what}: wait for its end, or cancel it"
    return OperationError(code=ErrorCode.RESOURCE_BUSY, message=message, target=resource_id)
