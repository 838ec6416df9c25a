"""The sweep: a slow, endless walk through the view, for open operations that nothing moves on any more.

A timer, a wake-up or a request may be lost: with the stream TIMERS, with a consumer, or by a fault of the broker. Then
its operation would stay as it is, past its retry time and past its deadline. The sweep sends the message again. It
decides nothing: the process that gets the message reads the operation and decides by that, so a message too many does
no harm. docs/adr/0033 has the reasons and the cost.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from opstream_journal import Connection, JournalError, JournalUnavailable
from opstream_journal.command_handler import CommandHandler
from opstream_journal.jetstream.scans.stream_scan import stream_bounds
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.stores.action_catalog import read_current
from opstream_journal.stores.message_traces import TRACED_AT_ONCE, TraceReader
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.snapshots import VIEW_STREAM, SnapshotReader
from opstream_journal.stores.timers import schedule_wake_up, send_deadline, send_wake_up
from opstream_schemas import subjects
from opstream_schemas.errors import DecisionRefused, ErrorCode, FoldRefused, InvalidEvent
from opstream_schemas.events import OperationError
from opstream_schemas.names import Kind
from opstream_schemas.operation.commands import FailAttempt
from opstream_schemas.operation.dispatch_decision import SWEEP_REASON
from opstream_schemas.operation.lateness import (
    GRACE,
    UNCERTAIN_FOR,
    ConsumerPosition,
    Late,
    LateCause,
    MessageTraces,
    find_late,
    is_lost,
)
from opstream_schemas.operation.state import Operation

logger = logging.getLogger(__name__)

SWEEP_INTERVAL: Final = 60.0
"""Seconds between two walks; also before the first one, so that the projector has caught up."""
SHARE: Final = 1 / 30
"""The share of its time that a walk works; it sleeps the rest, so that a large view costs no more than a small one."""
CONDITION: Final = "OperationsWereLate"
COUNTER: Final = "rescheduled"

_PAGE: Final = 500
_MAX_LOGGED: Final = 20
"""Operations that one walk names in the log; the others are counted."""
_MAX_SIGHTED: Final = 10_000
_MAX_OWNERS: Final = 1_000
_FAIL_BUDGET: Final = 5.0

LateOperation = tuple[Operation, Late]


class Sweeper:
    """One replica. Every projector sweeps, and none knows of the others.

    Args:
        connection: the connection, which is up.
        handler: ends attempts whose lease is gone.
        locks: started.
        conditions: shows that operations were late, and their number.
        interval: see `SWEEP_INTERVAL`.
        grace: see `GRACE`.
        uncertain_for: see `UNCERTAIN_FOR`.
        share: see `SHARE`.
    """

    def __init__(
        self,
        connection: Connection,
        handler: CommandHandler,
        locks: ResourceLocks,
        conditions: Conditions,
        *,
        interval: float = SWEEP_INTERVAL,
        grace: timedelta = GRACE,
        uncertain_for: timedelta = UNCERTAIN_FOR,
        share: float = SHARE,
    ) -> None:
        self._connection = connection
        self._handler = handler
        self._locks = locks
        self._conditions = conditions
        self._interval = interval
        self._grace = grace
        self._uncertain_for = uncertain_for
        self._share = share
        self._monotonic = handler.monotonic
        self._snapshots = SnapshotReader(connection)
        self._traces = TraceReader(connection)
        self._sighted: OrderedDict[str, tuple[str, int, float]] = OrderedDict()
        """Attempts without a lease, as they were seen first: token, position, and monotonic seconds."""
        self.is_started = False
        """True once walks are possible."""

    @property
    def is_ready(self) -> bool:
        """Return True: without the sweep, everything else still works."""
        return True

    async def run(self) -> None:
        """Walk until cancelled. What the broker refuses is logged, and tried again in the next walk."""
        await self._snapshots.start()
        await self._traces.start()
        self.is_started = True
        try:
            while True:
                await self._connection.sleep(self._interval)
                try:
                    await self.walk()
                except JournalError as error:
                    logger.info("late operations can't be looked for now: %s", error)
        finally:
            if self._connection.is_connected:
                await self._snapshots.stop()
                await self._traces.stop()

    async def walk(self) -> int:
        """Walk through the view once. Return the number of operations that were moved on.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        walk = _Walk(self._connection)
        # What is written later was not late when the walk began; and a busy view grows faster than a walk goes on.
        end = (await stream_bounds(self._connection, VIEW_STREAM)).last
        revision = 1
        while revision <= end:
            began = self._monotonic()
            page = await self._snapshots.page(revision, _PAGE)
            if not page:
                break
            revision = page[-1].revision + 1
            await self._sweep([entry.operation for entry in page if entry.operation is not None], walk)
            await self._connection.sleep((self._monotonic() - began) * (1 / self._share - 1))
        self._report(walk)
        return walk.moved

    async def _sweep(self, operations: Sequence[Operation], walk: _Walk) -> None:
        found: list[LateOperation] = []
        for operation in operations:
            if operation.is_terminal:
                continue
            await walk.prepare(operation)
            queue = walk.position(operation.kind, operation.queue) if operation.queue else None
            late = find_late(operation, walk.position(operation.kind), queue=queue, now=walk.now, grace=self._grace)
            if late is not None:
                found.append((operation, late))
        for start in range(0, len(found), TRACED_AT_ONCE):
            some = found[start : start + TRACED_AT_ONCE]
            traces = await self._traces.read([(operation, late.cause) for operation, late in some])
            for (operation, late), trace in zip(some, traces, strict=True):
                await self._move_on_if_lost(operation, late, trace, walk)

    async def _move_on_if_lost(self, operation: Operation, late: Late, traces: MessageTraces, walk: _Walk) -> None:
        if traces.queue and not walk.is_served(operation.kind, traces.queue):
            traces = msgspec.structs.replace(traces, sequence=0, queue="")  # no runner gets what waits there
        position = walk.due if late.cause is LateCause.DEADLINE else walk.position(operation.kind, traces.queue)
        if late.cause is LateCause.LEASE:
            if not self._has_been_sighted(operation):
                return
        elif not is_lost(late, traces, position, now=walk.now, grace=self._grace, uncertain_for=self._uncertain_for):
            return
        if late.cause in _BY_WAKE_UP and await self._waits_for_another(operation, walk):
            return
        # The view may be behind, and then there is nothing to do.
        last = await self._handler.journal.last_message(operation.id)
        if last is None or last.seq != operation.stream_sequence:
            return
        if await self._move_on(operation, late, walk.now):
            walk.moved += 1
            if walk.moved <= _MAX_LOGGED:
                logger.warning(
                    "operation %s: %s %s, and nothing was left that would move it on: it is scheduled again",
                    operation.id,
                    _WHAT[late.cause],
                    late.since.isoformat(timespec="seconds"),
                )

    async def _move_on(self, operation: Operation, late: Late, now: datetime) -> bool:
        match late.cause:
            case LateCause.DEADLINE:
                await send_deadline(self._connection, operation.kind, operation.id)
            case LateCause.START | LateCause.RETRY | LateCause.SIGNAL:
                await send_wake_up(self._connection, operation.kind, operation.id, SWEEP_REASON, armed_by=late.sequence)
            case LateCause.LEASE:
                return await self._end_attempt(operation, now)
        return True

    async def _end_attempt(self, operation: Operation, now: datetime) -> bool:
        """Record that the live attempt is lost, and schedule the next one. Return False if it is not live any more."""
        live = operation.live
        if live is None:
            return False
        # Should its runner be alive, it reads this within its lease, and stops the handler before the next attempt.
        retry_at = now + timedelta(seconds=2 * live.lease)
        error = OperationError(code=ErrorCode.RUNNER_LOST, message="the broker has lost the message of the attempt")
        command = FailAttempt(token=live.token, error=error, retry_at=retry_at, counted=False)
        try:
            ended = await self._handler.handle(operation.id, command, budget=_FAIL_BUDGET)
        except (DecisionRefused, FoldRefused, InvalidEvent) as refused:
            logger.info("operation %s: its attempt is not ended: %s", operation.id, refused)
            return False
        if ended is None or ended.waiting is None:
            return False
        await schedule_wake_up(
            self._connection,
            ended.kind,
            ended.id,
            SWEEP_REASON,
            at=ended.waiting.retry_at,
            armed_by=ended.waiting.sequence,
        )
        return True

    def _has_been_sighted(self, operation: Operation) -> bool:
        """Return True if this attempt had no lease in an earlier walk either, a lease and the grace ago."""
        live = operation.live
        if live is None:
            return False
        token, position, since = self._sighted.pop(operation.id, ("", 0, 0.0))
        now = self._monotonic()
        if (token, position) != (live.token, operation.position):
            since = now
        self._sighted[operation.id] = (live.token, operation.position, since)
        while len(self._sighted) > _MAX_SIGHTED:
            self._sighted.popitem(last=False)
        return now - since > live.lease + self._grace.total_seconds()

    async def _waits_for_another(self, operation: Operation, walk: _Walk) -> bool:
        """Return True if the operation is in the queue of its lock, and another one owns that."""
        if not operation.hold or not await self._locks.is_queued(operation.hold, operation.id):
            return False
        owner = await walk.owner(operation.hold, self._locks)
        return owner not in {"", operation.id}

    def _report(self, walk: _Walk) -> None:
        if not walk.moved:
            self._conditions.resolve(CONDITION)
            return
        self._conditions.count(COUNTER, walk.moved)
        if walk.moved > _MAX_LOGGED:
            logger.warning("%d further late operations are scheduled again", walk.moved - _MAX_LOGGED)
        self._conditions.report(
            CONDITION,
            f"{walk.moved} operations were late, and nothing was left to move them on; they are scheduled again",
            "find out what emptied the stream TIMERS or replaced a consumer: a restore, a purge, the broker's log",
        )


