"""Schedules the deadlines of operations that are still open half a minute after their request (docs/adr/0012).

Replicas share one durable consumer of requests, so each request is processed by one of them, or by another if that one
dies. The consumer delivers headers only: most operations have ended by then, and need only an acknowledgement.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from opstream_journal import Connection, DeliveredMessage, Journal, JournalError, PullConsumer, SnapshotEntry
from opstream_journal.outage_log import BoundedLog, OutageLog
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.runtime.pull_worker import PullWorker
from opstream_journal.stores.snapshots import SnapshotReader
from opstream_journal.stores.timers import schedule_deadline
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.operation.state import Operation
from opstream_schemas.webhook_delivery import OUTCOME_EVENTS

from .deadlines import SCAN_DELAY, RecentIds
from .projection.snapshot_fold import fold_all

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 1_000
"""Requests that one process holds at most; the others wait in the stream."""

_BATCH_SPREAD: Final = 1 / 30
"""How much longer than the scan delay a batch waits, as a fraction of it, so that it contains more requests."""
_WORKERS: Final = 32

Requests = list[tuple[str, DeliveredMessage]]
"""Operation ids, and the messages that named them."""


class DeadlineScanner:
    """One replica.

    Args:
        connection: the connection, which is up.
        journal: started; read for operations that have no snapshot, and whether those that are open there have ended.
        ended: operations that are known to have ended.
        now: the time, with zone.
        monotonic: monotonic seconds.
        scan_delay: see `SCAN_DELAY`; much less than the consumer's ack_wait.
        consumer: the durable consumer that all replicas share.
    """

    def __init__(
        self,
        connection: Connection,
        journal: Journal,
        ended: RecentIds,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        scan_delay: float = SCAN_DELAY,
        consumer: str = subjects.PROJECTOR_DEADLINES_CONSUMER,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._ended = ended
        self._now = now
        self._scan_delay = scan_delay
        self._snapshots = SnapshotReader(connection)
        self._foreign = BoundedLog(logger, "messages among the requests that are none", clock=monotonic)
        self._outage = OutageLog(
            logger, "deadlines can't be scheduled", "deadlines can be scheduled again", clock=monotonic
        )
        self._worker = PullWorker(
            connection, PullConsumer(connection, subjects.OPERATIONS_STREAM, consumer, clock=monotonic)
        )
        self._young: deque[DeliveredMessage] = deque()
        """Requests younger than the scan delay; in stream order, except redelivered ones."""

    @property
    def is_ready(self) -> bool:
        """Return True if deadlines are scheduled now."""
        return self._worker.is_ready

    async def run(self) -> None:
        """Schedule deadlines until cancelled. What is held then is released.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        await self._snapshots.start()
        try:
            async with self._worker.pulling(BATCH_SIZE):
                while True:
                    await self._process(await self._next_batch())
        finally:
            if self._connection.is_connected:
                await self._snapshots.stop()

    async def _next_batch(self) -> list[DeliveredMessage]:
        """Wait until the first request is old enough, and a little longer for those close behind it."""
        if not self._young:
            self._young.append(await self._worker.next())
        self._drain()
        age = self._age(self._young[0])
        if self._is_young(age):
            await self._worker.sleep(self._scan_delay * (1 + _BATCH_SPREAD) - age)
            self._drain()
        batch = []
        while self._young and not self._is_young(self._age(self._young[0])):
            batch.append(self._young.popleft())
        self._worker.add_demand(len(batch))
        return batch

    def _drain(self) -> None:
        while (message := self._worker.next_nowait()) is not None:
            self._young.append(message)

    def _age(self, message: DeliveredMessage) -> float:
        return (self._now() - message.stored_at) / timedelta(seconds=1)

    def _is_young(self, age: float) -> bool:
        # A request from further in the future means that a clock is wrong: do not wait for it.
        return -self._scan_delay < age < self._scan_delay

    async def _process(self, batch: Iterable[DeliveredMessage]) -> None:
        requests: Requests = []
        for message in batch:
            try:
                operation_id = subjects.parse_event_subject(message.subject).operation_id
            except InvalidName as error:
                self._foreign.log(logging.ERROR, "sequence %s is not a request: %s", message.sequence, error)
                await self._worker.ack(message)
                continue
            if operation_id in self._ended:
                await self._worker.ack(message)
            else:
                requests.append((operation_id, message))
        for _, message in await self._worker.retry(self._schedule_open, requests):
            await self._worker.release(message, self._scan_delay)

    async def _schedule_open(self, requests: Requests) -> Requests:
        """Schedule the deadlines of open operations. Return the requests that failed with an error of the broker."""
        if not requests:
            return []
        failed: Requests = []
        reasons: list[JournalError] = []
        try:
            snapshots = await self._snapshots.get(list({operation_id for operation_id, _ in requests}))
        except JournalError as error:
            self._outage.failed(error)
            return requests
        todo = iter(requests)

        async def work() -> None:
            for operation_id, message in todo:
                try:
                    await self._schedule_if_open(operation_id, message, snapshots)
                except JournalError as error:
                    reasons.append(error)
                    failed.append((operation_id, message))

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(_WORKERS, len(requests))):
                workers.create_task(work())
        if failed:
            self._outage.failed(reasons[0])
        else:
            self._outage.recovered()
        return failed

    async def _schedule_if_open(
        self, operation_id: str, message: DeliveredMessage, snapshots: Mapping[str, SnapshotEntry]
    ) -> None:
        entry = snapshots.get(operation_id)
        if entry is None and message.deliveries == 1:
            # Most likely the view lags. Give the projector time to catch up, without the load of journal reads.
            await self._worker.release(message, self._scan_delay)
            return
        operation = entry.operation if entry is not None else None
        if operation is None:
            operation = await self._load(operation_id)
        elif not operation.is_terminal and await self._has_ended(operation_id):
            operation = None  # the view lags behind by more than the scan delay
        if operation is not None and not operation.is_terminal:
            await schedule_deadline(self._connection, operation.kind, operation_id, operation.deadline)
            crash_point(CrashPoint.PROJECTOR_DEADLINE_ARMED)
        await self._worker.ack(message)

    async def _has_ended(self, operation_id: str) -> bool:
        """Return True if the journal has the end of an operation. One that ended at once has no timer, so its end would
        cancel none, and the timer would stay until the deadline."""
        last = await self._journal.last_message(operation_id)
        return last is not None and last.subject.rpartition(".")[2] in OUTCOME_EVENTS

    async def _load(self, operation_id: str) -> Operation | None:
        try:
            events = await self._journal.events(operation_id)
        except InvalidEvent as error:
            logger.error("operation %s can't be read, so its deadline is not scheduled: %s", operation_id, error)  # noqa: TRY400
            return None
        return fold_all(events).operation if events else None
