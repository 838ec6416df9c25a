"""The loop: take what the consumer delivers, bring the view up to date, acknowledge. Caller: `main.py`.

A message is acknowledged only once the view is at least as new as its event. A batch is folded to the last state of
each operation, so an operation that began and ended within one is written once: each write waits for the broker's
disk. Batches follow each other, so no operation is written twice at once here; the next one arrives meanwhile.

It decides nothing about operations, and nobody waits for it: the API answers from the journal where the view lags.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

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
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_projector.after_effects import AfterEffect
from opstream_schemas import subjects

from .event_batch import BatchDecoder, DeliveredEvent, EventGroups
from .snapshot_cache import SnapshotCache
from .snapshot_writer import ProjectionResult, SnapshotWriter

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 1_000
"""Messages in one batch at most, and in what is pulled ahead of the next."""
LINGER: Final = 0.1
"""Seconds that a batch which is not full waits for more, so that short operations are written once."""

_FIRST_DEMAND: Final = 200
_MIN_DEMAND: Final = 16
_PULLED_BYTES: Final = 16 * 1024 * 1024
_WRITERS: Final = 64
_RECENT_ENTRIES: Final = 10_000
_RECENT_BYTES: Final = 32 * 1024 * 1024
_MAX_ROUNDS: Final = 5
_FIRST_BACKOFF: Final = 0.1
_MAX_REQUEUE_DELAY: Final = 30.0
_DOUBT_DELIVERIES: Final = 5
_RECONNECT_TIMEOUT: Final = 3_600.0
_FINISH_TIMEOUT: Final = 3.0


class Projector:
    """One replica.

    Args:
        link: the connection.
        journal: started.
        view: where snapshots go.
        now: the time, with zone.
        monotonic: monotonic seconds.
        effects: what else follows from an operation's state.
        consumer: the durable that all replicas share.
        linger: see `LINGER`.
    """

    def __init__(
        self,
        link: Connection,
        journal: Journal,
        view: SnapshotStore,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        effects: Sequence[AfterEffect] = (),
        consumer: str = subjects.PROJECTOR_CONSUMER,
        linger: float = LINGER,
    ) -> None:
        self._link = link
        recent = SnapshotCache(max_entries=_RECENT_ENTRIES, max_bytes=_RECENT_BYTES)
        self._writer = SnapshotWriter(view, journal, recent, now=now, rest=link.sleep)
        self._puller = PullConsumer(link, subjects.OPERATIONS_STREAM, consumer, clock=monotonic)
        self._effects = effects
        self._decoder = BatchDecoder()
        self._linger = linger
        self._demand = 0
        self._held: set[DeliveredMessage] = set()
        """Taken, and neither acknowledged nor given back."""
        self._is_running = False
        self._is_troubled = False

    @property
    def is_ready(self) -> bool:
        """Whether the view is being kept up to date now."""
        return self._is_running and not self._is_troubled and self._link.is_connected

    async def run(self) -> None:
        """Project until cancelled; the batch in hand is finished then, what is left is given back.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        await self._puller.start()
        self._want(_FIRST_DEMAND)
        self._is_running = True
        try:
            while True:
                await self._finish(await self._next_batch())
        finally:
            self._is_running = False
            await self._release()

    async def _next_batch(self) -> list[DeliveredMessage]:
        batch = [self._take(await self._puller.next())]
        self._drain(batch)
        if len(batch) < BATCH_SIZE:
            await self._link.sleep(self._linger)
            self._drain(batch)
        # As many as fit into memory of the size that they have now, whatever results and inputs they carry.
        size = sum(len(message.data) for message in batch) // len(batch)
        self._want(min(BATCH_SIZE, max(_MIN_DEMAND, _PULLED_BYTES // max(size, 1))))
        return batch

    def _drain(self, batch: list[DeliveredMessage]) -> None:
        while len(batch) < BATCH_SIZE and (message := self._puller.next_nowait()) is not None:
            batch.append(self._take(message))

    def _take(self, message: DeliveredMessage) -> DeliveredMessage:
        self._demand -= 1
        self._held.add(message)
        return message

    def _want(self, target: int) -> None:
        missing = target - self._demand
        if missing > 0:
            self._demand += missing
            self._puller.add_demand(missing)

    async def _finish(self, batch: list[DeliveredMessage]) -> None:
        task = asyncio.create_task(self._process(batch), name="batch")
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            _, late = await asyncio.wait([task], timeout=_FINISH_TIMEOUT)
            if late:
                await end_task(task)
            raise

    async def _process(self, batch: list[DeliveredMessage]) -> None:
        groups, others = self._decoder.decode(batch)
        await self._ack(others)
        rounds, backoff = 0, _FIRST_BACKOFF
        while failed := await self._project_groups(groups):
            self._is_troubled = True
            if not self._link.is_connected:
                await self._link.wait_connected(_RECONNECT_TIMEOUT)
            elif len(failed) < len(groups) or rounds == _MAX_ROUNDS:
                # Not the broker's trouble, or not one that passes: nobody else is to wait for these.
                await self._requeue(delivery for group in failed.values() for delivery in group)
                break
            else:
                rounds += 1
                await self._link.sleep(backoff)
                backoff *= 2
            groups = failed
        self._is_troubled = False

    async def _project_groups(self, groups: EventGroups) -> EventGroups:
        """Write the snapshots of all operations; those that the broker kept from it."""
        failed: EventGroups = {}
        reasons: list[JournalError] = []
        done = 0
        todo = iter(groups.items())

        async def work() -> None:
            nonlocal done
            for operation_id, group in todo:
                if len(failed) < _WRITERS or done:
                    try:
                        await self._project(operation_id, group)
                    except JournalError as error:
                        reasons.append(error)
                    else:
                        done += 1
                        continue
                # Where nothing succeeds, the rest need not wait for their time-outs one after the other.
                failed[operation_id] = group

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(_WRITERS, len(groups))):
                workers.create_task(work())
        if failed:
            logger.warning("%s of %s operations can't be written now: %s", len(failed), len(groups), reasons[0])
        return failed

    async def _project(self, operation_id: str, group: list[DeliveredEvent]) -> None:
        try:
            outcome = await self._writer.project(operation_id, [delivery.event for delivery in group])
        except EventTooLarge as error:
            logger.error("operation %s can't be stored in the view: %s", operation_id, error)  # noqa: TRY400 - no bug here
        else:
            if outcome.operation is not None:
                for effect in self._effects:
                    await effect.apply(outcome.operation)
            crash_point(CrashPoint.PROJECTOR_WRITTEN)
            group = await self._requeue_doubtful(operation_id, group, outcome)
        await self._ack(delivery.message for delivery in group)

    async def _requeue_doubtful(
        self, operation_id: str, group: list[DeliveredEvent], outcome: ProjectionResult
    ) -> list[DeliveredEvent]:
        for refusal in outcome.refused:
            logger.error(
                "operation %s: the event at sequence %s is foreign, passing over it: %s",
                operation_id,
                refusal.event.sequence,
                refusal.reason,
            )
        if not outcome.doubtful:
            return group
        doubts = {refusal.event.sequence: refusal.reason for refusal in outcome.doubtful}
        waiting = []
        for delivery in group:
            reason = doubts.get(delivery.event.sequence)
            if reason is None:
                continue
            if delivery.message.deliveries < _DOUBT_DELIVERIES:
                # Another replica may hold the events before it, and store them meanwhile.
                waiting.append(delivery)
            else:
                logger.error(
                    "operation %s: the event at sequence %s can't be folded, passing over it: %s",
                    operation_id,
                    delivery.event.sequence,
                    reason,
                )
        await self._requeue(waiting)
        return [delivery for delivery in group if delivery not in waiting]

    async def _ack(self, messages: Iterable[DeliveredMessage]) -> None:
        for message in messages:
            await message.ack()
            self._held.discard(message)

    async def _requeue(self, deliveries: Iterable[DeliveredEvent]) -> None:
        for delivery in deliveries:
            message = delivery.message
            await message.nak(min(2.0 ** min(message.deliveries - 1, 10), _MAX_REQUEUE_DELAY))
            self._held.discard(message)

    async def _release(self) -> None:
        await self._puller.stop()
        if self._link.is_connected:  # otherwise the broker finds out by itself
            for message in self._held:
                await message.nak()
        self._held.clear()
