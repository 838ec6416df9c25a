"""Trails half a minute behind the requests, and arms the deadlines of the operations that are still open by then.

Caller: `main.py`. Replicas share one durable consumer, so each request is looked at by one of them, and by another one
if that dies. It brings subjects only: most operations have ended by then and need nothing but an acknowledgement.
Why so late: docs/adr/0012.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from opstream_journal import Connection, DeliveredMessage, Journal, JournalError, PullConsumer, SnapshotEntry
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.stores.snapshots import SnapshotReader
from opstream_journal.stores.timers import schedule_deadline
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.operation.state import Operation

from .deadlines import SCAN_DELAY, RecentIds
from .projection.snapshot_fold import fold_all

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 1_000
"""Requests in hand at most; the others wait in the stream."""

_BATCH_SPREAD: Final = 1 / 30
_WORKERS: Final = 32
_MAX_ROUNDS: Final = 5
_FIRST_BACKOFF: Final = 0.1
_RECONNECT_TIMEOUT: Final = 3_600.0

Requests = list[tuple[str, DeliveredMessage]]
"""Operation ids, and the messages that named them."""


class DeadlineScanner:
    """One replica.

    Args:
        link: the connection, which is up.
        journal: started; for operations that the view does not know.
        ended: operations that are known to have ended.
        now: the time, with zone.
        monotonic: monotonic seconds.
        behind: see `SCAN_DELAY`; much less than the consumer's ack_wait.
        consumer: the durable that all replicas share.
    """

    def __init__(
        self,
        link: Connection,
        journal: Journal,
        ended: RecentIds,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        behind: float = SCAN_DELAY,
        consumer: str = subjects.PROJECTOR_DEADLINES_CONSUMER,
    ) -> None:
        self._link = link
        self._journal = journal
        self._ended = ended
        self._now = now
        self._scan_delay = behind
        self._snapshots = SnapshotReader(link)
        self._puller = PullConsumer(link, subjects.OPERATIONS_STREAM, consumer, clock=monotonic)
        self._young: deque[DeliveredMessage] = deque()
        """Taken, and not old enough yet; in stream order, but for what was redelivered."""
        self._held: set[DeliveredMessage] = set()
        """Taken, and neither acknowledged nor given back."""
        self._is_running = False
        self._is_troubled = False

    @property
    def is_ready(self) -> bool:
        """Whether deadlines are being armed now."""
        return self._is_running and not self._is_troubled and self._link.is_connected

    async def run(self) -> None:
        """Work until cancelled; what is in hand is given back then.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        await self._snapshots.start()
        await self._puller.start()
        self._puller.add_demand(BATCH_SIZE)
        self._is_running = True
        try:
            while True:
                await self._process(await self._next_batch())
        finally:
            self._is_running = False
            await self._puller.stop()
            if self._link.is_connected:  # otherwise the broker finds out by itself
                for message in self._held:
                    await message.nak()
                await self._snapshots.stop()

    async def _next_batch(self) -> list[DeliveredMessage]:
        """Wait until the first request is old enough, and a little longer, so that those close behind come along."""
        if not self._young:
            self._take(await self._puller.next())
        self._drain()
        age = self._age(self._young[0])
        if self._is_young(age):
            await self._link.sleep(self._scan_delay * (1 + _BATCH_SPREAD) - age)
            self._drain()
        batch = []
        while self._young and not self._is_young(self._age(self._young[0])):
            batch.append(self._young.popleft())
        self._puller.add_demand(len(batch))
        return batch

    def _drain(self) -> None:
        while (message := self._puller.next_nowait()) is not None:
            self._take(message)

    def _take(self, message: DeliveredMessage) -> None:
        self._held.add(message)
        self._young.append(message)

    def _age(self, message: DeliveredMessage) -> float:
        return (self._now() - message.stored_at) / timedelta(seconds=1)

    def _is_young(self, age: float) -> bool:
        # A clock that is wrong by more than this is no reason to wait for what it calls the future.
        return -self._scan_delay < age < self._scan_delay

    async def _process(self, batch: Iterable[DeliveredMessage]) -> None:
        requests: Requests = []
        for message in batch:
            try:
                operation_id = subjects.parse_event_subject(message.subject).operation_id
            except InvalidName as error:
                logger.error("sequence %s is no request: %s", message.sequence, error)  # noqa: TRY400 - no bug here
                await self._ack(message)
                continue
            if operation_id in self._ended:
                await self._ack(message)
            else:
                requests.append((operation_id, message))
        rounds, backoff = 0, _FIRST_BACKOFF
        while requests := await self._schedule_open(requests):
            self._is_troubled = True
            if not self._link.is_connected:
                await self._link.wait_connected(_RECONNECT_TIMEOUT)
            elif rounds == _MAX_ROUNDS:
                for _, message in requests:
                    await self._requeue(message)
                break
            else:
                rounds += 1
                await self._link.sleep(backoff)
                backoff *= 2
        self._is_troubled = False

    async def _schedule_open(self, requests: Requests) -> Requests:
        """Arm what is open; those that the broker kept from it."""
        if not requests:
            return []
        failed: Requests = []
        reasons: list[JournalError] = []
        try:
            snapshots = await self._snapshots.get(list({operation_id for operation_id, _ in requests}))
        except JournalError as error:
            logger.warning("deadlines can't be armed now: %s", error)
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
            logger.warning("%s of %s deadlines can't be armed now: %s", len(failed), len(requests), reasons[0])
        return failed

    async def _schedule_if_open(
        self, operation_id: str, message: DeliveredMessage, snapshots: Mapping[str, SnapshotEntry]
    ) -> None:
        entry = snapshots.get(operation_id)
        if entry is None and message.deliveries == 1:
            # The view lags, most likely; its projector is to catch up first, undisturbed by reads of the journal.
            await self._requeue(message)
            return
        operation = entry.operation if entry is not None else None
        if operation is None:
            operation = await self._load(operation_id)
        if operation is not None and not operation.is_terminal:
            await schedule_deadline(self._link, operation.kind, operation_id, operation.deadline)
            crash_point(CrashPoint.PROJECTOR_DEADLINE_ARMED)
        await self._ack(message)

    async def _load(self, operation_id: str) -> Operation | None:
        try:
            events = await self._journal.events(operation_id)
        except InvalidEvent as error:
            logger.error("operation %s can't be read, so its deadline is not armed: %s", operation_id, error)  # noqa: TRY400
            return None
        return fold_all(events).operation if events else None

    async def _ack(self, message: DeliveredMessage) -> None:
        await message.ack()
        self._held.discard(message)

    async def _requeue(self, message: DeliveredMessage) -> None:
        await message.nak(self._scan_delay)
        self._held.discard(message)
