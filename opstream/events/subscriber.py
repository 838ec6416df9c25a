"""A FastStream subscriber that is driven by the journal's own pull loop. Made by `subscribing.py`, run by FastStream.

Why not FastStream's own pull subscriber: docs/adr/0018. What FastStream does for a handler (middlewares, dependencies,
publishers) it does here, too; what becomes of the event afterwards is decided here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
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
from opstream_journal.provisioning.subscriber_consumers import StartPosition, SubscriberConsumer
from opstream_journal.stores import dead_letters as parking
from opstream_schemas import subjects
from opstream_schemas.text import one_line, truncate_text

from .broker import EventsBroker
from .errors import InvalidSubscription, UnexpectedShape, UnreadableEvent
from .message import RawEventMessage, decode_message, parse_message
from .model import Settlement, read_event
from .settlement import DeadLetterRetry, DurableDelivery
from .subscription import Backoff

logger = logging.getLogger(__name__)

_POSITION_INTERVAL: Final = 5.0
_RECREATE_DELAY: Final = 1.0
_MAX_RECREATE_DELAY: Final = 30.0
_CANCEL_TIMEOUT: Final = 1.0
_MAX_DETAIL_LENGTH: Final = 500
_STOPPING_DELAY: Final = 1.0


class SubscriptionTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What `subscribe` was told, checked."""

    durable: str
    filters: tuple[str, ...]
    start: StartPosition
    is_manual: bool
    backoff: Backoff
    max_workers: int
    max_pending: int
    ack_wait: float


