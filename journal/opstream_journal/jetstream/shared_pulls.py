"""Pulls from several consumers that share one demand, in an order that changes with each turn (docs/adr/0072).

`PullConsumer` has a request wait at the broker for as much as the process has room for. With several consumers that
would bring several messages for one place. So a place that becomes free is filled by a turn: the consumers are asked
one after the other for one message, and the first that has one ends the turn. Only when none has any, a request waits
at each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from opstream_journal.wire.received_message import ReceivedMessage

from .connection import Connection, end_task
from .pull_consumer import DeliveredMessage, PullConsumer, drain

logger = logging.getLogger(__name__)

EMPTY_SECONDS: Final = 0.05
"""For how long a consumer that had nothing is asked last in turns, so that these don't wait for its answer."""
MOST_TURNS: Final = 8
"""Turns at once."""
MOST_REPEATED: Final = 1_000
"""Turns in a row that are repeated, which takes about a second; then one takes place in its own order."""
_ONE_NOW: Final = msgspec.json.encode({"batch": 1, "no_wait": True})
_ANSWER_SECONDS: Final = 0.25
"""Seconds for an answer. A consumer that is paused gives none before it goes on."""
_NOTHING: Final = frozenset({"404", "408"})

OrderOfTurn = Callable[[int], Sequence[int]]
"""Returns for a turn, by its number, the order of the consumers by their indices: each of them once."""


