"""Durable pull consumers with explicit demand: the broker delivers no more messages than the process asked for.

The runner's demand is its free slots, the projector's the room in its batch, a subscriber's its free workers.
docs/adr/0002 says why this is neither nats-py's `fetch` nor FastStream's subscriber.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from opstream_journal.errors import ConsumerGone, JournalUnavailable
from opstream_journal.missing_streams import next_step_for
from opstream_journal.wire.received_message import ReceivedMessage
from opstream_schemas import subjects

from . import rpc
from .connection import Connection, end_task

logger = logging.getLogger(__name__)

EXPIRES: Final = 5.0
"""Seconds that a pull waits at the broker, unless its maker says otherwise."""
_BACKOFF: Final = 0.5
_DRAIN_TIMEOUT: Final = 2.0
_SHORT_REPLY: Final = 9
_ACK: Final = b"+ACK"
_NAK: Final = b"-NAK"
_NAK_LATER: Final = b'-NAK {"delay": 250000000}'
"""Where the pulls of a consumer that stops are the only ones, the broker would send the message back at once."""
_IDLE: Final = "100"
_EXPIRED: Final = frozenset({"404", "408"})
_BAD_REQUEST: Final = "400"
_NOT_FOUND: Final = 404
_DELETED: Final = "Consumer Deleted"
_PROVISIONED: Final = frozenset(
    {
        subjects.PROJECTOR_CONSUMER,
        subjects.PROJECTOR_DUE_CONSUMER,
        subjects.PROJECTOR_DEADLINES_CONSUMER,
        subjects.WEBHOOKS_CONSUMER,
        subjects.WEBHOOKS_DUE_CONSUMER,
    }
)
"""Consumers that only `opstream provision` makes; runners make their own, too, where their login may."""


class _ConsumerStatus(Enum):
    EXISTS = auto()
    DELETED = auto()
    UNKNOWN = auto()


class DeliveredMessage:
    """One delivered message.

    The broker matches an acknowledgement by stream sequence, not by delivery (docs/nats.md). So a process that has lost
    its lease must not send any.
    """

    __slots__ = ("_connection", "_reply", "data", "deliveries", "message", "sequence", "subject")

    def __init__(self, connection: Connection, message: ReceivedMessage) -> None:
        self._connection = connection
        self._reply = message.reply
        self.message = message
        """The message of nats-py."""
        self.subject = message.subject
        self.data = message.data
        tokens = message.reply.split(".")
        first = 4 if len(tokens) == _SHORT_REPLY else 6
        self.deliveries = int(tokens[first])
        """The number of this delivery; 1 for the first."""
        self.sequence = int(tokens[first + 1])
        """Stream sequence. It is the `ticket` of an attempt that this message causes."""

    @property
    def consumer(self) -> str:
        """The name of the consumer that delivered it."""
        tokens = self._reply.split(".")
        return tokens[3 if len(tokens) == _SHORT_REPLY else 5]

    @property
    def pending(self) -> int:
        """How many messages its consumer had not delivered yet when it delivered this one."""
        tokens = self._reply.split(".")
        return int(tokens[8 if len(tokens) == _SHORT_REPLY else 10])

    @property
    def stored_at(self) -> datetime:
        """The time at which the stream stored it, by the broker's clock."""
        # The token after the sequences counts nanoseconds; a float of seconds is as exact as a datetime.
        tokens = self._reply.split(".")
        return datetime.fromtimestamp(int(tokens[7 if len(tokens) == _SHORT_REPLY else 9]) / 1e9, UTC)

    async def ack(self) -> None:
        """Acknowledge, without confirmation: if the ack is lost, the message is redelivered."""
        self._send(_ACK)

    async def ack_confirmed(self) -> None:
        """Acknowledge, and wait for the confirmation (double ack). Without it the message may be redelivered."""
        try:
            await rpc.call(self._connection, self._reply, _ACK)
        except JournalUnavailable as error:
            logger.debug("ack of message %s was not confirmed: %s", self.sequence, error)

    async def nak(self, delay: float = 0.0) -> None:
        """Release: have it delivered again, to any process with demand, after `delay` seconds."""
        self._send(b'%b {"delay": %d}' % (_NAK, int(delay * 1e9)) if delay else _NAK)

    def release(self) -> None:
        """Release it at once, as `nak` does: no attempt of it was made here."""
        self._send(_NAK)

    async def in_progress(self) -> None:
        """Extend the lease: the ack_wait starts from zero."""
        self._send(b"+WPI")

    def _send(self, word: bytes) -> None:
        try:
            self._connection.sender.send(self._reply, word)
        except nats.errors.Error as error:
            # The broker redelivers it after its ack_wait, so nothing is lost, and the lost connection is in the log.
            logger.debug("message %s could not be settled, and comes again: %s", self.sequence, error)


