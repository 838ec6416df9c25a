"""Who holds an exclusive resource next: the decisions about a hold, from what is known of it. Pure.

`opstream_journal.stores.resource_locks` reads what is missing and writes what is decided. A hold is only a cache of the
journal: a holder that has ended holds nothing, whatever the key says (docs/adr/0013).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

import msgspec

from opstream_schemas.errors import ErrorCode
from opstream_schemas.events import OperationError
from opstream_schemas.names import Kind


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """An operation that holds, or waits."""

    operation_id: str
    sequence: int
    """Stream sequence of its `requested` event."""
    kind: str
    """`book:upload-start`."""
    replaces: bool = False
    """Whether it wants those before it canceled rather than to wait for them."""
    is_handed: bool = False
    """Of a holder: it had waited, so it has to be woken. Whatever message brought it into the queue is done with, or
    will be any moment, so no attempt may begin under that one's ticket."""

    @property
    def order(self) -> tuple[int, str]:
        """Who comes first."""
        return (self.sequence, self.operation_id)


class OperationStage(Enum):
    """What the journal says of an operation."""

    REQUESTED = auto()
    """No attempt has begun."""
    STARTED = auto()
    ENDED = auto()
    """Terminal, or gone."""


class LockState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a hold."""

    owner: Claim | None
    waiters: tuple[Claim, ...] | None = None
    """None where nobody has looked."""


class CheckOperation(msgspec.Struct, frozen=True):
    """The journal has to say what became of an operation."""

    operation_id: str


class ListWaiters(msgspec.Struct, frozen=True):
    """The waiters have to be read."""


class GrantLock(msgspec.Struct, frozen=True):
    """Write down a new holder, if the key still is as it was read."""

    to: Claim


class ClearLock(msgspec.Struct, frozen=True):
    """Remove the holder, if the key still is as it was read: nobody waits."""


class LockOwned(msgspec.Struct, frozen=True):
    """The claim holds."""

    is_handed: bool
    """See `Claim.is_handed`."""


class LockBusy(msgspec.Struct, frozen=True):
    """Another operation, which has not ended, holds; with no claim: nothing is to be done."""

    owner: Claim
    stage: OperationStage


class LockReplaced(msgspec.Struct, frozen=True):
    """A later request wants the claim's operation canceled."""

    by: Claim


class LockFree(msgspec.Struct, frozen=True):
    """Nobody holds and nobody waits."""


LockStep = CheckOperation | ListWaiters | GrantLock | ClearLock | LockOwned | LockBusy | LockReplaced | LockFree
LockAnswer = LockOwned | LockBusy | LockReplaced


def decide_lock(hold: LockState, claim: Claim | None, known: Mapping[str, OperationStage]) -> LockStep:
    """The next step for a claim, or without one for a hold whose holder may have ended.

    Args:
        hold: what was read of it.
        claim: of an operation that has not ended and wants to begin an attempt; None for whoever only tidies up.
        known: what the journal said of operations, read after `hold`.
    """
    holder = hold.owner
    if holder is not None:
        if claim is not None and holder.operation_id == claim.operation_id:
            return LockOwned(holder.is_handed)
        life = known.get(holder.operation_id)
        if life is None:
            return CheckOperation(holder.operation_id)
        if life is not OperationStage.ENDED:
            if claim is not None:
                step = _replacement(claim, (holder, *(hold.waiters or ())), known)
                if step is not None:
                    return step
            return LockBusy(holder, life)
    if hold.waiters is None:
        return ListWaiters()
    return _next_owner(hold, claim, known)


def _next_owner(hold: LockState, claim: Claim | None, known: Mapping[str, OperationStage]) -> LockStep:
    waiters = hold.waiters or ()
    others = [one for one in waiters if claim is None or one.operation_id != claim.operation_id]
    if claim is not None:
        step = _replacement(claim, others, known)
        if step is not None:
            return step
    for one in sorted((*others, *([claim] if claim is not None else [])), key=lambda other: other.order):
        if one is claim:
            return GrantLock(msgspec.structs.replace(one, is_handed=len(others) < len(waiters)))
        life = known.get(one.operation_id)
        if life is None:
            return CheckOperation(one.operation_id)
        if life is not OperationStage.ENDED:
            return GrantLock(msgspec.structs.replace(one, is_handed=True))
    return LockFree() if hold.owner is None else ClearLock()


def _replacement(
    claim: Claim, others: tuple[Claim, ...] | list[Claim], known: Mapping[str, OperationStage]
) -> LockStep | None:
    """What follows from later requests that replace: each of the two has to see the other, whoever comes first."""
    for one in others:
        if one.replaces and one.order > claim.order:
            life = known.get(one.operation_id)
            if life is None:
                return CheckOperation(one.operation_id)
            if life is not OperationStage.ENDED:
                return LockReplaced(one)
    return None


def busy_error(kind: Kind, resource_id: str, holder_id: str) -> OperationError:
    """What a request learns that does not wait for another operation (docs/contract.md, Errors)."""
    what = f"{kind.resource} {resource_id}" if resource_id else f"{kind}"
    message = f"operation {holder_id} holds {what}: wait for its end, or cancel it"
    return OperationError(code=ErrorCode.RESOURCE_BUSY, message=message, target=resource_id)
