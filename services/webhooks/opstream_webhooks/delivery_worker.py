"""Attempts deliveries: one attempt per message, which is recorded, and scheduled again if it failed.

After an attempt the worker records it, schedules the next one, and acknowledges the message, in this order. If it is
killed in between, the same attempt is made again under the same `webhook-id`; so each delivery is made at least once. A
delivery that waits for its next attempt takes no room here: neither a held message nor a slot.
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
from opstream_journal.outage_log import BoundedLog, OutageLog
from opstream_journal.provisioning.webhook_topology import DELIVERY_ACK_WAIT
from opstream_journal.runtime.worker_pool import WorkerPool
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import decode_event, with_own_id
from opstream_schemas.names import Kind
from opstream_schemas.traces.tracer import NO_TRACING, DeliveryRequest, Tracer
from opstream_schemas.urls import Url
from opstream_schemas.webhook_delivery import (
    CALLBACK_ENDPOINT,
    DeliveryAttempt,
    DeliveryOutcome,
    WebhookDelivery,
    decode_delivery,
)

from .config import Endpoint, EndpointUnknown, ReloadableConfig
from .delivery_meter import DeliveryMeter
from .http_sender import HttpSender, SendResult
from .receiver_limits import Receiver, ReceiverLimits
from .retry_schedule import DELAYS, DELIVERY_LIFETIME, next_attempt, parse_retry_after, redelivery_delay
from .signature import signed_headers, webhook_id

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 256
"""Deliveries that one process holds at most. `ReceiverLimits` keeps failing receivers from taking all of them."""

TOO_LATE: Final = f"not attempted after {DELIVERY_LIFETIME // timedelta(hours=1)} hours"

_STORE_TIMEOUT: Final = 30.0


class _NothingToSend(Exception):
    """The journal does not have the event of a delivery."""

    def __init__(self, why: str, *, is_final: bool) -> None:
        super().__init__(why)
        self.is_final = is_final
        """True if a later attempt can't find it either."""


