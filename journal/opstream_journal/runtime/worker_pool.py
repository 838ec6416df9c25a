"""Works on the messages of one pull consumer concurrently, with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from opstream_journal.jetstream.connection import Connection, end_task
from opstream_journal.jetstream.pull_consumer import DeliveredMessage, PullConsumer

from .pull_worker import PullWorker

_FINISH_TIMEOUT: Final = 2.0


def _no_time() -> float:
    return 0.0


class WorkerPool:
    """Runs one task for each message, except for messages that need none.

    Args:
        connection: the connection.
        consumer: not started yet.
        slots: the maximum of messages in work.
        linger: returns the seconds for which messages may gather on the broker before they are fetched together; 0 to
            get each as soon as it is stored.
    """

    def __init__(
        self, connection: Connection, consumer: PullConsumer, *, slots: int, linger: Callable[[], float] = _no_time
    ) -> None:
        self._worker = PullWorker(connection, consumer)
        self._slots = slots
        self._linger = linger
        self._unasked = 0
        """Free slots for which no message has been asked for."""
        self._tasks: dict[asyncio.Task[None], DeliveredMessage] = {}
        self._failure: asyncio.Future[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Return True if messages are processed now."""
        return self._worker.is_ready

    async def run(self, handle: Callable[[DeliveredMessage], Awaitable[bool]]) -> None:
        """Pass each message to `handle`, until cancelled.

        Then tasks have 2 s to finish. The messages of tasks that don't are released.

        Args:
            handle: returns True if it acknowledged or released the message itself; otherwise it has called `spawn`.

        Raises:
            ConsumerGone: the consumer was deleted.
            Exception: what `handle` or a task raised.
        """
        self._failure = asyncio.get_running_loop().create_future()
        first = 1 if self._linger() else self._slots
        self._unasked = self._slots - first
        async with self._worker.pulling(first):
            loop = asyncio.create_task(self._pull(handle), name="pull")
            try:
                await asyncio.wait([loop, self._failure], return_when=asyncio.FIRST_COMPLETED)
                for ended in (self._failure, loop):
                    if ended.done():
                        ended.result()
            finally:
                await end_task(loop)
                if not loop.cancelled():
                    loop.exception()  # a deleted stream fails both: one is raised, and asyncio would log the other
                self._failure.cancel()
                await self._worker.stop_pulling()
                await self._finish()

    def spawn(self, message: DeliveredMessage, work: Coroutine[Any, Any, None]) -> None:
        """Work on a message in a task, which acknowledges or releases it. The end of the task frees its slot."""
        task = asyncio.create_task(work)
        self._tasks[task] = message
        task.add_done_callback(self._finish_task)

    async def _pull(self, handle: Callable[[DeliveredMessage], Awaitable[bool]]) -> None:
        while True:
            message = await self._worker.next()
            if await handle(message):
                self._worker.forget(message)
                self._unasked += 1
                await self._ask_after(message)

    async def _ask_after(self, message: DeliveredMessage) -> None:
        """Ask for messages: for as many as there are free slots, or first for one, and then for what has gathered."""
        linger, count = self._linger(), self._unasked
        if linger and self._worker.expected:
            return
        if linger and message.pending:
            count = min(message.pending, count)
        elif linger:
            await self._worker.sleep(linger)
            count = 1
        self._unasked -= count
        self._worker.add_demand(count)

    def _finish_task(self, task: asyncio.Task[None]) -> None:
        message = self._tasks.pop(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._worker.forget(message)
        elif self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)
        self._worker.add_demand(1)

    async def _finish(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FINISH_TIMEOUT)
        for task in list(self._tasks):
            await end_task(task)
