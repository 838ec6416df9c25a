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

from opstream_journal import ConsumerGone, Delivered, JournalError, JournalUnavailable, Puller, insist
from opstream_journal.jetstream.connection import end_task
from opstream_journal.provisioning.subscriber_consumers import Durable, Start
from opstream_journal.stores import dead_letters as parking
from opstream_schemas import subjects
from opstream_schemas.text import cut_text, one_line

from .broker import EventsBroker
from .errors import InvalidSubscription, UnexpectedShape, Unreadable
from .message import EventMsg, decode, parse
from .model import Settling, read
from .settlement import Delivery, SecondChance
from .subscription import Backoff

logger = logging.getLogger(__name__)

_LOOK_EVERY: Final = 5.0
_REMAKE_FIRST: Final = 1.0
_REMAKE_LONGEST: Final = 30.0
_CANCEL_TIMEOUT: Final = 1.0
_WHY_LIMIT: Final = 500
_STOPPING_DELAY: Final = 1.0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What `subscribe` was told, checked."""

    durable: str
    filters: tuple[str, ...]
    start: Start
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

    def __init__(self, broker: EventsBroker, told: Terms, config: Any, specification: Any, calls: Any) -> None:  # noqa: ANN401 - FastStream's own
        config.parser, config.decoder = parse, decode
        super().__init__(config, specification, calls)
        self._broker = broker
        self._told = told
        self._slots = asyncio.Semaphore(told.max_workers)
        self._running: dict[int, Settling] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._puller: Puller | None = None
        self._retries: Subscription | None = None

    async def _create_subscription(self) -> None:
        for call in self.calls:
            if call.dependant is not None and len(call.dependant.flat_params) > 1:
                raise InvalidSubscription(f"{call.name} must take the event alone, and what FastStream injects")
        link = self._broker.link
        told = self._told
        durable = Durable(link, told.durable, told.filters, ack_wait=told.ack_wait, max_pending=told.max_pending)

        async def prepare() -> None:
            await parking.ensure_stream(link)
            await durable.ensure(told.start)

        await insist(link, prepare, self._broker.patience)
        self._slots = asyncio.Semaphore(told.max_workers)
        self._retries = await link.nc.subscribe(
            subjects.retry_subject(told.durable), queue=told.durable, cb=self._retry
        )
        for loop in (self._pull(durable), self._look(durable), self._say_alive()):
            task = asyncio.create_task(loop, name=f"events {told.durable}")
            task.add_done_callback(self._note_end)
            self._loops.append(task)

    async def stop(self) -> None:
        """Pull no more, let handlers end within the broker's `graceful_timeout`, and give back what is not done."""
        self.running = False
        for loop in self._loops:
            await end_task(loop)
        self._loops.clear()
        link = self._broker.link
        if self._retries is not None:
            if link.is_up:
                await self._retries.unsubscribe()
            self._retries = None
        if self._puller is not None:
            await self._puller.stop()
        beating = asyncio.create_task(self._say_alive())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._outer_config.graceful_timeout)
        await end_task(beating)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            logger.warning("%s: handlers did not end in time; their events are given back", self._told.durable)
            await asyncio.wait(self._tasks, timeout=_CANCEL_TIMEOUT)
        self._puller = None

    async def get_one(self, *, timeout: float = 5) -> None:  # noqa: ASYNC109, ARG002 - FastStream's signature
        """Events come to handlers only."""
        raise SetupError("an events subscriber has a handler: decorate a function with it")

    def __aiter__(self) -> AsyncIterator[Any]:
        """Events come to handlers only."""
        raise SetupError("an events subscriber has a handler: decorate a function with it")

    async def _pull(self, durable: Durable) -> None:
        pause = _REMAKE_FIRST
        while True:
            puller = Puller(self._broker.link, subjects.OPERATIONS_STREAM, self._told.durable, clock=self._broker.clock)
            await puller.start()
            self._puller = puller
            puller.want(self._told.max_workers - len(self._tasks))
            try:
                while True:
                    delivered = await puller.next()
                    pause = _REMAKE_FIRST
                    task = asyncio.create_task(self._handle(delivered), name=delivered.subject)
                    self._tasks.add(task)
                    task.add_done_callback(self._free)
            except ConsumerGone:
                logger.warning("%s: its consumer was deleted; making it again in %g s", self._told.durable, pause)
            self._puller = None
            await puller.stop()
            # Whoever deletes it again and again gets a slow reader, not a busy one.
            await asyncio.sleep(pause)
            pause = min(2 * pause, _REMAKE_LONGEST)
            await self._remake(durable)

    async def _remake(self, durable: Durable) -> None:
        while True:
            try:
                await durable.remake()
            except JournalUnavailable as error:
                logger.warning("%s: its consumer can't be made again yet: %s", self._told.durable, error)
                await asyncio.sleep(_REMAKE_FIRST)
            else:
                logger.warning("%s: its consumer is back, from %s on", self._told.durable, durable.floor + 1)
                return

    async def _look(self, durable: Durable) -> None:
        """Keep in mind how far the durable is, for the case that somebody deletes it."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await durable.look()
            except JournalError as error:
                logger.debug("%s: %s", self._told.durable, error)

    async def _say_alive(self) -> None:
        while True:
            await asyncio.sleep(self._told.ack_wait / 3)
            for delivery in list(self._running.values()):
                await delivery.in_progress()

    async def _handle(self, delivered: Delivered) -> None:
        if delivered.sequence in self._running:
            # Its time ran out while the broker was away or this process stood still; whoever is at it settles it.
            return
        told = self._told
        if not self.running:
            await delivered.nak(_STOPPING_DELAY)
            return
        delivery = Delivery(self._broker.link, told.durable, delivered, patience=told.ack_wait, pause=self._pause)
        if delivered.deliveries > told.backoff.deliveries:
            await delivery.park("NeverFinished", "nobody acknowledged it: killed, stopped, or told to retry it")
            return
        await self._attempt(delivered.message, delivered.sequence, delivered.deliveries, delivery)

    async def _attempt(self, message: Msg, sequence: int, deliveries: int, delivery: Settling) -> None:
        # A parked one under its negative sequence: the same event may be here from the durable, too.
        key = -sequence if isinstance(delivery, SecondChance) else sequence
        self._running[key] = delivery
        try:
            async with self._slots:
                event = read(message.subject, message.data, sequence, deliveries, delivery)
                await self.process_message(EventMsg(message, event))
        except (Unreadable, UnexpectedShape) as error:
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
            await self._fail(message.subject, deliveries, delivery, error)
        else:
            if not self._told.is_manual:
                await delivery.ack()
        finally:
            self._running.pop(key, None)

    async def _fail(self, subject: str, deliveries: int, delivery: Settling, error: Exception) -> None:
        why = cut_text(one_line(f"{type(error).__name__}: {error}"), _WHY_LIMIT)
        if deliveries >= self._told.backoff.deliveries or isinstance(delivery, SecondChance):
            await delivery.park("HandlerFailed", why)
            return
        pause = self._pause(deliveries)
        if not delivery.is_settled:
            logger.warning(
                "%s: %s failed at delivery %s of %s, once more in %.3g s: %s",
                self._told.durable,
                subject,
                deliveries,
                self._told.backoff.deliveries,
                pause,
                why,
            )
        await delivery.nak(pause)

    async def _retry(self, request: Msg) -> None:
        """An operator wants a parked event to be tried again: `retry.{durable}` with its stream sequence."""
        answer = f"{request.data[:32]!r} is no stream sequence"
        if request.data.isdigit() and len(request.data) < 20:
            answer = await self._try_parked(int(request.data))
        if request.reply:
            try:
                await request.respond(answer.encode())
            except NatsError as error:
                logger.warning("%s: nobody was told %r: %s", self._told.durable, answer, error)

    async def _try_parked(self, sequence: int) -> str:
        link = self._broker.link
        try:
            parked = await parking.find(link, self._told.durable, sequence)
            if parked is None:
                return f"nothing of {self._told.durable} is parked under {sequence}"
            chance = SecondChance(link, parked)
            message = Msg(
                _client=link.nc, subject=parked.subject, data=parked.data, headers={"Content-Type": parked.content_type}
            )
            task = asyncio.create_task(self._attempt(message, sequence, parked.deliveries, chance))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.wait([task])
        except JournalError as error:
            return f"failed: it stays parked: {error}"
        return chance.answer

    def _pause(self, deliveries: int) -> float:
        return self._told.backoff.delay(deliveries, self._broker.jitter())

    def _free(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._puller is not None and self.running:
            self._puller.want(1)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: %s was not settled, and comes again", self._told.durable, task.get_name(), exc_info=error)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broker.fail(error)