class _Queue:
    """One of the consumers, and the questions to it that are open."""

    def __init__(self, connection: Connection, stream: str, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.waiting = PullConsumer(connection, stream, name, clock=clock)
        self.subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self.inbox = connection.nc.new_inbox()
        self.subscription: Subscription | None = None
        self.asked: deque[asyncio.Future[DeliveredMessage | None]] = deque()
        """Answered in this order. Which answer is whose makes no difference."""
        self.late = 0
        """Questions that were given up, and to which an answer may come. Until then it is passed over."""
        self.empty_until = float("-inf")
        """Until when it is asked last, on the clock."""


class SharedPulls:
    """Pulls messages from some durable consumers of one stream while there is demand.

    Used like a `PullConsumer`. At most one message for each consumer comes beyond the demand, and goes back at once.

    Args:
        connection: the connection.
        stream: the stream.
        consumers: their names. They must exist.
        order: of each turn.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumers: Sequence[str],
        *,
        order: OrderOfTurn,
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._queues = [_Queue(connection, stream, one, clock) for one in consumers]
        self._order = order
        self._clock = clock
        self._turn = 0
        self._again: deque[str] = deque(maxlen=MOST_TURNS)
        """The consumers with which the next turns begin instead of their own. The oldest are forgotten."""
        self._repeated = 0
        """How many turns in a row were such."""
        self._free = 0
        """Places for which nothing was found, and no turn is under way."""
        self._turns: set[asyncio.Task[None]] = set()
        self._turning = 0
        """Turns that are under way, each for a place of its own."""
        self._early: deque[DeliveredMessage] = deque()
        """What came by a request that waited, while turns were under way for all places that are free."""
        self._due = asyncio.Event()
        self._is_stopping = False
        self._ready: asyncio.Queue[DeliveredMessage | BaseException] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Subscribe and begin to pull."""
        for queue in self._queues:
            queue.subscription = await self._connection.subscribe(queue.inbox, partial(self._receive, queue))
            await queue.waiting.start()
            self._tasks.append(asyncio.create_task(self._listen(queue), name=f"listen to {queue.subject}"))
        self._connection.on_reconnect(self._forget_questions)
        self._tasks.append(asyncio.create_task(self._begin_turns(), name="begin turns"))
        for task in self._tasks:
            task.add_done_callback(self._pass_on_error)

    def add_demand(self, count: int) -> None:
        """Raise the demand: `count` more messages may be delivered."""
        was_full = self._free == 0
        self._free += count
        if was_full:  # otherwise nothing was there a moment ago, and a request waits at each consumer
            self._due.set()

    def repeat_turn(self, message: DeliveredMessage) -> None:
        """Have a further turn begin with the consumer of a message, which has not used its place.

        Otherwise messages for which nothing is to be done would use up the turns of those behind them.
        """
        self._again.append(message.consumer)

    async def next(self) -> DeliveredMessage:
        """Wait for the next message.

        Raises:
            ConsumerGone: one of the consumers was deleted. From then on every call raises it.
        """
        item = await self._ready.get()
        if isinstance(item, BaseException):
            self._ready.put_nowait(item)  # for the next caller
            raise item
        return item

    async def stop(self) -> None:
        """Stop pulling. Release the messages that were delivered but not taken with `next`."""
        if not self._tasks:
            return
        self._is_stopping = True
        self._free = 0
        self._due.set()
        *listeners, turns = self._tasks
        await asyncio.wait([turns, *self._turns])  # questions are answered soon, and an answer may be a message
        for listener in listeners:
            await end_task(listener)
        self._tasks.clear()
        self._connection.remove_reconnect_callback(self._forget_questions)
        await asyncio.gather(*(self._stop_queue(queue) for queue in self._queues))
        while not self._ready.empty():
            item = self._ready.get_nowait()
            if isinstance(item, DeliveredMessage):
                await item.nak()

    async def _stop_queue(self, queue: _Queue) -> None:
        if queue.subscription is not None and self._connection.is_connected:
            await drain(self._connection, queue.subscription)
        await queue.waiting.stop()

    async def _listen(self, queue: _Queue) -> None:
        while True:
            message = await queue.waiting.next()
            self._take_in(message)
            if self._free and not message.pending:
                queue.waiting.set_demand(1)

    def _take_in(self, message: DeliveredMessage) -> None:
        """Take a message that no turn waits for."""
        if self._free:
            self._deliver(message)
            if message.pending:
                self._due.set()  # there is more: the other places are filled by turns
        elif self._turning:
            self._early.append(message)
        else:
            message.release()

    def _pass_on_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._ready.put_nowait(error)

    def _deliver(self, message: DeliveredMessage) -> None:
        self._free -= 1
        self._ready.put_nowait(message)
        if not self._free:
            self._set_waiting(0)

    async def _begin_turns(self) -> None:
        while not self._is_stopping:
            await self._due.wait()
            self._due.clear()
            while self._free and self._turning < MOST_TURNS and not self._is_stopping:
                self._free -= 1
                self._turning += 1
                turn = asyncio.create_task(self._fill_place(), name="take a turn")
                self._turns.add(turn)
                turn.add_done_callback(self._turns.discard)
                turn.add_done_callback(self._pass_on_error)

    async def _fill_place(self) -> None:
        message = await self._take_turn()
        self._turning -= 1
        if message is None and self._early:
            message = self._early.popleft()
        self._free += 1
        if message is None:
            self._set_waiting(1)
        elif self._is_stopping:
            message.release()
        else:
            self._deliver(message)
            if self._free:
                self._due.set()
        while self._early and not self._turning:
            early = self._early.popleft()
            if self._free and not self._is_stopping:
                self._deliver(early)
            else:
                early.release()

    def _set_waiting(self, count: int) -> None:
        """Have a request wait at each consumer, for a place that no turn could fill; or none, if all are filled."""
        if not self._is_stopping:
            for queue in self._queues:
                queue.waiting.set_demand(count)

    async def _take_turn(self) -> DeliveredMessage | None:
        """Return one message from the first consumer that has one, in the order of the next turn; None if none has."""
        queues = [self._queues[one] for one in self._order(self._turn)]
        if self._again and self._repeated < MOST_REPEATED:
            self._repeated += 1
            first = self._again.popleft()
            queues.sort(key=lambda one: one.name != first)
        else:
            self._repeated = 0
            self._turn += 1
        now = self._clock()
        # Those that had nothing a moment ago come last, so that no place stays empty because of what is remembered.
        for queue in sorted((one for one in queues if not one.late), key=lambda one: now < one.empty_until):
            message = await self._ask(queue)
            if message is not None:
                queue.empty_until = float("-inf")
                return message
            queue.empty_until = self._clock() + EMPTY_SECONDS
        return None

    async def _ask(self, queue: _Queue) -> DeliveredMessage | None:
        """Return a message that a consumer has now; None if it has none, or does not answer."""
        answer: asyncio.Future[DeliveredMessage | None] = asyncio.get_running_loop().create_future()
        queue.asked.append(answer)
        try:
            self._connection.sender.send(queue.subject, _ONE_NOW, reply=queue.inbox)
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            queue.late += 1
        except nats.errors.Error as error:
            logger.debug("%s: %s", queue.subject, error)
            queue.waiting.doubt()
        with contextlib.suppress(ValueError):
            queue.asked.remove(answer)
        return None

    def _receive(self, queue: _Queue, message: ReceivedMessage) -> None:
        """Take an answer: a message, or why there is none."""
        status = message.status
        if status is None and not message.reply:
            return  # another subscriber's answer
        if status is not None and status not in _NOTHING:
            queue.waiting.doubt()
        delivered = None if status is not None else DeliveredMessage(self._connection, message)
        while queue.asked:
            answer = queue.asked.popleft()
            if not answer.done():
                answer.set_result(delivered)
                return
        queue.late = max(0, queue.late - 1)
        if delivered is not None:
            self._take_in(delivered)

    def _forget_questions(self) -> None:
        """Wait for no answer any more: those of a connection that was lost don't come."""
        for queue in self._queues:
            queue.late = 0
            while queue.asked:
                answer = queue.asked.popleft()
                if not answer.done():
                    answer.set_result(None)