_BY_WAKE_UP: Final = frozenset({LateCause.START, LateCause.RETRY, LateCause.SIGNAL})
_WHAT: Final = {
    LateCause.DEADLINE: "its deadline was",
    LateCause.RETRY: "its next attempt was due at",
    LateCause.SIGNAL: "the signal that it waited for was there at",
    LateCause.START: "no attempt has begun, which was possible from",
    LateCause.LEASE: "its attempt has lost its lease; it was requested at",
}


class _Walk:
    """What one walk reads once: the positions of consumers, the owners of locks, and the broker's time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._positions: dict[tuple[Kind, str], ConsumerPosition | None] = {}
        self._has_priorities: dict[Kind, bool] = {}
        self._owners: OrderedDict[str, str] = OrderedDict()
        self.due: ConsumerPosition | None = None
        self.now = datetime.min.replace(tzinfo=UTC)
        """By the broker's clock, when it answered last."""
        self.moved = 0

    async def prepare(self, operation: Operation) -> None:
        """Read the positions for an operation, if this walk has not read them yet.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        if not self._positions:
            self.due = await self._read(subjects.PROJECTOR_DUE_CONSUMER)
            if self.due is None:
                raise JournalUnavailable("the consumer of deadlines is missing", maybe_stored=False)
        kind, queue = operation.kind, operation.queue
        if (kind, "") not in self._positions:
            self._positions[kind, ""] = await self._read(subjects.runner_consumer(kind))
        if queue and (kind, queue) not in self._positions:
            if kind not in self._has_priorities:
                spec = (await read_current(self._connection, kind))[1]
                self._has_priorities[kind] = spec is not None and bool(spec.policy.priority)
            self._positions[kind, queue] = await self._read(subjects.runner_consumer(kind, queue))

    def position(self, kind: Kind, queue: str = "") -> ConsumerPosition | None:
        """Return the position of a consumer of an action's runners; None without one."""
        return self._positions.get((kind, queue))

    def is_served(self, kind: Kind, queue: str) -> bool:
        """Return True if runners of an action look into a further queue: its author may have taken them away."""
        return self._has_priorities.get(kind, False) and self._positions.get((kind, queue)) is not None

    async def owner(self, lock: str, locks: ResourceLocks) -> str:
        """Return the open operation that owns a lock; empty for none."""
        if lock not in self._owners:
            claim = await locks.owner(lock)
            self._owners[lock] = "" if claim is None else claim.operation_id
            if len(self._owners) > _MAX_OWNERS:
                self._owners.popitem(last=False)
        return self._owners[lock]

    async def _read(self, consumer: str) -> ConsumerPosition | None:
        found = await admin.consumer_position(self._connection, subjects.OPERATIONS_STREAM, consumer)
        if found is None:
            return None
        self.now = max(self.now, found.now)
        return ConsumerPosition(acknowledged=found.acknowledged, delivered=found.delivered)
