"""Exclusive resources: who holds one, who waits for it, and how it is passed on (docs/adr/0013).

Callers: the runner, before each attempt and after each outcome; the projector, after each terminal event; the API, to
refuse, and to show a place in the queue. Everything here may be repeated, by anybody, at any time.

Two rules make it safe. A holder is replaced only by who has seen in the journal that it ended, with a write that fails
if somebody else was first; so whom the key names holds until it ends. And who waits writes that down and then looks
again, while who ends is in the journal as ended before anybody looks for those who wait; so one sees the other.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Final

import msgspec

from opstream_journal.errors import JournalUnavailable, VersionConflict
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.kv import KeyValueBucket, KeyValueEntry
from opstream_journal.journal import Journal
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_schemas.events import Canceled, Failed, Requested, Succeeded
from opstream_schemas.names import Kind, check_operation_id
from opstream_schemas.operation.resource_lock import (
    CheckOperation,
    Claim,
    ClearLock,
    GrantLock,
    ListWaiters,
    LockAnswer,
    LockBusy,
    LockFree,
    LockOwned,
    LockReplaced,
    LockState,
    OperationStage,
    decide_lock,
)
from opstream_schemas.operation.state import Operation

from .timers import send_wake_up

logger = logging.getLogger(__name__)

WAKE_UP_REASON: Final = "hold"
"""The reason in the wake of an operation that was given its hold."""

_TRIES: Final = 20
_RETRY_DELAY: Final = (0.005, 0.05)
_TERMINAL_EVENTS: Final = frozenset({Succeeded.name, Failed.name, Canceled.name})

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Claim).decode


class ResourceLocks:
    """The holds over one connection.

    Args:
        connection: the connection.
        journal: what decides who still holds.
        jitter: draws a wait from `[low, high]` seconds.
    """

    def __init__(
        self, connection: Connection, journal: Journal, *, jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._jitter = jitter
        self._bucket = KeyValueBucket(connection, jitter)

    async def start(self) -> None:
        """Open the inbox for reads."""
        await self._bucket.start()

    async def acquire(self, hold: str, claim: Claim) -> LockAnswer:
        """Take the hold if it is free and nobody waits who comes first; whoever does is given it instead.

        `Held` is as true as the operation is open: append `started` next, which fails for one that has ended, and
        call `release` for such a one.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        return await self._resolve_claim(hold, claim, is_listing=False)

    async def enqueue(self, hold: str, operation: Operation, claim: Claim, *, is_watchful: bool) -> LockAnswer:
        """Wait for the hold, unless it has become free meanwhile: whoever ends it then wakes the operation.

        Args:
            hold: the key.
            operation: as the caller has seen it last.
            claim: the operation's.
            is_watchful: whether any action that shares the hold replaces, so that later requests matter.

        Raises:
            VersionConflict: something happened to the operation, perhaps its end: decide again.
            JournalError: the broker did not answer, or refused.
        """
        await self._bucket.put(_waiter_key(hold, claim), _encode(claim))
        answer = await self._resolve_claim(hold, claim, is_listing=is_watchful)
        if isinstance(answer, LockOwned):
            await self._remove_waiter(hold, operation.id)
        last = await self._journal.last_message(operation.id)
        if last is None or last.seq != operation.stream_sequence:
            # If it ended, then whoever tidied up behind it may have done so before it was in the queue.
            await self._remove_waiter(hold, operation.id)
            raise VersionConflict(operation.id, operation.stream_sequence, last.seq if last else 0)
        return answer

    async def release(self, operation: Operation) -> None:
        """If the operation has ended: take it out of the queue, and give what it held to the first who waits.

        Raises:
            JournalError: the broker did not answer, or refused; it is to be repeated.
        """
        if not operation.hold:
            return
        if not operation.is_terminal and await self._read_stage(operation.id) is not OperationStage.ENDED:
            return
        crash_point(CrashPoint.HOLD_LEFT)
        await self._remove_waiter(operation.hold, operation.id)
        await self._resolve(operation.hold, None, is_listing=False)

    async def wake(self, claim: Claim) -> None:
        """Have a runner look at an operation that holds now. Once too often does no harm.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        await send_wake_up(
            self._connection, Kind.parse(claim.kind), claim.operation_id, WAKE_UP_REASON, armed_by=claim.sequence
        )

    async def owner(self, hold: str) -> Claim | None:
        """The operation that holds, if it has not ended.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        holder = _owner(await self._bucket.get(_owner_key(hold)))
        return None if holder is None or await self._read_stage(holder.operation_id) is OperationStage.ENDED else holder

    async def waiters(self, hold: str) -> list[Claim]:
        """Those who wait, in order, as far as nobody has looked whether they ended meanwhile.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        return list(await self._read_waiters(hold))

    async def queue_positions(self, hold: str) -> dict[str, int]:
        """The places of those who wait, 1 for the next, by operation id. From any replica, and a read of them all.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        keys = sorted(await self._bucket.read_all_from_replica(_waiter_key(hold)))
        return {key.rpartition(".")[2]: number for number, key in enumerate(keys, 1)}

    async def _resolve_claim(self, hold: str, claim: Claim, *, is_listing: bool) -> LockAnswer:
        answer = await self._resolve(hold, claim, is_listing=is_listing)
        if answer is None:
            raise RuntimeError("a claim is a candidate itself, so a hold is never without one")
        return answer

    async def _resolve(self, hold: str, claim: Claim | None, *, is_listing: bool) -> LockAnswer | None:
        """Decide and write until there is an answer; None where nobody holds and nobody waits."""
        key = _owner_key(hold)
        for _ in range(_TRIES):
            cell = await self._bucket.get(key)
            seen = LockState(owner=_owner(cell))
            if is_listing:
                seen = LockState(owner=seen.owner, waiters=await self._read_waiters(hold))
            known: dict[str, OperationStage] = {}
            while True:
                step = decide_lock(seen, claim, known)
                if isinstance(step, CheckOperation):
                    known[step.operation_id] = await self._read_stage(step.operation_id)
                elif isinstance(step, ListWaiters):
                    seen = LockState(owner=seen.owner, waiters=await self._read_waiters(hold))
                else:
                    break
            match step:
                case GrantLock(to) if await self._bucket.replace(key, _encode(to), cell.revision):
                    is_own = claim is not None and to.operation_id == claim.operation_id
                    await self._hand_over(hold, to, known, is_own=is_own)
                    return LockOwned(to.is_handed) if is_own else LockBusy(to, OperationStage.REQUESTED)
                case ClearLock() if await self._bucket.remove(key, cell.revision):
                    await self._remove_ended(hold, known)
                    return None
                case LockFree():
                    await self._remove_ended(hold, known)
                    return None
                case LockBusy(holder, life):
                    if claim is None and life is OperationStage.REQUESTED:
                        await self.wake(holder)  # whoever gave it the hold may have died before it said so
                    return step
                case LockOwned() | LockReplaced():
                    return step
            await self._connection.sleep(self._jitter(*_RETRY_DELAY))
        raise JournalUnavailable(f"hold {hold} changes all the time", maybe_stored=False)

    async def _hand_over(self, hold: str, to: Claim, known: dict[str, OperationStage], *, is_own: bool) -> None:
        crash_point(CrashPoint.HOLD_TAKEN if is_own else CrashPoint.HOLD_HANDED_OVER)
        if to.is_handed:
            logger.info("operation %s is given the hold %s", to.operation_id, hold)
            await self.wake(to)
        await self._remove_ended(hold, {**known, to.operation_id: OperationStage.ENDED})

    async def _remove_ended(self, hold: str, known: dict[str, OperationStage]) -> None:
        for operation_id, life in known.items():
            if life is OperationStage.ENDED:
                await self._remove_waiter(hold, operation_id)

    async def _remove_waiter(self, hold: str, operation_id: str) -> None:
        """Take an operation out of the queue, if it is there."""
        found = await self._bucket.find_latest(_waiter_key(hold, operation_id=operation_id))
        if found is not None:
            key, cell = found
            await self._bucket.remove(key, cell.revision)

    async def _read_stage(self, operation_id: str) -> OperationStage:
        """What the leader's last event says. Its type is enough: nothing follows a terminal event."""
        last = await self._journal.last_message(operation_id)
        if last is None:
            return OperationStage.ENDED
        event = last.subject.rpartition(".")[2]
        if event == Requested.name:
            return OperationStage.REQUESTED
        return OperationStage.ENDED if event in _TERMINAL_EVENTS else OperationStage.STARTED

    async def _read_waiters(self, hold: str) -> tuple[Claim, ...]:
        found = await self._bucket.read_all(_waiter_key(hold))
        claims = (_decode_claim(data) for _, data in sorted(found.items()))
        return tuple(claim for claim in claims if claim is not None)


def _owner_key(hold: str) -> str:
    return f"h.{hold}"


def _waiter_key(hold: str, claim: Claim | None = None, *, operation_id: str = "") -> str:
    """The key of a waiter; without a claim a pattern: of one operation, or of all."""
    if claim is not None:
        return f"w.{hold}.{claim.sequence:020d}.{claim.operation_id}"
    return f"w.{hold}.*.{operation_id}" if operation_id else f"w.{hold}.>"


def _owner(cell: KeyValueEntry) -> Claim | None:
    return _decode_claim(cell.data) if cell.data else None


def _decode_claim(data: bytes) -> Claim | None:
    try:
        claim = _decode(data)
        check_operation_id(claim.operation_id)
        Kind.parse(claim.kind)  # subjects are built from it
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # Not ours, so nobody holds by it; the next one who wants the hold writes over it.
        logger.warning("a hold that can't be read is passed over: %s", error)
        return None
    return claim
