"""What every loop over a pull consumer needs: which messages it holds, whether it is ready, and their release.

A loop that works in batches uses `PullWorker` itself. One that works on each message for itself uses `WorkerPool`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from typing import Final, TypeVar

from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.pull_consumer import DeliveredMessage, PullConsumer

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
        self._is_running = False
        self._is_troubled = False

    @property
    def is_ready(self) -> bool:
        """Return True if messages are processed now."""
        return self._is_running and not self._is_troubled and self._connection.is_connected

    @contextlib.asynccontextmanager
    async def pulling(self, demand: int) -> AsyncIterator[None]:
        """Pull, beginning with a demand of so many messages. At the end, release all that are still held."""
        await self._consumer.start()
        self._consumer.add_demand(demand)
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
        """Pull no more. What is held stays held."""
        self._is_running = False
        await self._consumer.stop()

    def add_demand(self, count: int) -> None:
        """Raise the demand: `count` more messages may come."""
        self._consumer.add_demand(count)

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

    async def ack(self, message: DeliveredMessage) -> None:
        """Acknowledge a held message."""
        await message.ack()
        self._held.discard(message)

    async def release(self, message: DeliveredMessage, delay: float = 0.0) -> None:
        """Have a held message delivered again, to any replica, after `delay` seconds."""
        await message.nak(delay)
        self._held.discard(message)

    def forget(self, message: DeliveredMessage) -> None:
        """Stop holding a message that was acknowledged or released elsewhere."""
        self._held.discard(message)

    async def retry(
        self, step: Callable[[_Work], Awaitable[_Work]], work: _Work, *, is_partial_final: bool = False
    ) -> _Work:
        """Do a step with some work, and again with what it could not do, with growing pauses.

        A lost connection is waited for, and costs no try. Until the step succeeds this worker is not ready.

        Args:
            step: returns the part of its work that the broker kept it from.
            work: not empty.
            is_partial_final: whether a step that did a part only is the last: then the broker works, and the rest is
                better tried later.

        Returns:
            What is still not done after the last try.
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
        self._held.add(message)
        return message