class EventSubscriber(DefaultSubscriber[Msg]):
    """One handler on one durable.

    Args:
        broker: what it belongs to.
        told: what `subscribe` was told.
        config: FastStream's.
        specification: FastStream's.
        calls: FastStream's.
    """

    def __init__(
        self,
        broker: EventsBroker,
        told: SubscriptionTerms,
        config: Any,  # noqa: ANN401 - FastStream's own, as the next two
        specification: Any,  # noqa: ANN401
        calls: Any,  # noqa: ANN401
    ) -> None:
        config.parser, config.decoder = parse_message, decode_message
        super().__init__(config, specification, calls)
        self._broker = broker
        self._subscription = told
        self._slots = asyncio.Semaphore(told.max_workers)
        self._running: dict[int, Settlement] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._consumer: PullConsumer | None = None
        self._retry_requests: Subscription | None = None

    async def _create_subscription(self) -> None:
        for call in self.calls:
            if call.dependant is not None and len(call.dependant.flat_params) > 1:
                raise InvalidSubscription(f"{call.name} must take the event alone, and what FastStream injects")
        link = self._broker.journal_connection
        told = self._subscription
        durable = SubscriberConsumer(
            link, told.durable, told.filters, ack_wait=told.ack_wait, max_pending=told.max_pending
        )

        async def prepare() -> None:
            await parking.ensure_stream(link)
            await durable.ensure(told.start)

        await retry_until_ready(link, prepare, self._broker.connect_timeout)
        self._slots = asyncio.Semaphore(told.max_workers)
        self._retry_requests = await link.nc.subscribe(
            subjects.dead_letter_retry_subject(told.durable), queue=told.durable, cb=self._on_retry_request
        )
        for loop in (self._pull_events(durable), self._track_position(durable), self._send_heartbeats()):
            task = asyncio.create_task(loop, name=f"events {told.durable}")
            task.add_done_callback(self._on_loop_done)
            self._loops.append(task)

    async def stop(self) -> None:
        """Pull no more, let handlers end within the broker's `graceful_timeout`, and give back what is not done."""
        self.running = False
        for loop in self._loops:
            await end_task(loop)
        self._loops.clear()
        link = self._broker.journal_connection
        if self._retry_requests is not None:
            if link.is_connected:
                await self._retry_requests.unsubscribe()
            self._retry_requests = None
        if self._consumer is not None:
            await self._consumer.stop()
        beating = asyncio.create_task(self._send_heartbeats())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._outer_config.graceful_timeout)
        await end_task(beating)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            logger.warning("%s: handlers did not end in time; their events are given back", self._subscription.durable)
            await asyncio.wait(self._tasks, timeout=_CANCEL_TIMEOUT)
        self._consumer = None

    async def get_one(self, *, timeout: float = 5) -> None:  # noqa: ASYNC109, ARG002 - FastStream's signature
        """Events come to handlers only."""
        raise SetupError("an events subscriber has a handler: decorate a function with it")

    def __aiter__(self) -> AsyncIterator[Any]:
        """Events come to handlers only."""
        raise SetupError("an events subscriber has a handler: decorate a function with it")

    async def _pull_events(self, durable: SubscriberConsumer) -> None:
        pause = _RECREATE_DELAY
        while True:
            puller = PullConsumer(
                self._broker.journal_connection,
                subjects.OPERATIONS_STREAM,
                self._subscription.durable,
                clock=self._broker.clock,
            )
            await puller.start()
            self._consumer = puller
            puller.add_demand(self._subscription.max_workers - len(self._tasks))
            try:
                while True:
                    delivered = await puller.next()
                    pause = _RECREATE_DELAY
                    task = asyncio.create_task(self._receive(delivered), name=delivered.subject)
                    self._tasks.add(task)
                    task.add_done_callback(self._on_handler_done)
            except ConsumerGone:
                logger.warning(
                    "%s: its consumer was deleted; making it again in %g s", self._subscription.durable, pause
                )
            self._consumer = None
            await puller.stop()
            # Whoever deletes it again and again gets a slow reader, not a busy one.
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_RECREATE_DELAY)
            await self._recreate_consumer(durable)

    async def _recreate_consumer(self, durable: SubscriberConsumer) -> None:
        while True:
            try:
                await durable.recreate()
            except JournalUnavailable as error:
                logger.warning("%s: its consumer can't be made again yet: %s", self._subscription.durable, error)
                await asyncio.sleep(_RECREATE_DELAY)
            else:
                logger.warning(
                    "%s: its consumer is back, from %s on", self._subscription.durable, durable.ack_floor + 1
                )
                return

    async def _track_position(self, durable: SubscriberConsumer) -> None:
        """Keep in mind how far the durable is, for the case that somebody deletes it."""
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
            # Its time ran out while the broker was away or this process stood still; whoever is at it settles it.
            return
        told = self._subscription
        if not self.running:
            await delivered.nak(_STOPPING_DELAY)
            return
        delivery = DurableDelivery(
            self._broker.journal_connection, told.durable, delivered, patience=told.ack_wait, pause=self._backoff_delay
        )
        if delivered.deliveries > told.backoff.deliveries:
            await delivery.park("NeverFinished", "nobody acknowledged it: killed, stopped, or told to retry it")
            return
        await self._process(delivered.message, delivered.sequence, delivered.deliveries, delivery)

    async def _process(self, message: Msg, sequence: int, deliveries: int, delivery: Settlement) -> None:
        # A parked one under its negative sequence: the same event may be here from the durable, too.
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
        except NackMessage as refused:
            await delivery.nak(refused.extra_options.get("delay"))
        except (AckMessage, SkipMessage, SubscriberNotFound):  # the last: `filter` says that it is nobody's
            await delivery.ack()
        except (StopConsume, SystemExit) as error:
            self.running = False  # before it is given back, or it would come again here
            await delivery.nak(0.0)
            self._broker.end(None if isinstance(error, SystemExit) else self)
        except asyncio.CancelledError:
            await delivery.nak(0.0)
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises; FastStream has logged it
            await self._settle_failure(message.subject, deliveries, delivery, error)
        else:
            if not self._subscription.is_manual:
                await delivery.ack()
        finally:
            self._running.pop(key, None)

    async def _settle_failure(self, subject: str, deliveries: int, delivery: Settlement, error: Exception) -> None:
        why = truncate_text(one_line(f"{type(error).__name__}: {error}"), _MAX_DETAIL_LENGTH)
        if deliveries >= self._subscription.backoff.deliveries or isinstance(delivery, DeadLetterRetry):
            await delivery.park("HandlerFailed", why)
            return
        pause = self._backoff_delay(deliveries)
        if not delivery.is_settled:
            logger.warning(
                "%s: %s failed at delivery %s of %s, once more in %.3g s: %s",
                self._subscription.durable,
                subject,
                deliveries,
                self._subscription.backoff.deliveries,
                pause,
                why,
            )
        await delivery.nak(pause)

    async def _on_retry_request(self, request: Msg) -> None:
        """An operator wants a parked event to be tried again: `retry.{durable}` with its stream sequence."""
        answer = f"{request.data[:32]!r} is no stream sequence"
        if request.data.isdigit() and len(request.data) < 20:
            answer = await self._retry_dead_letter(int(request.data))
        if request.reply:
            try:
                await request.respond(answer.encode())
            except NatsError as error:
                logger.warning("%s: nobody was told %r: %s", self._subscription.durable, answer, error)

    async def _retry_dead_letter(self, sequence: int) -> str:
        link = self._broker.journal_connection
        try:
            parked = await parking.find(link, self._subscription.durable, sequence)
            if parked is None:
                return f"nothing of {self._subscription.durable} is parked under {sequence}"
            chance = DeadLetterRetry(link, parked)
            message = Msg(
                _client=link.nc, subject=parked.subject, data=parked.data, headers={"Content-Type": parked.content_type}
            )
            task = asyncio.create_task(self._process(message, sequence, parked.deliveries, chance))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.wait([task])
        except JournalError as error:
            return f"failed: it stays parked: {error}"
        return chance.outcome

    def _backoff_delay(self, deliveries: int) -> float:
        return self._subscription.backoff.delay(deliveries, self._broker.jitter())

    def _on_handler_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._consumer is not None and self.running:
            self._consumer.add_demand(1)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(
                "%s: %s was not settled, and comes again", self._subscription.durable, task.get_name(), exc_info=error
            )

    def _on_loop_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broker.stop_with_error(error)
