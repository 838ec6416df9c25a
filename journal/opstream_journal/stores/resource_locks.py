"""Locks of exclusive resources: which operation owns one, which ones wait, and how it is handed over (docs/adr/0013).

Every call is repeatable, by any process. Two rules make that safe:
1. A lock is taken over only after the journal shows that its owner has ended, by compare-and-set. So the operation that
   the key names owns the lock until it ends.
2. A waiter enqueues first and reads the lock second. An owner ends in the journal first, and the queue is read second.
   So no wake-up is lost.
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
from opstream_schemas.events import Canceled, Failed, Requested, Signaled, Succeeded, WaitBegun
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
"""The reason in the wake-up of an operation that was given its lock."""

_OWNER_PREFIX: Final = "h."
_TRIES: Final = 20
_RETRY_DELAY: Final = (0.005, 0.05)
_MAYBE_UNWOKEN: Final = frozenset({Requested.name, WaitBegun.name, Signaled.name})
"""After one of these no attempt may be live, so that an owner needs its wake-up. One too many does no harm."""
_TERMINAL_EVENTS: Final = frozenset({Succeeded.name, Failed.name, Canceled.name})

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Claim).decode


class ResourceLocks:
    """The locks over one connection.

    Args:
        connection: the connection.
        journal: shows which operations have ended.
        jitter: draws a delay from `[low, high]` seconds.
    """

    def __init__(
        self, connection: Connection, journal: Journal, *, jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._jitter = jitter
        self._bucket = KeyValueBucket(connection, jitter)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._bucket.start()

    async def acquire(self, lock: str, claim: Claim) -> LockAnswer:
        """Acquire the lock if it is free and no waiter comes first. A waiter that comes first is given it instead.

        `LockOwned` is only true while the operation is open. Append `started` next; if that fails because the operation
        has ended, call `release`.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        return await self._resolve_claim(lock, claim, is_listing=False)

    async def enqueue(self, lock: str, operation: Operation, claim: Claim, *, is_watchful: bool) -> LockAnswer:
        """Enqueue for the lock, unless it has become free meanwhile. The end of its owner wakes the operation.

        Args:
            lock: the key of the lock.
            operation: as the caller has seen it last.
            claim: of the operation.
            is_watchful: whether an action that shares the lock replaces its owner, so that later requests matter.

        Raises:
            VersionConflict: the operation has changed, perhaps ended: decide again.
            JournalError: the broker did not answer, or refused.
        """
        await self._bucket.put(_waiter_key(lock, claim), _encode(claim))
        answer = await self._resolve_claim(lock, claim, is_listing=is_watchful)
        if isinstance(answer, LockOwned):
            await self._remove_waiter(lock, operation.id)
        last = await self._journal.last_message(operation.id)
        if last is None or last.seq != operation.stream_sequence:
            # If it has ended, the queue may have been cleaned up before this entry was in it.
            await self._remove_waiter(lock, operation.id)
            raise VersionConflict(operation.id, operation.stream_sequence, last.seq if last else 0)
        return answer

    async def release(self, operation: Operation) -> None:
        """If the operation has ended, remove it from the queue and give its lock to the first waiter.

        Raises:
            JournalError: the broker did not answer, or refused; repeat the call.
        """
        if not operation.hold:
            return
        if not operation.is_terminal and await self._read_stage(operation.id) is not OperationStage.ENDED:
            return
        crash_point(CrashPoint.HOLD_LEFT)
        await self._remove_waiter(operation.hold, operation.id)
        await self._resolve(operation.hold, None, is_listing=False)

    async def let_go(self, operation: Operation) -> None:
        """If the operation waits without its lock, give that to the first waiter. It may have claimed it again since:
        then nothing happens.

        Raises:
            JournalError: the broker did not answer, or refused; repeat the call.
        """
        if not operation.hold or not operation.has_let_go:
            return
        crash_point(CrashPoint.HOLD_LEFT)
        entry = await self._bucket.get(_owner_key(operation.hold))
        owner = _owner(entry)
        if owner is not None:
            is_old = owner.operation_id == operation.id and owner.let_go < operation.let_go
            # Who comes second, or after the operation has claimed it again, finds another revision.
            if not is_old or not await self._bucket.remove(_owner_key(operation.hold), entry.revision):
                return
        # Without an owner, too: the process that removed it may have died before it looked at the queue.
        await self._resolve(operation.hold, None, is_listing=False)

    async def wake(self, claim: Claim) -> None:
        """Wake an operation that owns its lock now. A superfluous wake-up does no harm.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        await send_wake_up(
            self._connection, Kind.parse(claim.kind), claim.operation_id, WAKE_UP_REASON, armed_by=claim.sequence
        )

    async def restore_owner(self, lock: str, claim: Claim) -> bool:
        """Make an operation the owner of a lock, whatever the bucket says; return False if it is that already.

        Only for an operation that has begun an attempt and is open, which proves by the journal that it owns the lock;
        and only while no service works, as after a restore (docs/adr/0051).

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        seen = _owner(await self._bucket.get(_owner_key(lock)))
        await self._remove_waiter(lock, claim.operation_id)
        if seen is not None and seen.operation_id == claim.operation_id:
            return False
        await self._bucket.put(_owner_key(lock), _encode(claim))
        return True

    async def owned(self) -> frozenset[str]:
        """Return the locks that have an owner, which may have ended.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        return frozenset([key.removeprefix(_OWNER_PREFIX) for key in await self._bucket.read_all(f"{_OWNER_PREFIX}>")])

    async def owner(self, lock: str) -> Claim | None:
        """Return the claim of the operation that owns a lock; None if it has ended, or the lock is free.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        owner = _owner(await self._bucket.get(_owner_key(lock)))
        return None if owner is None or await self._read_stage(owner.operation_id) is OperationStage.ENDED else owner

    async def is_queued(self, lock: str, operation_id: str) -> bool:
        """Return True if an operation is in a lock's queue.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        return await self._bucket.find_latest(_waiter_key(lock, operation_id=operation_id)) is not None

    async def waiters(self, lock: str) -> list[Claim]:
        """Return the waiters in their order. Some may have ended meanwhile.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        return list(await self._read_waiters(lock))

    async def queue_positions(self, lock: str) -> dict[str, int]:
        """Return the queue position of each waiter by operation id; 1 for the next. Reads them all, from any replica.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        keys = sorted(await self._bucket.read_all_from_replica(_waiter_key(lock)))
        return {key.rpartition(".")[2]: number for number, key in enumerate(keys, 1)}

    async def _resolve_claim(self, lock: str, claim: Claim, *, is_listing: bool) -> LockAnswer:
        answer = await self._resolve(lock, claim, is_listing=is_listing)
        if answer is None:
            raise RuntimeError("a claim is a candidate itself, so the lock never is without one")
        return answer

    async def _resolve(self, lock: str, claim: Claim | None, *, is_listing: bool) -> LockAnswer | None:
        """Decide and write until there is an answer; None if the lock is free and has no waiters."""
        key = _owner_key(lock)
        for _ in range(_TRIES):
            entry = await self._bucket.get(key)
            seen = LockState(owner=_owner(entry))
            if is_listing:
                seen = LockState(owner=seen.owner, waiters=await self._read_waiters(lock))
            known: dict[str, OperationStage] = {}
            while True:
                step = decide_lock(seen, claim, known)
                if isinstance(step, CheckOperation):
                    known[step.operation_id] = await self._read_stage(step.operation_id)
                elif isinstance(step, ListWaiters):
                    seen = LockState(owner=seen.owner, waiters=await self._read_waiters(lock))
                else:
                    break
            match step:
                case GrantLock(to) if await self._bucket.replace(key, _encode(to), entry.revision):
                    is_own = claim is not None and to.operation_id == claim.operation_id
                    await self._hand_over(lock, to, known, is_own=is_own)
                    return LockOwned(to.is_handed) if is_own else LockBusy(to, OperationStage.REQUESTED)
                case ClearLock() if await self._bucket.remove(key, entry.revision):
                    await self._remove_ended(lock, known)
                    return None
                case LockFree():
                    await self._remove_ended(lock, known)
                    return None
                case LockBusy(owner, stage):
                    if claim is None and stage is OperationStage.REQUESTED:
                        await self.wake(owner)  # the process that gave it the lock may have died before it woke it
                    return step
                case LockOwned() | LockReplaced():
                    return step
            await self._connection.sleep(self._jitter(*_RETRY_DELAY))
        raise JournalUnavailable(f"lock {lock} changes all the time", maybe_stored=False)

    async def _hand_over(self, lock: str, to: Claim, known: dict[str, OperationStage], *, is_own: bool) -> None:
        crash_point(CrashPoint.HOLD_TAKEN if is_own else CrashPoint.HOLD_HANDED_OVER)
        if to.is_handed:
            logger.info("operation %s is given the lock %s", to.operation_id, lock)
            await self.wake(to)
        await self._remove_ended(lock, {**known, to.operation_id: OperationStage.ENDED})

    async def _remove_ended(self, lock: str, known: dict[str, OperationStage]) -> None:
        for operation_id, stage in known.items():
            if stage is OperationStage.ENDED:
                await self._remove_waiter(lock, operation_id)

    async def _remove_waiter(self, lock: str, operation_id: str) -> None:
        """Remove an operation from the queue, if it is there."""
        found = await self._bucket.find_latest(_waiter_key(lock, operation_id=operation_id))
        if found is not None:
            key, entry = found
            await self._bucket.remove(key, entry.revision)

    async def _read_stage(self, operation_id: str) -> OperationStage:
        """Return the stage of an operation by its last event on the leader. Nothing follows a terminal event."""
        last = await self._journal.last_message(operation_id)
        if last is None:
            return OperationStage.ENDED
        event = last.subject.rpartition(".")[2]
        if event in _MAYBE_UNWOKEN:
            return OperationStage.REQUESTED
        return OperationStage.ENDED if event in _TERMINAL_EVENTS else OperationStage.STARTED

    async def _read_waiters(self, lock: str) -> tuple[Claim, ...]:
        found = await self._bucket.read_all(_waiter_key(lock))
        claims = (_decode_claim(data) for _, data in sorted(found.items()))
        return tuple(claim for claim in claims if claim is not None)


def _owner_key(lock: str) -> str:
    return f"{_OWNER_PREFIX}{lock}"


def _waiter_key(lock: str, claim: Claim | None = None, *, operation_id: str = "") -> str:
    """Return the key of a waiter. Without a claim: a pattern for one operation, or for all."""
    if claim is not None:
        return f"w.{lock}.{claim.sequence:020d}.{claim.operation_id}"
    return f"w.{lock}.*.{operation_id}" if operation_id else f"w.{lock}.>"


def _owner(entry: KeyValueEntry) -> Claim | None:
    return _decode_claim(entry.data) if entry.data else None


def _decode_claim(data: bytes) -> Claim | None:
    try:
        claim = _decode(data)
        check_operation_id(claim.operation_id)
        Kind.parse(claim.kind)  # subjects are built from it
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # A foreign value does not own the lock; the next claim overwrites it.
        logger.warning("a lock that can't be read is ignored: %s", error)
        return None
    return claim
