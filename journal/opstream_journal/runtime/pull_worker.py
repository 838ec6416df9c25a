"""What a service's loop over a pull consumer needs: the messages that it holds, readiness, retries, and the release.

A loop that works in batches uses `PullWorker` itself. A loop that works on each message separately uses `WorkerPool`.
The runner's dispatcher and the subscribers of `opstream.events` have loops of their own: the one decides by its
attempts which messages it may still release, the other recreates its consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from typing import Final, TypeVar

from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.pull_consumer import DeliveredMessage, PullConsumer

_ANSWER_TIME: Final = 0.05
"""Seconds for messages that the broker has to arrive."""
_MAX_ROUNDS: Final = 5
_FIRST_DELAY: Final = 0.1
_RECONNECT_TIMEOUT: Final = 3_600.0

_Work = TypeVar("_Work", bound=Sized)


class PullWorker:
    """The messages of one pull consumer, from their delivery to their acknowledgement or release.

    Args:
        connection: the connection.
        consumer: not started yet.
    """

    def __init__(self, connection: Connection, consumer: PullConsumer) -> None:
        self._connection = connection
        self._consumer = consumer
        self._held: set[DeliveredMessage] = set()
        """Taken from the consumer, and neither acknowledged nor released."""
        self._expected = 0
        self._is_running = False
        self._is_troubled = False

    @property
    def is_ready(self) -> bool:
        """Return True if messages are processed now."""
        is_able = self._is_running and not self._is_troubled and not self._consumer.is_gone
        return is_able and self._connection.is_connected

    @property
    def expected(self) -> int:
        """Return how many messages were asked for, and have not come yet."""
        return self._expected

    @contextlib.asynccontextmanager
    async def pulling(self, demand: int) -> AsyncIterator[None]:
        """Pull, with an initial demand. At the end, stop and release the messages that are still held."""
        await self._consumer.start()
        self.add_demand(demand)
        self._is_running = True
        try:
            yield
        finally:
            await self.stop_pulling()
            if self._connection.is_connected:  # otherwise the broker redelivers them once their ack_wait is over
                for message in self._held:
                    await message.nak()
            self._held.clear()

    async def stop_pulling(self) -> None:
        """Stop pulling. The held messages stay held."""
        self._is_running = False
        await self._consumer.stop()

    def add_demand(self, count: int) -> None:
        """Raise the demand: `count` more messages may be delivered."""
        self._expected += count
        self._consumer.add_demand(count)

    async def gather(self, linger: float, limit: int) -> list[DeliveredMessage]:
        """Wait for a message and hold it, together with those that are stored in the time after it.

        Nothing is asked for meanwhile. A message that the broker delivers as soon as it is stored wakes it and this
        process once; many that have gathered come with a few writes. Who uses this begins to pull with a demand of 0.

        Args:
            linger: seconds to wait, unless `limit` messages are there already.
            limit: of messages, at least 2.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        self._expect(1)
        batch = [await self.next()]
        if batch[0].pending < limit - 1:
            await self._connection.sleep(linger)
            self._expect(1)  # the next message says how many there are
            await self._take(batch, 2)
        self._expect(min(batch[-1].pending, limit - len(batch)))
        await self._take(batch, limit)
        return batch

    async def _take(self, batch: list[DeliveredMessage], limit: int) -> None:
        """Add messages as they arrive, until there are `limit`, or no more are to be expected soon."""
        while len(batch) < limit and self._expected:
            message = self.next_nowait()
            if message is None:
                try:
                    async with asyncio.timeout(_ANSWER_TIME):
                        message = await self.next()
                except TimeoutError:  # another replica has got them
                    return
            batch.append(message)

    def _expect(self, count: int) -> None:
        if count > self._expected:
            self.add_demand(count - self._expected)

    async def next(self) -> DeliveredMessage:
        """Wait for the next message and hold it.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        return self._hold(await self._consumer.next())

    def next_nowait(self) -> DeliveredMessage | None:
        """Hold and return the next message if it is here already.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        message = self._consumer.next_nowait()
        return None if message is None else self._hold(message)

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not after the consumer was deleted: then the next message is asked for in vain at once."""
        await self._consumer.sleep(seconds)

    async def ack(self, message: DeliveredMessage) -> None:
        """Acknowledge a held message."""
        await message.ack()
        self._held.discard(message)

    async def release(self, message: DeliveredMessage, delay: float = 0.0) -> None:
        """Have a held message delivered again, to any replica, after `delay` seconds."""
        await message.nak(delay)
        self._held.discard(message)

    def forget(self, message: DeliveredMessage) -> None:
        """Stop holding a message that the caller acknowledged or released itself."""
        self._held.discard(message)

    async def retry(
        self, step: Callable[[_Work], Awaitable[_Work]], work: _Work, *, is_partial_final: bool = False
    ) -> _Work:
        """Do a step, and do it again with the part of the work that it could not do, after growing pauses.

        A lost connection is waited for, and does not count as a try. The worker is not ready until the step succeeds.

        Args:
            step: returns the part of the work that the broker did not let it do.
            work: the work.
            is_partial_final: whether to stop once a step has done a part. Then the broker works, and the rest does not
                pass soon.

        Returns:
            The work that is not done after the last try; empty if all is done.
        """
        rounds, delay = 0, _FIRST_DELAY
        try:
            while left := await step(work):
                self._is_troubled = True
                if not self._connection.is_connected:
                    await self._connection.wait_connected(_RECONNECT_TIMEOUT)
                elif rounds == _MAX_ROUNDS or (is_partial_final and len(left) < len(work)):
                    return left
                else:
                    rounds += 1
                    await self._connection.sleep(delay)
                    delay *= 2
                work = left
            return left
        finally:
            self._is_troubled = False

    def _hold(self, message: DeliveredMessage) -> DeliveredMessage:
        self._expected = max(0, self._expected - 1)
        self._held.add(message)
        return message
