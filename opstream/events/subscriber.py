"""A FastStream subscriber that pulls events with the journal's `PullConsumer`.

docs/adr/0018 says why it does not use FastStream's own pull subscriber. FastStream runs the handler with its
middlewares, dependencies and publishers; this module decides whether the event is acknowledged, redelivered or parked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from faststream.exceptions import (
    AckMessage,
    NackMessage,
    RejectMessage,
    SetupError,
    SkipMessage,
    StopConsume,
    SubscriberNotFound,
)
from faststream.nats.subscriber.usecases.basic import DefaultSubscriber
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from opstream_journal import (
    ConsumerGone,
    DeliveredMessage,
    JournalError,
    JournalUnavailable,
    PullConsumer,
    retry_until_ready,
)
from opstream_journal.jetstream.connection import end_task
from opstream_journal.provisioning.provision import check_journal_is_ours
from opstream_journal.provisioning.subscriber_consumers import SubscriberConsumer
from opstream_journal.stores import dead_letters
from opstream_schemas import subjects
from opstream_schemas.text import one_line, truncate_text

from .broker import EventsBroker
from .errors import InvalidSubscription, UnexpectedShape, UnreadableEvent
from .event_reader import read_event
from .failure_log import FailureLog, ShownFailures
from .message import RawEventMessage, decode_message, parse_message
from .settlement import DeadLetterRetry, DurableDelivery, Settlement
from .subscription import SubscriptionTerms

logger = logging.getLogger(__name__)

_POSITION_INTERVAL: Final = 5.0
"""Seconds between two reads of the durable's position."""
_RECREATE_DELAY: Final = 1.0
_MAX_RECREATE_DELAY: Final = 30.0
_CANCEL_TIMEOUT: Final = 1.0
_MAX_DETAIL_LENGTH: Final = 500
_STOPPING_DELAY: Final = 1.0
"""Seconds, so that another process gets the event rather than this one, which stops."""