class PullConsumer:
    """Pulls messages from one durable consumer while there is demand.

    Args:
        connection: the connection.
        stream: the stream.
        consumer: the name of the consumer, which must exist.
        clock: returns monotonic seconds.
        expires: seconds after which the broker forgets a pull that it can't serve. Then the next one is sent. For so
            long it may pass messages to a connection that was lost (`Connection.keeps_pulls`).
        heartbeat: seconds between the broker's heartbeats while it has no message; at most half of `expires`. After
            two intervals without one, the next pull is sent.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        *,
        clock: Callable[[], float],
        expires: float = EXPIRES,
        heartbeat: float = EXPIRES / 2,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._consumer = consumer
        self._clock = clock
        self._expires = expires
        self._heartbeat = heartbeat
        self._inbox = connection.nc.new_inbox()
        self._queue: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()
        self._pull_due = asyncio.Event()
        self._gone = asyncio.Event()
        self._demand = 0
        self._outstanding = 0
        self._is_troubled = False
        self._last_error = ""
        self._is_stream_gone = False
        self._last_heard = clock()
        self._pulled_at = self._last_heard
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribe and begin to pull."""
        self._subscription = await self._connection.subscribe(self._inbox, self._receive)
        self._connection.on_reconnect(self._reset_outstanding)
        self._task = asyncio.create_task(self._pull_loop(), name=f"pull {self._consumer}")

    def add_demand(self, count: int) -> None:
        """Raise the demand: `count` more messages may be delivered."""
        self._demand += count
        self._pull_due.set()

    def set_demand(self, count: int) -> None:
        """Let as many messages be delivered. One that comes beyond, by a pull that waits, goes back at once."""
        self._demand = count
        self._pull_due.set()

    def doubt(self) -> None:
        """Look soon whether the consumer exists."""
        self._is_troubled = True
        self._pull_due.set()

    async def next(self) -> DeliveredMessage:
        """Wait for the next message.

        Raises:
            ConsumerGone: the consumer was deleted. From then on every call raises it.
        """
        return self._message_or_raise(await self._queue.get())

    def next_nowait(self) -> DeliveredMessage | None:
        """Return the next message if it is here already, else None.

        Raises:
            ConsumerGone: as `next`.
        """
        return None if self._queue.empty() else self._message_or_raise(self._queue.get_nowait())

    @property
    def is_gone(self) -> bool:
        """Return True once the consumer was deleted."""
        return self._gone.is_set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not after the consumer was deleted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()

    async def stop(self) -> None:
        """Stop pulling. Release the messages that were delivered but not taken with `next`.

        Where the broker may keep pulls (`Connection.keeps_pulls`), it takes until the last one expires.
        """
        if self._task is None:
            return
        self._demand = 0
        self._connection.remove_reconnect_callback(self._reset_outstanding)
        await end_task(self._task)
        self._task = None
        self._connection.pulls.forget(self._consumer)
        if self._connection.keeps_pulls:
            await self._outlast_pulls()
        if self._subscription is not None and self._connection.is_connected:
            await drain(self._connection, self._subscription)
        while not self._queue.empty():
            message = self._queue.get_nowait()
            if message is not None:
                await message.nak()

    async def _outlast_pulls(self) -> None:
        """Release at once what still comes, until the broker has ended the pulls. After that nothing is sent here."""
        until = self._pulled_at + self._expires + _BACKOFF
        while self._outstanding and self._connection.is_connected and (rest := until - self._clock()) > 0:
            self._pull_due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(rest, _BACKOFF)):
                    await self._pull_due.wait()

    def _message_or_raise(self, item: DeliveredMessage | None) -> DeliveredMessage:
        if item is not None:
            return item
        self._queue.put_nowait(None)  # for the next caller
        if self._is_stream_gone:
            raise ConsumerGone(
                f"stream {self._stream} was deleted, with its consumer {self._consumer}: "
                f"{next_step_for([self._stream])}; then restart this process"
            )
        step = "restart this process, which makes it again"
        if self._consumer in _PROVISIONED:
            step = "run 'opstream provision', which makes it again, then restart this process"
        raise ConsumerGone(f"consumer {self._consumer} of stream {self._stream} was deleted: {step}")

    async def _pull_loop(self) -> None:
        doubted = 0.0
        while True:
            self._pull_due.clear()
            if self._is_troubled:
                self._is_troubled = False
                if await self._check_consumer() is _ConsumerStatus.DELETED:
                    break
                await self._connection.sleep(_BACKOFF)
            if self._outstanding and self._clock() - self._last_heard > 2 * self._heartbeat:
                status = await self._check_consumer()
                if status is _ConsumerStatus.DELETED:
                    break
                # A broker that does not answer the check still has the pull request, and serves it when it is back. A
                # broker that has just come back answers the check before it sends its next heartbeat. So the request
                # counts as lost only if a second check in a row finds the consumer, but no heartbeat.
                if status is _ConsumerStatus.EXISTS and doubted != self._last_heard:
                    doubted = self._last_heard
                elif status is _ConsumerStatus.EXISTS:
                    self._connection.pulls.failed(self._consumer, "it fell silent; pulling again")
                    self._outstanding = 0
            missing = self._demand - self._outstanding
            # Pulling only when half of the demand is used up keeps the requests few under load.
            if missing > 0 and missing >= self._outstanding:
                await self._pull(missing)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat):
                    await self._pull_due.wait()
        self._queue.put_nowait(None)
        self._gone.set()

    async def _pull(self, count: int) -> None:
        if not await self._connection.wait_connected(_BACKOFF):
            self._pull_due.set()
            return
        request = {"batch": count, "expires": int(self._expires * 1e9), "idle_heartbeat": int(self._heartbeat * 1e9)}
        self._outstanding += count
        self._last_heard = self._pulled_at = self._clock()
        try:
            self._connection.sender.send(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
                msgspec.json.encode(request),
                reply=self._inbox,
            )
        except nats.errors.Error as error:
            self._connection.pulls.failed(self._consumer, error)
            self._outstanding = 0
            await self._connection.sleep(_BACKOFF)
            self._pull_due.set()

    def _receive(self, message: ReceivedMessage) -> None:
        self._last_heard = self._clock()
        status = message.status
        if status is not None:
            self._handle_status(status, message.headers or {})
            return
        if not message.reply:
            return  # another subscriber's answer to a pull
        self._connection.pulls.recovered(self._consumer)
        delivered = DeliveredMessage(self._connection, message)
        self._outstanding = max(0, self._outstanding - 1)
        if self._demand <= 0:
            # From a pull that was given up (after a reconnect or a silence) and is served nevertheless.
            delivered._send(_NAK_LATER if self._task is None else _NAK)  # noqa: SLF001
            self._pull_due.set()
            return
        self._demand -= 1
        self._queue.put_nowait(delivered)
        if self._demand > self._outstanding:
            self._pull_due.set()

    def _handle_status(self, status: str, headers: Mapping[str, str]) -> None:
        if status == _IDLE:
            self._connection.pulls.recovered(self._consumer)
            return
        unserved = headers.get("Nats-Pending-Messages")
        if unserved is not None or status in _EXPIRED:
            self._outstanding = max(0, self._outstanding - int(unserved or "0"))
        else:
            self._outstanding = 0
        if status not in _EXPIRED:
            description = headers.get("Description", "")
            # Elections and restarts pass. A pull that is refused for its arguments is refused for ever: logged once.
            is_news = (
                status == _BAD_REQUEST or description.startswith("Exceeded Max")
            ) and description != self._last_error
            self._last_error = description
            if is_news and self._connection.pulls.is_failing:  # among the failures of others it would not be seen
                logger.warning("consumer %s: %s %s", self._consumer, status, description)
            if description != _DELETED:  # `_check_consumer` says whether it is, and then this process ends
                self._connection.pulls.failed(self._consumer, f"{status} {description}")
            self._is_troubled = True
        else:
            self._connection.pulls.recovered(self._consumer)
        self._pull_due.set()

    async def _check_consumer(self) -> _ConsumerStatus:
        try:
            answer = await rpc.call(self._connection, f"$JS.API.CONSUMER.INFO.{self._stream}.{self._consumer}")
            decoded = msgspec.json.decode(answer.data, type=rpc.PubAck)
        except (JournalUnavailable, msgspec.MsgspecError):
            return _ConsumerStatus.UNKNOWN
        is_gone = decoded.error is not None and decoded.error.code == _NOT_FOUND
        self._is_stream_gone = decoded.error is not None and decoded.error.err_code == rpc.STREAM_NOT_FOUND
        return _ConsumerStatus.DELETED if is_gone else _ConsumerStatus.EXISTS

    def _reset_outstanding(self) -> None:
        self._outstanding = 0
        self._pull_due.set()


async def drain(connection: Connection, subscription: Subscription) -> None:
    """Unsubscribe, and receive what the broker had sent before.

    nats-py's own `drain` waits for a PONG. If that wait is cancelled, the late PONG ends the read loop of the
    connection. So this sends a request without responder, which the broker answers at once and in order.
    """
    nc = connection.nc
    try:
        await nc._send_unsubscribe(subscription._id)  # noqa: SLF001 - `unsubscribe` would drop what still comes
        await rpc.call(connection, nc.new_inbox(), timeout=_DRAIN_TIMEOUT)
    except (JournalUnavailable, nats.errors.Error) as error:
        logger.debug("drained %s: %s", subscription.subject, error)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_TIMEOUT):
            await subscription._pending_queue.join()  # noqa: SLF001 - the messages that are not handled yet
    with contextlib.suppress(nats.errors.Error):
        await subscription.unsubscribe()
