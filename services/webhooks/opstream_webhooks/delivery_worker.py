"""Makes the deliveries: one attempt for each message, recorded, and put off if it failed. Caller: `main.py`.

Order after an attempt: record it, store when the next one is due, acknowledge. A process that is killed in between
makes the same attempt again, under the same `webhook-id`; so each delivery is made at least once. What waits holds
nothing here: neither an acknowledgement nor a slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from opstream_journal import Connection, DeliveredMessage, JournalError, JournalUnavailable, PullConsumer
from opstream_journal.jetstream.connection import end_task
from opstream_journal.provisioning.webhook_topology import DELIVERY_ACK_WAIT
from opstream_journal.runtime.worker_pool import WorkerPool
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import decode_event
from opstream_schemas.urls import Url
from opstream_schemas.webhook_delivery import (
    CALLBACK_ENDPOINT,
    DeliveryAttempt,
    DeliveryOutcome,
    WebhookDelivery,
    decode_delivery,
)

from .config import Endpoint, EndpointUnknown, ReloadableConfig
from .http_sender import HttpSender, SendResult
from .receiver_limits import Receiver, ReceiverLimits
from .retry_schedule import DELAYS, DELIVERY_LIFETIME, next_attempt, parse_retry_after, redelivery_delay
from .signature import signed_headers, webhook_id

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 256
"""Deliveries in hand at most; `Gate` keeps receivers that fail from having all of them."""

TOO_LATE: Final = f"not tried any more after {DELIVERY_LIFETIME // timedelta(hours=1)} hours"

_STORE_TIMEOUT: Final = 30.0


class _NothingToSend(Exception):
    """The journal does not give the event of a delivery."""

    def __init__(self, why: str, *, is_final: bool) -> None:
        super().__init__(why)
        self.is_final = is_final
        """Whether that will stay so."""


class DeliveryWorker:
    """One replica.

    Args:
        link: the connection.
        deliveries: where they are kept.
        hooks: the endpoints.
        sender: makes the requests.
        gate: how many at once.
        now: the time, with zone.
        monotonic: monotonic seconds.
        jitter: a random number of [0, 1).
        delays: seconds between attempts.
    """

    def __init__(
        self,
        link: Connection,
        deliveries: DeliveryStore,
        hooks: ReloadableConfig,
        sender: HttpSender,
        gate: ReceiverLimits,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        jitter: Callable[[], float],
        delays: Sequence[float] = DELAYS,
    ) -> None:
        self._link = link
        self._deliveries = deliveries
        self._hooks = hooks
        self._sender = sender
        self._limits = gate
        self._now = now
        self._monotonic = monotonic
        self._jitter = jitter
        self._delays = delays
        puller = PullConsumer(link, subjects.WEBHOOKS_STREAM, subjects.WEBHOOKS_DUE_CONSUMER, clock=monotonic)
        self._hand = WorkerPool(link, puller, slots=MAX_IN_FLIGHT)

    @property
    def is_ready(self) -> bool:
        """Whether deliveries are made now."""
        return self._hand.is_ready

    async def run(self) -> None:
        """Work until cancelled; what is in hand is given back then.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        await self._hand.run(self._handle)

    async def _handle(self, message: DeliveredMessage) -> bool:
        try:
            delivery = decode_delivery(message.data)
        except InvalidEvent as error:
            logger.error("message %s of WEBHOOKS is passed over: %s", message.sequence, error)  # noqa: TRY400 - no bug here
            await message.ack()
            return True
        self._hand.spawn(message, self._work(message, delivery))
        return False

    async def _work(self, message: DeliveredMessage, delivery: WebhookDelivery) -> None:
        try:
            async with _kept_in_progress(message):
                await self._deliver(message, delivery)
        except JournalError as error:
            logger.warning("the delivery of %s to %s waits: %s", delivery.operation_id, delivery.endpoint, error)
            await message.nak(redelivery_delay(message.deliveries))
        else:
            await message.ack()

    async def _deliver(self, message: DeliveredMessage, delivery: WebhookDelivery) -> None:
        if message.deliveries > 1 and await self._deliveries.is_delivered(delivery):
            return  # whoever had it before died between its record and its acknowledgement
        if self._now() - delivery.begun > DELIVERY_LIFETIME:
            # No service ran, or its receiver failed all the time and others came first.
            await self._record_attempt(delivery, None, "", self._now(), 0.0, SendResult(error=TOO_LATE, is_final=True))
            return
        try:
            endpoint = self._hooks.current.endpoint(delivery)
        except EndpointUnknown as error:
            # Perhaps another replica knows it already, or an operator puts it back.
            await self._record_attempt(delivery, None, "", self._now(), 0.0, SendResult(error=str(error)))
            return
        # Two endpoints on one host are two services behind a gateway; of callbacks' paths there is no end.
        is_callback = delivery.endpoint == CALLBACK_ENDPOINT
        receiver = Receiver(endpoint.url.netloc if is_callback else delivery.endpoint, is_callback)
        if not await self._limits.acquire(receiver):
            await self._schedule(delivery, self._now() + timedelta(seconds=self._limits.reserve_retry(receiver)))
            return
        at, began, is_failed = self._now(), self._monotonic(), None
        try:
            identity, answer = await self._attempt(delivery, endpoint, at)
            is_failed = not answer.is_success if identity else None
        finally:
            duration = self._monotonic() - began
            self._limits.release(receiver, duration=duration, is_failed=is_failed)
        await self._record_attempt(delivery, endpoint.url, identity, at, duration, answer)

    async def _attempt(self, delivery: WebhookDelivery, endpoint: Endpoint, at: datetime) -> tuple[str, SendResult]:
        """Make an attempt: its `webhook-id`, empty if there was nothing to send, and what came of it."""
        try:
            body, identity = await self._load_event(delivery)
        except _NothingToSend as error:
            return "", SendResult(error=str(error), is_final=error.is_final)
        headers = signed_headers(identity, at, body, endpoint.signers)
        return identity, await self._sender.send(endpoint.url, headers, body)

    async def _load_event(self, delivery: WebhookDelivery) -> tuple[bytes, str]:
        """The stored event of a delivery, and the `webhook-id` that it is sent under."""
        body = await self._deliveries.event_bytes(delivery.sequence)
        if body is None:
            raise _NothingToSend("the event has expired", is_final=True)
        try:
            event = decode_event(body, delivery.sequence)
        except InvalidEvent as error:  # of a newer version, which another replica may be
            raise _NothingToSend(str(error), is_final=False) from error
        if event.operation_id != delivery.operation_id or (event.data and event.data.name != delivery.event):
            # Of a journal that was restored from a backup, or a foreign message: nothing that this receiver may read.
            raise _NothingToSend(f"sequence {delivery.sequence} of the journal is another event", is_final=True)
        return body, webhook_id(event.id, delivery)

    async def _record_attempt(
        self,
        delivery: WebhookDelivery,
        url: Url | None,
        identity: str,
        at: datetime,
        duration: float,
        answer: SendResult,
    ) -> None:
        now = self._now()
        following = None
        if not answer.is_success and not answer.is_final:
            following = next_attempt(
                delivery.attempt,
                now=now,
                begun=delivery.begun,
                jitter=self._jitter,
                delays=self._delays,
                status=answer.status,
                asked=parse_retry_after(answer.retry_after, now),
            )
        failed = DeliveryOutcome.GAVE_UP if following is None else DeliveryOutcome.RETRYING
        record = DeliveryAttempt(
            operation_id=delivery.operation_id,
            action=delivery.action,
            event=delivery.event,
            endpoint=delivery.endpoint,
            url="" if url is None else url.redacted,
            webhook_id=identity,
            attempt=delivery.attempt,
            at=at,
            duration=round(duration, 3),
            outcome=DeliveryOutcome.DELIVERED if answer.is_success else failed,
            status=answer.status,
            error=answer.error,
            next_at=following,
        )
        await self._store_durably(lambda: self._deliveries.record(record))
        _log_attempt(record)
        if following is not None:
            await self._schedule(msgspec.structs.replace(delivery, attempt=delivery.attempt + 1), following)

    async def _schedule(self, delivery: WebhookDelivery, at: datetime) -> None:
        await self._store_durably(lambda: self._deliveries.schedule(delivery, at))

    async def _store_durably(self, step: Callable[[], Awaitable[None]]) -> None:
        """Store what came of an attempt, also over a restart of the broker: otherwise it would be made once more."""
        until = self._monotonic() + _STORE_TIMEOUT
        while True:
            try:
                return await step()
            except JournalUnavailable:
                left = until - self._monotonic()
                if left <= 0:
                    raise
                await (
                    self._link.sleep(min(left, 0.25)) if self._link.is_connected else self._link.wait_connected(left)
                )


@contextlib.asynccontextmanager
async def _kept_in_progress(message: DeliveredMessage) -> AsyncIterator[None]:
    """Keep the broker from giving a message to another as long as this goes on."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(DELIVERY_ACK_WAIT / 3)
            await message.in_progress()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        await end_task(task)


def _log_attempt(record: DeliveryAttempt) -> None:
    where = f"{record.endpoint} ({record.url or 'unknown'})"
    what = f"the end of operation {record.operation_id} ({record.event}) to {where}"
    if record.outcome is DeliveryOutcome.DELIVERED:
        logger.debug("delivered %s, attempt %s: %s", what, record.attempt, record.status)
    elif record.next_at is not None:
        again = record.next_at.isoformat(" ", "seconds")
        logger.info("attempt %s to deliver %s failed, the next is at %s: %s", record.attempt, what, again, record.error)
    else:
        told = "gave up delivering %s after attempt %s: %s; 'opstream redeliver %s' tries it again"
        logger.error(told, what, record.attempt, record.error, record.operation_id)
