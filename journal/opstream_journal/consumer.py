"""Durable pull consumers with explicit demand: the broker never holds more for us than we said we want.

Callers: the runner (demand = free slots of one action) and the projector (demand = room in its batch). Why this is not
nats-py's `fetch` or FastStream's subscriber: docs/adr/0002.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from . import rpc
from .errors import ConsumerGone, JournalUnavailable, RequestRefused
from .link import Link

logger = logging.getLogger(__name__)

_EXPIRES: Final = 30.0
_HEARTBEAT: Final = 5.0
_BACKOFF: Final = 0.5
_SHORT_REPLY: Final = 9


class Delivered:
    """One delivered message. Acknowledgements go by stream sequence, not by delivery (nats-facts.md): whoever has been
    fenced off must send none of them."""

    __slots__ = ("_link", "_reply", "data", "deliveries", "sequence", "subject")

    def __init__(self, link: Link, message: Msg) -> None:
        self._link = link
        self._reply = message.reply
        self.subject = message.subject
        self.data = message.data
        tokens = message.reply.split(".")
        first = 4 if len(tokens) == _SHORT_REPLY else 6
        self.deliveries = int(tokens[first])
        """1 for the first."""
        self.sequence = int(tokens[first + 1])
        """Stream sequence: the ticket."""

    async def ack(self) -> None:
        """Done. Not confirmed: a lost ack means a redelivery."""
        await self._send(b"+ACK")

    async def ack_confirmed(self) -> None:
        """Done, and the broker knows it (double ack); unconfirmed it may be redelivered, which is decided as such."""
        try:
            await rpc.call(self._link, self._reply, b"+ACK")
        except JournalUnavailable as error:
            logger.debug("ack of message %s was not confirmed: %s", self.sequence, error)

    async def nak(self, delay: float = 0.0) -> None:
        """Deliver again, to whoever is free, after `delay` seconds."""
        await self._send(b'-NAK {"delay": %d}' % int(delay * 1e9) if delay else b"-NAK")

    async def in_progress(self) -> None:
        """Still at it: the ack_wait begins anew."""
        await self._send(b"+WPI")

    async def _send(self, word: bytes) -> None:
        try:
            await self._link.nc.publish(self._reply, word)
        except nats.errors.Error as error:
            # It will be redelivered once its ack_wait is over; nothing is lost.
            logger.warning("could not tell the broker %r for message %s: %s", word, self.sequence, error)


class Puller:
    """Pulls from one durable consumer as long as there is demand.

    Args:
        link: the connection.
        stream: its stream.
        consumer: its name; it must exist.
        clock: monotonic seconds.
    """

    def __init__(self, link: Link, stream: str, consumer: str, *, clock: Callable[[], float]) -> None:
        self._link = link
        self._stream = stream
        self._consumer = consumer
        self._clock = clock
        self._inbox = link.nc.new_inbox()
        self._queue: asyncio.Queue[Delivered | ConsumerGone] = asyncio.Queue()
        self._kick = asyncio.Event()
        self._demand = 0
        self._outstanding = 0
        self._is_troubled = False
        self._heard = clock()
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen and begin to pull."""
        self._subscription = await self._link.nc.subscribe(
            self._inbox, cb=self._take, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        self._link.on_reconnect(self._forget_outstanding)
        self._task = asyncio.create_task(self._run(), name=f"pull {self._consumer}")

    def want(self, count: int) -> None:
        """Raise the demand: `count` more messages may come."""
        self._demand += count
        self._kick.set()

    async def next(self) -> Delivered:
        """The next message, as soon as there is one.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        item = await self._queue.get()
        if isinstance(item, ConsumerGone):
            raise item
        return item

    def next_now(self) -> Delivered | None:
        """The next message if it is here already."""
        if self._queue.empty():
            return None
        item = self._queue.get_nowait()
        if isinstance(item, ConsumerGone):
            raise item
        return item

    async def stop(self) -> None:
        """Pull no more, and give back what was delivered but not taken."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._subscription is not None and self._link.is_up:
            # Drained, not dropped: what the broker sent before it saw the end of interest must be given back.
            await self._subscription.drain()  # type: ignore[no-untyped-call]
        while (message := self.next_now()) is not None:
            await message.nak()

    async def _run(self) -> None:
        while True:
            self._kick.clear()
            if self._is_troubled:
                self._is_troubled = False
                if await self._is_gone():
                    self._fail()
                    return
                await self._link.rest(_BACKOFF)
            missing = self._demand - self._outstanding
            # Asking again only when half is used up keeps the requests few under load.
            if missing > 0 and missing >= self._outstanding:
                await self._pull(missing)
            try:
                async with asyncio.timeout(2 * _HEARTBEAT):
                    await self._kick.wait()
            except TimeoutError:
                if self._outstanding and self._clock() - self._heard > 2 * _HEARTBEAT:
                    logger.warning("consumer %s fell silent; pulling again", self._consumer)
                    self._outstanding = 0

    async def _pull(self, count: int) -> None:
        if not await self._link.wait_up(_BACKOFF):
            self._kick.set()
            return
        request = {"batch": count, "expires": int(_EXPIRES * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9)}
        self._outstanding += count
        self._heard = self._clock()
        try:
            await self._link.nc.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
                msgspec.json.encode(request),
                reply=self._inbox,
            )
        except nats.errors.Error as error:
            logger.warning("could not pull from %s: %s", self._consumer, error)
            self._outstanding = 0
            await self._link.rest(_BACKOFF)
            self._kick.set()

    async def _take(self, message: Msg) -> None:
        self._heard = self._clock()
        status = (message.headers or {}).get("Status")
        if status is not None:
            self._take_status(status, message)
            return
        delivered = Delivered(self._link, message)
        self._outstanding = max(0, self._outstanding - 1)
        if self._demand <= 0:
            # From a pull that was written off (a reconnect, a silence) and is served after all.
            await delivered.nak()
            return
        self._demand -= 1
        self._queue.put_nowait(delivered)
        if self._demand > self._outstanding:
            self._kick.set()

    def _take_status(self, status: str, message: Msg) -> None:
        headers = message.headers or {}
        description = headers.get("Description", "")
        if status == "100":
            return
        if status in {"404", "408"} or "Nats-Pending-Messages" in headers:
            self._outstanding = max(0, self._outstanding - int(headers.get("Nats-Pending-Messages", "0")))
        else:
            self._outstanding = 0
        if status == "409" and "Consumer Deleted" in description:
            self._fail()
            return
        if status in {"409", "503"}:
            logger.info("consumer %s: %s", self._consumer, description or "no responders")
            self._is_troubled = True
        self._kick.set()

    async def _is_gone(self) -> bool:
        try:
            answer = await rpc.call(self._link, f"$JS.API.CONSUMER.INFO.{self._stream}.{self._consumer}")
            decoded = msgspec.json.decode(answer.data, type=rpc.PubAck)
        except (JournalUnavailable, RequestRefused, msgspec.MsgspecError):
            return False
        return decoded.error is not None and decoded.error.code == 404

    def _fail(self) -> None:
        self._queue.put_nowait(
            ConsumerGone(f"consumer {self._consumer} of stream {self._stream} was deleted: restart to make it again")
        )

    def _forget_outstanding(self) -> None:
        self._outstanding = 0
        self._kick.set()