class DeliveryWorker:
    """One replica.

    Args:
        connection: the connection.
        deliveries: where deliveries and attempts are stored.
        config: the receivers.
        sender: makes the requests.
        limits: how many attempts a receiver gets at once.
        meter: counts attempts; None for one that no page shows.
        now: the time, with zone.
        monotonic: monotonic seconds.
        jitter: a random number of [0, 1).
        delays: seconds between attempts.
        tracing: makes a span for each attempt that sends something.
    """

    def __init__(
        self,
        connection: Connection,
        deliveries: DeliveryStore,
        config: ReloadableConfig,
        sender: HttpSender,
        limits: ReceiverLimits,
        *,
        meter: DeliveryMeter | None = None,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        jitter: Callable[[], float],
        delays: Sequence[float] = DELAYS,
        tracing: Tracer = NO_TRACING,
    ) -> None:
        self._connection = connection
        self._deliveries = deliveries
        self._config = config
        self._sender = sender
        self._limits = limits
        self._meter = meter or DeliveryMeter(connection)
        self._now = now
        self._monotonic = monotonic
        self._jitter = jitter
        self._delays = delays
        self._tracing = tracing
        consumer = PullConsumer(connection, subjects.WEBHOOKS_STREAM, subjects.WEBHOOKS_DUE_CONSUMER, clock=monotonic)
        self._pool = WorkerPool(connection, consumer, slots=MAX_IN_FLIGHT)
        self._foreign = BoundedLog(logger, "messages of WEBHOOKS that are no deliveries", clock=monotonic)
        self._outage = OutageLog(
            logger, "deliveries wait, because nothing can be recorded", "deliveries go on", clock=monotonic
        )

    @property
    def is_ready(self) -> bool:
        """Return True if deliveries are attempted now."""
        return self._pool.is_ready

    async def run(self) -> None:
        """Attempt deliveries until cancelled. Messages that can't be finished then are released.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        await self._pool.run(self._handle)

    async def _handle(self, message: DeliveredMessage) -> bool:
        try:
            delivery = decode_delivery(message.data)
        except InvalidEvent as error:
            self._foreign.log(logging.ERROR, "message %s of WEBHOOKS is skipped: %s", message.sequence, error)
            await message.ack()
            return True
        self._pool.spawn(message, self._work(message, delivery))
        return False

    async def _work(self, message: DeliveredMessage, delivery: WebhookDelivery) -> None:
        try:
            async with _kept_in_progress(message):
                await self._deliver(message, delivery)
        except JournalError as error:
            self._outage.failed(f"that of {delivery.operation_id} to {delivery.endpoint}: {error}")
            await message.nak(redelivery_delay(message.deliveries))
        else:
            self._outage.recovered()
            await message.ack()

    async def _deliver(self, message: DeliveredMessage, delivery: WebhookDelivery) -> None:
        if message.deliveries > 1 and await self._deliveries.is_delivered(delivery):
            return  # a worker died between the record and the acknowledgement
        if self._now() - delivery.begun > DELIVERY_LIFETIME:
            # No service ran, or the receiver kept failing and other deliveries came first.
            await self._record_attempt(delivery, None, "", self._now(), 0.0, SendResult(error=TOO_LATE, is_final=True))
            return
        try:
            endpoint = self._config.current.endpoint(delivery)
        except EndpointUnknown as error:
            # Another replica may have reloaded a newer configuration, or an operator may add the endpoint again.
            await self._record_attempt(delivery, None, "", self._now(), 0.0, SendResult(error=str(error)))
            return
        # Two endpoints on one host may be two services behind a gateway; paths of callbacks are unlimited.
        is_callback = delivery.endpoint == CALLBACK_ENDPOINT
        receiver = Receiver(endpoint.url.netloc if is_callback else delivery.endpoint, is_callback)
        if not await self._limits.acquire(receiver):
            await self._schedule(delivery, self._now() + timedelta(seconds=self._limits.reserve_retry(receiver)))
            return
        at, began, is_failed = self._now(), self._monotonic(), None
        try:
            identity, result = await self._attempt(delivery, endpoint, at)
            is_failed = not result.is_success if identity else None
        finally:
            duration = self._monotonic() - began
            self._limits.release(receiver, duration=duration, is_failed=is_failed)
        await self._record_attempt(delivery, endpoint.url, identity, at, duration, result)

    async def _attempt(self, delivery: WebhookDelivery, endpoint: Endpoint, at: datetime) -> tuple[str, SendResult]:
        """Make an attempt. Return its `webhook-id` (empty if there was nothing to send) and its result."""
        try:
            body, identity = await self._load_event(delivery)
        except _NothingToSend as error:
            return "", SendResult(error=str(error), is_final=error.is_final)
        headers = signed_headers(identity, at, body, endpoint.signers)
        if self._tracing.is_on:
            return identity, await self._send_traced(delivery, endpoint.url, headers, body)
        return identity, await self._sender.send(endpoint.url, headers, body)

    async def _send_traced(
        self, delivery: WebhookDelivery, url: Url, headers: dict[str, str], body: bytes
    ) -> SendResult:
        kind = Kind.parse(delivery.action)
        request = None
        with contextlib.suppress(InvalidEvent, JournalError):  # then the span has no link
            request = await self._deliveries.request_trace(delivery.operation_id, kind)
        sent = DeliveryRequest(
            url=url.redacted,
            host=url.host,
            port=url.port,
            endpoint=delivery.endpoint,
            attempt=delivery.attempt,
            operation_id=delivery.operation_id,
            kind=kind,
        )
        with self._tracing.delivery_span(sent, request) as span:
            if span.trace is not None:
                headers["traceparent"] = span.trace.traceparent
            result = await self._sender.send(url, headers, body)
            if result.status:
                span.note("http.response.status_code", result.status)
            if not result.is_success:
                span.fail(str(result.status) if result.status else "no_response")
        return result

    async def _load_event(self, delivery: WebhookDelivery) -> tuple[bytes, str]:
        """Return the event of a delivery as its receiver may read it, and its `webhook-id`.

        Raises:
            _NothingToSend: the event has expired, or can't be sent.
        """
        body = await self._deliveries.event_bytes(delivery.sequence)
        if body is None:
            raise _NothingToSend("the event has expired", is_final=True)
        try:
            event = decode_event(body, delivery.sequence)
        except InvalidEvent as error:  # a replica of a newer version may be able to read it
            raise _NothingToSend(str(error), is_final=False) from error
        if event.operation_id != delivery.operation_id or (event.data and event.data.name != delivery.event):
            # The journal was restored from a backup, or the message is foreign: the receiver must not see this event.
            raise _NothingToSend(f"sequence {delivery.sequence} of the journal is another event", is_final=True)
        # A client knows its operation by its own id. The operator's endpoints get what is stored.
        return with_own_id(body, delivery.operation_id, delivery.own_id), webhook_id(event.id, delivery)

    async def _record_attempt(
        self,
        delivery: WebhookDelivery,
        url: Url | None,
        identity: str,
        at: datetime,
        duration: float,
        result: SendResult,
    ) -> None:
        now = self._now()
        next_at = None
        if not result.is_success and not result.is_final:
            next_at = next_attempt(
                delivery.attempt,
                now=now,
                begun=delivery.begun,
                jitter=self._jitter,
                delays=self._delays,
                status=result.status,
                requested_delay=parse_retry_after(result.retry_after, now),
            )
        failed = DeliveryOutcome.GAVE_UP if next_at is None else DeliveryOutcome.RETRYING
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
            outcome=DeliveryOutcome.DELIVERED if result.is_success else failed,
            status=result.status,
            error=result.error,
            next_at=next_at,
        )
        await self._store_durably(lambda: self._deliveries.record(record))
        self._meter.count(record)
        _log_attempt(record)
        if next_at is not None:
            await self._schedule(msgspec.structs.replace(delivery, attempt=delivery.attempt + 1), next_at)

    async def _schedule(self, delivery: WebhookDelivery, at: datetime) -> None:
        await self._store_durably(lambda: self._deliveries.schedule(delivery, at))

    async def _store_durably(self, step: Callable[[], Awaitable[None]]) -> None:
        """Call a step until the broker has stored it: otherwise the attempt would be made again.

        Raises:
            JournalUnavailable: the broker did not answer for `_STORE_TIMEOUT`.
        """
        until = self._monotonic() + _STORE_TIMEOUT
        while True:
            try:
                return await step()
            except JournalUnavailable:
                left = until - self._monotonic()
                if left <= 0:
                    raise
                if self._connection.is_connected:
                    await self._connection.sleep(min(left, 0.25))
                else:
                    await self._connection.wait_connected(left)


@contextlib.asynccontextmanager
async def _kept_in_progress(message: DeliveredMessage) -> AsyncIterator[None]:
    """Extend the message's ack_wait while the context is open, so that the broker does not redeliver it."""

    async def extend() -> None:
        while True:
            await asyncio.sleep(DELIVERY_ACK_WAIT / 3)
            await message.in_progress()

    task = asyncio.create_task(extend())
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
        text = "gave up delivering %s after attempt %s: %s; 'opstream redeliver %s' tries it again"
        logger.error(text, what, record.attempt, record.error, record.operation_id)
