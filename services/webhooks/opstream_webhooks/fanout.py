"""From outcomes to deliveries: whom each terminal event is to be told to. Caller: `main.py`.

An outcome is acknowledged once each of its deliveries is stored on the broker. Where nobody is to be told, that costs
nothing but the acknowledgement; the request of an operation is read only where callbacks are possible at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from opstream_journal import Connection, DeliveredMessage, JournalError, JournalUnavailable, PullConsumer
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
"""Outcomes in hand at most."""

_MAX_CONCURRENT: Final = 64
_RETRY_SOON: Final = 2.0
_RETRY_LATER: Final = 60.0
_DEDUPLICATION_AGE: Final = timedelta(seconds=10)
"""Less than the time in which the broker knows a delivery that was sent already."""


class Fanout:
    """One replica.

    Args:
        link: the connection.
        deliveries: where they are kept.
        hooks: the endpoints.
        now: the time, with zone.
        monotonic: monotonic seconds.
    """

    def __init__(
        self,
        link: Connection,
        deliveries: DeliveryStore,
        hooks: ReloadableConfig,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._deliveries = deliveries
        self._hooks = hooks
        self._now = now
        puller = PullConsumer(link, subjects.OPERATIONS_STREAM, subjects.WEBHOOKS_CONSUMER, clock=monotonic)
        self._hand = WorkerPool(link, puller, slots=MAX_IN_FLIGHT)
        self._limit = asyncio.Semaphore(_MAX_CONCURRENT)
        self._is_age_logged = False

    @property
    def is_ready(self) -> bool:
        """Whether outcomes are taken now."""
        return self._hand.is_ready

    async def run(self) -> None:
        """Work until cancelled; what is in hand is given back then.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        await self._hand.run(self._handle)

    async def _handle(self, message: DeliveredMessage) -> bool:
        """Deal with a message at once if that is quick; whether it was."""
        try:
            subject = subjects.parse_event_subject(message.subject)
        except InvalidName as error:
            logger.error("sequence %s is no event, passing over it: %s", message.sequence, error)  # noqa: TRY400 - no bug here
            await message.ack()
            return True
        hooks = self._hooks.current
        if not hooks.callbacks and not hooks.matching(subject.kind, subject.event):
            await message.ack()
            return True
        self._hand.spawn(message, self._fan_out(message, subject))
        return False

    async def _fan_out(self, message: DeliveredMessage, subject: EventSubject) -> None:
        async with self._limit:
            try:
                event = decode_event(message.data, message.sequence)
                if self._is_skipped(message, subject, event):
                    await message.ack()
                    return
                await self._create_deliveries(
                    subject, event, is_late=self._now() - message.stored_at > _DEDUPLICATION_AGE
                )
            except InvalidEvent as error:
                logger.error("sequence %s (%s) is passed over: %s", message.sequence, message.subject, error)  # noqa: TRY400
            except JournalError as error:
                logger.warning("the outcome of %s can't be passed on now: %s", subject.operation_id, error)
                await message.nak(_RETRY_SOON if isinstance(error, JournalUnavailable) else _RETRY_LATER)
                return
            await message.ack()

    def _is_skipped(self, message: DeliveredMessage, subject: EventSubject, event: RecordedEvent) -> bool:
        if event.operation_id != subject.operation_id or (event.data is not None and event.data.name != subject.event):
            logger.error("sequence %s lies under a foreign subject %s", message.sequence, message.subject)
            return True
        if event.data is None:
            logger.warning(
                "the outcome of %s (sequence %s) is of type %s, unknown to this version, and is told to nobody",
                event.operation_id,
                event.sequence,
                event.type,
            )
            return True
        if self._now() - message.stored_at > MAX_OUTCOME_AGE:
            if not self._is_age_logged:
                self._is_age_logged = True
                logger.warning(
                    "outcomes of more than a day ago are told to nobody; the first: %s (sequence %s)",
                    event.operation_id,
                    event.sequence,
                )
            return True
        return False

    async def _create_deliveries(self, subject: EventSubject, event: RecordedEvent, *, is_late: bool) -> None:
        hooks = self._hooks.current
        targets = [(hook.name, "") for hook in hooks.matching(subject.kind, subject.event)]
        if hooks.callbacks:
            callback = await self._callback(subject)
            targets += [(CALLBACK_ENDPOINT, callback)] if callback else []
        for endpoint, callback in targets:
            delivery = WebhookDelivery(
                operation_id=subject.operation_id,
                action=str(subject.kind),
                event=subject.event,
                sequence=event.sequence,
                endpoint=endpoint,
                callback=callback,
                begun=self._now(),
            )
            # The consumer may have been made anew, and then gives all that the journal holds once more.
            if not is_late or not await self._deliveries.is_delivered(delivery):
                await self._deliveries.enqueue(delivery, webhook_id(event.id, delivery))

    async def _callback(self, subject: EventSubject) -> str:
        try:
            return await self._deliveries.callback_url(subject.operation_id, subject.kind)
        except InvalidEvent as error:
            # Which must not keep the outcome from the configured endpoints.
            logger.error("if %s has a callback, it is not called: %s", subject.operation_id, error)  # noqa: TRY400
            return ""
