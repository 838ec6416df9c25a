"""Turns each outcome into deliveries: one for each receiver that wants it.

An outcome is acknowledged after all its deliveries are stored on the broker. An outcome that no receiver wants costs
only the acknowledgement. The operation's request is read only if callbacks are allowed at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from opstream_journal import Connection, DeliveredMessage, JournalError, JournalUnavailable, PullConsumer
from opstream_journal.outage_log import BoundedLog, OutageLog
from opstream_journal.runtime.worker_pool import WorkerPool
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.events import RecordedEvent, decode_event
from opstream_schemas.subjects import EventSubject
from opstream_schemas.webhook_delivery import CALLBACK_ENDPOINT, WebhookDelivery

from .config import ReloadableConfig
from .retry_schedule import MAX_OUTCOME_AGE
from .signature import webhook_id

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 500
"""Outcomes that one process holds at most."""

IDLE_LINGER: Final = 1.0
"""Seconds for which outcomes gather while there is no receiver at all, and they are only acknowledged."""

_MAX_CONCURRENT: Final = 64
_RETRY_SOON: Final = 2.0
_RETRY_LATER: Final = 60.0
_DEDUPLICATION_AGE: Final = timedelta(seconds=10)
"""Up to this age of an outcome, the broker itself recognizes a delivery that was sent before."""


class Fanout:
    """One replica.

    Args:
        connection: the connection.
        deliveries: where deliveries are stored.
        config: the receivers.
        now: the time, with zone.
        monotonic: monotonic seconds.
    """

    def __init__(
        self,
        connection: Connection,
        deliveries: DeliveryStore,
        config: ReloadableConfig,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._deliveries = deliveries
        self._config = config
        self._now = now
        consumer = PullConsumer(connection, subjects.OPERATIONS_STREAM, subjects.WEBHOOKS_CONSUMER, clock=monotonic)
        self._pool = WorkerPool(connection, consumer, slots=MAX_IN_FLIGHT, linger=self._linger)
        self._limit = asyncio.Semaphore(_MAX_CONCURRENT)
        self._is_age_logged = False
        self._foreign = BoundedLog(logger, "messages among the outcomes that can't be read", clock=monotonic)
        self._outage = OutageLog(logger, "outcomes can't be passed on", "outcomes are passed on again", clock=monotonic)

    @property
    def is_ready(self) -> bool:
        """Return True if outcomes are processed now."""
        return self._pool.is_ready

    async def run(self) -> None:
        """Process outcomes until cancelled. Messages that can't be finished then are released.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        await self._pool.run(self._handle)

    def _linger(self) -> float:
        config = self._config.current
        return 0.0 if config.hooks or config.callbacks else IDLE_LINGER

    async def _handle(self, message: DeliveredMessage) -> bool:
        """Acknowledge a message that needs no delivery, and return True; otherwise start a task for it."""
        try:
            subject = subjects.parse_event_subject(message.subject)
        except InvalidName as error:
            self._foreign.log(logging.ERROR, "sequence %s is not an event, skipping it: %s", message.sequence, error)
            await message.ack()
            return True
        config = self._config.current
        if not config.callbacks and not config.matching(subject.kind, subject.event):
            await message.ack()
            return True
        self._pool.spawn(message, self._fan_out(message, subject))
        return False

    async def _fan_out(self, message: DeliveredMessage, subject: EventSubject) -> None:
        async with self._limit:
            try:
                event = decode_event(message.data, message.sequence, message.subject)
                if self._is_skipped(message, subject, event):
                    await message.ack()
                    return
                is_late = self._now() - message.stored_at > _DEDUPLICATION_AGE
                await self._create_deliveries(subject, event, is_late=is_late)
            except InvalidEvent as error:
                self._foreign.log(
                    logging.ERROR, "sequence %s (%s) is skipped: %s", message.sequence, message.subject, error
                )
            except JournalError as error:
                self._outage.failed(f"that of {subject.operation_id}: {error}")
                await message.nak(_RETRY_SOON if isinstance(error, JournalUnavailable) else _RETRY_LATER)
                return
            else:
                self._outage.recovered()
            await message.ack()

    def _is_skipped(self, message: DeliveredMessage, subject: EventSubject, event: RecordedEvent) -> bool:
        """Return True, and log why, if no receiver may get the event."""
        if event.operation_id != subject.operation_id or (event.data is not None and event.data.name != subject.event):
            self._foreign.log(
                logging.ERROR, "sequence %s lies under a foreign subject %s", message.sequence, message.subject
            )
            return True
        if event.data is None:
            self._foreign.log(
                logging.WARNING,
                "the outcome of %s (sequence %s) is of type %s, unknown to this version, and is not delivered",
                event.operation_id,
                event.sequence,
                event.type,
            )
            return True
        if self._now() - message.stored_at > MAX_OUTCOME_AGE:
            if not self._is_age_logged:
                self._is_age_logged = True
                logger.warning(
                    "outcomes older than a day are not delivered; the first: %s (sequence %s)",
                    event.operation_id,
                    event.sequence,
                )
            return True
        return False

    async def _create_deliveries(self, subject: EventSubject, event: RecordedEvent, *, is_late: bool) -> None:
        config = self._config.current
        targets = [(hook.name, "", "") for hook in config.matching(subject.kind, subject.event)]
        if config.callbacks:
            callback, own_id = await self._callback(subject)
            targets += [(CALLBACK_ENDPOINT, callback, own_id)] if callback else []
        for endpoint, callback, own_id in targets:
            delivery = WebhookDelivery(
                operation_id=subject.operation_id,
                action=str(subject.kind),
                event=subject.event,
                sequence=event.sequence,
                endpoint=endpoint,
                callback=callback,
                begun=self._now(),
                own_id=own_id,
            )
            # A consumer that was deleted and created again delivers the whole journal once more.
            if not is_late or not await self._deliveries.is_delivered(delivery):
                await self._deliveries.enqueue(delivery, webhook_id(event.id, delivery))

    async def _callback(self, subject: EventSubject) -> tuple[str, str]:
        try:
            return await self._deliveries.callback(subject.operation_id, subject.kind)
        except InvalidEvent as error:
            # The configured endpoints get the outcome all the same.
            self._foreign.log(logging.ERROR, "if %s has a callback, it is not called: %s", subject.operation_id, error)
            return "", ""