class EventSubscriber(DefaultSubscriber[Msg]):
    """One handler on one durable.

    Args:
        broker: the broker that starts and stops it.
        subscription: the checked arguments of `subscribe`.
        config: FastStream's.
        specification: FastStream's.
        calls: FastStream's.
    """

    def __init__(
        self,
        broker: EventsBroker,
        subscription: SubscriptionTerms,
        config: Any,  # noqa: ANN401 - FastStream's own, as the next two
        specification: Any,  # noqa: ANN401
        calls: Any,  # noqa: ANN401
    ) -> None:
        config.parser, config.decoder = parse_message, decode_message
        super().__init__(config, specification, calls)
        self._broker = broker
        self._subscription = subscription
        self._slots = asyncio.Semaphore(subscription.max_workers)
        self._running: dict[int, Settlement] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._consumer: PullConsumer | None = None
        self._retry_requests: Subscription | None = None
        self._shown_failures = ShownFailures()

    def _SubscriberUsecase__build__middlewares_stack(self) -> tuple[Any, ...]:  # noqa: N802 - FastStream's own name
        # FastStream offers no other place: its own middleware logs "Processed" after each failure.
        return FailureLog(self._outer_config.logger, self._shown_failures), *self._broker_middlewares

    async def _create_subscription(self) -> None:
        for call in self.calls:
            if call.dependant is not None and len(call.dependant.flat_params) > 1:
                raise InvalidSubscription(f"{call.name} must take the event alone, and what FastStream injects")
        connection = self._broker.journal_connection
        subscription = self._subscription
        durable = SubscriberConsumer(
            connection,
            subscription.durable,
            subscription.filters,
            ack_wait=subscription.ack_wait,
            max_pending=subscription.max_pending,
        )

        async def prepare() -> None:
            await check_journal_is_ours(connection)
            await dead_letters.ensure_stream(connection)
            await durable.ensure(subscription.start)

        await retry_until_ready(connection, prepare, self._broker.connect_timeout)
        self._slots = asyncio.Semaphore(subscription.max_workers)
        self._retry_requests = await connection.nc.subscribe(
            subjects.dead_letter_retry_subject(subscription.durable),
            queue=subscription.durable,
            cb=self._on_retry_request,
        )
        for loop in (self._pull_events(durable), self._track_position(durable), self._send_heartbeats()):
            task = asyncio.create_task(loop, name=f"events {subscription.durable}")
            task.add_done_callback(self._on_loop_done)
            self._loops.append(task)

    async def stop(self) -> None:
        """Stop pulling, wait for handlers up to the broker's `graceful_timeout`, and release unfinished events."""
        self.running = False
        for loop in self._loops:
            await end_task(loop)
        self._loops.clear()
        if self._retry_requests is not None:  # None if the start failed, perhaps before there was a connection
            if self._broker.journal_connection.is_connected:
                await self._retry_requests.unsubscribe()
            self._retry_requests = None
        if self._consumer is not None:
            await self._consumer.stop()
        heartbeats = asyncio.create_task(self._send_heartbeats())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._outer_config.graceful_timeout)
        await end_task(heartbeats)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            logger.warning("%s: handlers did not end in time; their events are released", self._subscription.durable)
            await asyncio.wait(self._tasks, timeout=_CANCEL_TIMEOUT)
        self._consumer = None

    async def get_one(self, *, timeout: float = 5) -> None:  # noqa: ASYNC109, ARG002 - FastStream's signature
        """Not supported: events go to the handler."""
        raise SetupError("an events subscriber has a handler: decorate a function with `subscribe`")

    def __aiter__(self) -> AsyncIterator[Any]:
        """Not supported: events go to the handler."""
        raise SetupError("an events subscriber has a handler: decorate a function with `subscribe`")

    async def _pull_events(self, durable: SubscriberConsumer) -> None:
        pause = _RECREATE_DELAY
        while True:
            consumer = PullConsumer(
                self._broker.journal_connection,
                subjects.OPERATIONS_STREAM,
                self._subscription.durable,
                clock=self._broker.clock,
            )
            await consumer.start()
            self._consumer = consumer
            consumer.add_demand(self._subscription.max_workers - len(self._tasks))
            try:
                while True:
                    delivered = await consumer.next()
                    pause = _RECREATE_DELAY
                    task = asyncio.create_task(self._receive(delivered), name=delivered.subject)
                    self._tasks.add(task)
                    task.add_done_callback(self._on_handler_done)
            except ConsumerGone:
                logger.warning("%s: its consumer was deleted; recreating it in %g s", self._subscription.durable, pause)
            self._consumer = None
            await consumer.stop()
            # If the consumer is deleted again and again, this loop must not become a busy one.
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_RECREATE_DELAY)
            await self._recreate_consumer(durable)

    async def _recreate_consumer(self, durable: SubscriberConsumer) -> None:
        while True:
            try:
                await durable.recreate()
            except JournalUnavailable as error:
                logger.warning("%s: its consumer can't be recreated yet: %s", self._subscription.durable, error)
                await asyncio.sleep(_RECREATE_DELAY)
            else:
                logger.warning(
                    "%s: its consumer is recreated, from stream sequence %s on",
                    self._subscription.durable,
                    durable.ack_floor + 1,
                )
                return

    async def _track_position(self, durable: SubscriberConsumer) -> None:
        """Remember the durable's position, so that a deleted one can be recreated there."""
        while True:
            await asyncio.sleep(_POSITION_INTERVAL)
            try:
                await durable.refresh_ack_floor()
            except JournalError as error:
                logger.debug("%s: %s", self._subscription.durable, error)

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._subscription.ack_wait / 3)
            for delivery in list(self._running.values()):
                await delivery.in_progress()

    async def _receive(self, delivered: DeliveredMessage) -> None:
        if delivered.sequence in self._running:
            # Redelivered because `ack_wait` passed during an outage or a pause; the running handler settles it.
            return
        subscription = self._subscription
        if not self.running:
            await delivered.nak(_STOPPING_DELAY)
            return
        delivery = DurableDelivery(
            self._broker.journal_connection,
            subscription.durable,
            delivered,
            ack_timeout=subscription.ack_wait,
            backoff_delay=self._backoff_delay,
        )
        if delivered.deliveries > subscription.backoff.deliveries:
            await delivery.park(
                "NeverFinished", "no handler acknowledged it: each was killed, stopped, or asked for a retry"
            )
            return
        await self._process(delivered.message, delivered.sequence, delivered.deliveries, delivery)

    async def _process(self, message: Msg, sequence: int, deliveries: int, delivery: Settlement) -> None:
        # A dead letter has its negative sequence as key, since the durable may deliver the same event meanwhile.
        key = -sequence if isinstance(delivery, DeadLetterRetry) else sequence
        self._running[key] = delivery
        try:
            async with self._slots:
                event = read_event(message.subject, message.data, sequence, deliveries, delivery)
                await self.process_message(RawEventMessage(message, event))
        except (UnreadableEvent, UnexpectedShape) as error:
            await delivery.park(getattr(error, "reason", "UnexpectedShape"), str(error))
        except RejectMessage:
            await delivery.park("Rejected", "the handler refused it")
        except NackMessage as nack:
            await delivery.nak(nack.extra_options.get("delay"))
        except (AckMessage, SkipMessage, SubscriberNotFound):  # the last: no handler's `filter` accepts it
            await delivery.ack()
        except (StopConsume, SystemExit) as error:
            self.running = False  # before the event is released, or this subscriber would get it again
            await delivery.nak(0.0)
            if isinstance(error, SystemExit):
                self._broker.stop_application()
            else:
                self._broker.stop_subscriber(self)
        except asyncio.CancelledError:
            await delivery.nak(0.0)
            raise
        except Exception as error:  # noqa: BLE001 - any error of a handler; FastStream has logged it
            await self._settle_failure(message.subject, deliveries, delivery, error)
        else:
            if not self._subscription.is_manual:
                await delivery.ack()
        finally:
            self._running.pop(key, None)

    async def _settle_failure(self, subject: str, deliveries: int, delivery: Settlement, error: Exception) -> None:
        detail = truncate_text(one_line(f"{type(error).__name__}: {error}"), _MAX_DETAIL_LENGTH)
        if deliveries >= self._subscription.backoff.deliveries or isinstance(delivery, DeadLetterRetry):
            await delivery.park("HandlerFailed", detail)
            return
        pause = self._backoff_delay(deliveries)
        if not delivery.is_settled:
            logger.warning(
                "%s: %s failed at delivery %s of %s, the next in %.3g s: %s",
                self._subscription.durable,
                subject,
                deliveries,
                self._subscription.backoff.deliveries,
                pause,
                detail,
            )
        await delivery.nak(pause)

    async def _on_retry_request(self, request: Msg) -> None:
        """Retry a parked event: an operator sent its stream sequence to `retry.{durable}`."""
        outcome = f"{request.data[:32]!r} is no stream sequence"
        if request.data.isdigit() and len(request.data) < 20:
            outcome = await self._retry_dead_letter(int(request.data))
        if request.reply:
            try:
                await request.respond(outcome.encode())
            except NatsError as error:
                logger.warning(
                    "%s: the operator did not get the response %r: %s", self._subscription.durable, outcome, error
                )

    async def _retry_dead_letter(self, sequence: int) -> str:
        connection = self._broker.journal_connection
        try:
            parked = await dead_letters.find(connection, self._subscription.durable, sequence)
            if parked is None:
                return f"nothing of {self._subscription.durable} is parked under {sequence}"
            retry = DeadLetterRetry(connection, parked)
            message = Msg(
                _client=connection.nc,
                subject=parked.subject,
                data=parked.data,
                headers={"Content-Type": parked.content_type},
            )
            task = asyncio.create_task(self._process(message, sequence, parked.deliveries, retry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.wait([task])
        except JournalError as error:
            return f"failed: it stays parked: {error}"
        return retry.outcome

    def _backoff_delay(self, deliveries: int) -> float:
        return self._subscription.backoff.delay(deliveries, self._broker.jitter())

    def _on_handler_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._consumer is not None and self.running:
            self._consumer.add_demand(1)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(
                "%s: %s was not settled, and will be redelivered",
                self._subscription.durable,
                task.get_name(),
                exc_info=error,
            )

    def _on_loop_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broker.stop_with_error(error)
