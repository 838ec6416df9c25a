"""The projector's loop: collect a batch, bring the view up to date, acknowledge.

A message is acknowledged only after the view is at least as new as its event. A batch is folded to the last state of
each operation, so an operation that began and ended within a batch is written once: each write waits for the broker's
disk. Batches are processed one after the other, so a process never writes one operation twice at once.

The projector decides nothing about operations, and no request waits for it: where the view lags, the API reads the
journal.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from opstream_journal import (
    Connection,
    DeliveredMessage,
    EventTooLarge,
    Journal,
    JournalError,
    PullConsumer,
    SnapshotStore,
)
from opstream_journal.jetstream.connection import end_task
from opstream_journal.outage_log import OutageLog
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.runtime.pull_worker import PullWorker
from opstream_journal.stores.snapshots import SnapshotReader
from opstream_projector.after_effects import AfterEffect
from opstream_schemas import subjects
from opstream_schemas.events import RecordedEvent
from opstream_schemas.operation.state import Operation

from .batch_writer import BatchWriter
from .event_batch import BatchDecoder, DeliveredEvent, EventGroups
from .operation_meter import OperationMeter
from .snapshot_cache import SnapshotCache
from .snapshot_writer import ProjectionResult, SnapshotWriter

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 2_000
"""Messages in one batch at most."""
LINGER: Final = 0.05
"""Seconds that a batch waits for more messages, so that short operations are written once."""
BUSY_LINGERS: Final = 10
"""How many times longer it waits if the one before had `BUSY_MESSAGES`: fewer and larger batches cost less."""
BUSY_MESSAGES: Final = 50
"""Messages of a batch from which on there is much to do."""

_FIRST_BATCH_SIZE: Final = 200
_MIN_BATCH_SIZE: Final = 16
_BATCH_BYTES: Final = 16 * 1024 * 1024
_WRITERS: Final = 64
_CACHE_ENTRIES: Final = 10_000
_CACHE_BYTES: Final = 32 * 1024 * 1024
_MAX_REQUEUE_DELAY: Final = 30.0
_DOUBT_DELIVERIES: Final = 5
_FINISH_TIMEOUT: Final = 3.0


class OperationIndex(Protocol):
    """The part of `opstream_projector.index` that is used here."""

    async def store(self, operations: Sequence[Operation], newest: datetime) -> None:
        """Bring the index up to date. It raises nothing: an index that is away catches up later.

        Args:
            operations: what the view holds now.
            newest: when the newest of their events was stored.
        """
        ...


class Projector:
    """One replica.

    Args:
        connection: the connection.
        journal: started.
        snapshots: the view.
        now: the time, with zone.
        monotonic: monotonic seconds.
        effects: what else follows from an operation's state.
        meter: counts the events; None to count nothing.
        index: gets each state before its events are acknowledged; None for no index.
        consumer: the durable consumer that all replicas share.
        linger: see `LINGER`.
    """

    def __init__(
        self,
        connection: Connection,
        journal: Journal,
        snapshots: SnapshotStore,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        effects: Sequence[AfterEffect] = (),
        meter: OperationMeter | None = None,
        index: OperationIndex | None = None,
        consumer: str = subjects.PROJECTOR_CONSUMER,
        linger: float = LINGER,
    ) -> None:
        self._connection = connection
        cache = SnapshotCache(max_entries=_CACHE_ENTRIES, max_bytes=_CACHE_BYTES)
        self._writer = SnapshotWriter(snapshots, journal, cache, now=now, sleep=connection.sleep)
        self._entries = SnapshotReader(connection)
        self._batches = BatchWriter(snapshots, self._entries, cache, now=now)
        self._worker = PullWorker(
            connection, PullConsumer(connection, subjects.OPERATIONS_STREAM, consumer, clock=monotonic)
        )
        self._effects = effects
        self._meter = meter
        self._index = index
        self._decoder = BatchDecoder()
        self._linger = linger
        self._outage = OutageLog(logger, "the view can't be written", "the view can be written again", clock=monotonic)
        self.held_since: datetime | None = None
        """When the first message of the batch was stored that is processed now; None between batches."""
        self._limit = _FIRST_BATCH_SIZE
        """Messages of the next batch at most."""
        self._is_busy = False

    @property
    def is_ready(self) -> bool:
        """Return True if the view is kept up to date now."""
        return self._worker.is_ready

    async def run(self) -> None:
        """Project until cancelled. The current batch is finished then; other messages are released.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        await self._entries.start()
        try:
            async with self._worker.pulling(0):
                while True:
                    await self._process_shielded(await self._next_batch())
        finally:
            if self._connection.is_connected:
                await self._entries.stop()

    async def _next_batch(self) -> list[DeliveredMessage]:
        linger = self._linger * (BUSY_LINGERS if self._is_busy else 1)
        batch = await self._worker.gather(linger, self._limit)
        self._is_busy = len(batch) >= BUSY_MESSAGES
        # Ask for as many messages as fit into memory at their present size.
        size = sum(len(message.data) for message in batch) // len(batch)
        self._limit = min(BATCH_SIZE, max(_MIN_BATCH_SIZE, _BATCH_BYTES // max(size, 1)))
        return batch

    async def _process_shielded(self, batch: list[DeliveredMessage]) -> None:
        task = asyncio.create_task(self._process(batch), name="batch")
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            _, late = await asyncio.wait([task], timeout=_FINISH_TIMEOUT)
            if late:
                await end_task(task)
            raise

    async def _process(self, messages: list[DeliveredMessage]) -> None:
        self.held_since = messages[0].stored_at
        batch = self._decoder.decode(messages)
        await self._ack(batch.others)
        stored = await self._batches.project({one: _events(group) for one, group in batch.groups.items()})
        # If a part succeeds, the broker works: release the rest, so that other operations need not wait for it.
        project = functools.partial(self._project_groups, stored)
        failed = await self._worker.retry(project, batch.groups, is_partial_final=True)
        await self._requeue(delivered for group in failed.values() for delivered in group)
        self.held_since = None

    async def _project_groups(self, stored: Mapping[str, Operation], groups: EventGroups) -> EventGroups:
        """Write the snapshots of all operations that are not `stored` yet, and do what follows from each.

        Returns:
            The groups that failed with an error of the broker.
        """
        failed: EventGroups = {}
        reasons: list[JournalError] = []
        done = 0
        written: list[tuple[Operation, list[DeliveredEvent]]] = []
        todo = iter(groups.items())

        async def work() -> None:
            nonlocal done
            for operation_id, group in todo:
                if len(failed) < _WRITERS or done:
                    try:
                        operation, finished = await self._project(operation_id, group, stored.get(operation_id))
                        if self._index is None or operation is None:
                            await self._ack(delivered.message for delivered in finished)
                        else:
                            written.append((operation, finished))
                    except JournalError as error:
                        reasons.append(error)
                    else:
                        done += 1
                        continue
                # If nothing has succeeded so far, the rest need not wait for their time-outs one after the other.
                failed[operation_id] = group

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(_WRITERS, len(groups))):
                workers.create_task(work())
        await self._index_written(written)
        if failed:
            self._outage.failed(reasons[0])
        elif groups:
            self._outage.recovered()
        return failed

    async def _index_written(self, written: Sequence[tuple[Operation, list[DeliveredEvent]]]) -> None:
        """Store the states of a batch in the index, in one transaction, and acknowledge their events."""
        messages = [delivered.message for _, group in written for delivered in group]
        if self._index is not None and messages:
            newest = max(messages, key=lambda message: message.sequence).stored_at
            await self._index.store([operation for operation, _ in written], newest)
        await self._ack(messages)

    async def _project(
        self, operation_id: str, group: list[DeliveredEvent], stored: Operation | None
    ) -> tuple[Operation | None, list[DeliveredEvent]]:
        """Return the state that the view has now, if there is one, and the events to acknowledge."""
        operation = None
        try:
            if stored is not None:
                result = ProjectionResult(operation=stored)
            else:
                result = await self._writer.project(operation_id, _events(group))
        except EventTooLarge as error:
            logger.error("operation %s can't be stored in the view: %s", operation_id, error)  # noqa: TRY400 - no bug here
        else:
            operation = result.operation
            if operation is not None:
                for effect in self._effects:
                    await effect.apply(operation)
            crash_point(CrashPoint.PROJECTOR_WRITTEN)
            group = await self._requeue_doubtful(operation_id, group, result)
            if self._meter is not None and operation is not None:
                await self._meter.prepare(operation)
                self._meter.count(operation, (delivered.event for delivered in group))
        return operation, group

    async def _requeue_doubtful(
        self, operation_id: str, group: list[DeliveredEvent], result: ProjectionResult
    ) -> list[DeliveredEvent]:
        """Log refused events, and requeue doubtful ones a few times. Return the events to acknowledge."""
        for refused in result.refused:
            logger.error(
                "operation %s: the event at sequence %s is foreign, skipping it: %s",
                operation_id,
                refused.event.sequence,
                refused.reason,
            )
        if not result.doubtful:
            return group
        reasons = {doubtful.event.sequence: doubtful.reason for doubtful in result.doubtful}
        waiting = []
        for delivered in group:
            reason = reasons.get(delivered.event.sequence)
            if reason is None:
                continue
            if delivered.message.deliveries < _DOUBT_DELIVERIES:
                # Another replica may hold the events before it, and write them meanwhile.
                waiting.append(delivered)
            else:
                logger.error(
                    "operation %s: the event at sequence %s can't be folded, skipping it: %s",
                    operation_id,
                    delivered.event.sequence,
                    reason,
                )
        await self._requeue(waiting)
        return [delivered for delivered in group if delivered not in waiting]

    async def _ack(self, messages: Iterable[DeliveredMessage]) -> None:
        for message in messages:
            await self._worker.ack(message)

    async def _requeue(self, events: Iterable[DeliveredEvent]) -> None:
        for event in events:
            delay = min(2.0 ** min(event.message.deliveries - 1, 10), _MAX_REQUEUE_DELAY)
            await self._worker.release(event.message, delay)


def _events(group: Iterable[DeliveredEvent]) -> list[RecordedEvent]:
    return [delivered.event for delivered in group]
