"""Messages in hand: pulled, worked on side by side, given back at the end. Callers: `fanout.py`, `courier.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from opstream_journal import Connection, DeliveredMessage, PullConsumer
from opstream_journal.jetstream.connection import end_task

_FINISH_TIMEOUT: Final = 2.0


class WorkerPool:
    """Pulls as many messages as there are slots, and remembers who works on which.

    Args:
        link: the connection.
        puller: not started yet.
        slots: messages in hand at most.
    """

    def __init__(self, link: Connection, puller: PullConsumer, *, slots: int) -> None:
        self._link = link
        self._puller = puller
        self._slots = slots
        self._tasks: dict[asyncio.Task[None], DeliveredMessage] = {}
        self._failure: asyncio.Future[None] | None = None
        self._is_running = False

    @property
    def is_ready(self) -> bool:
        """Whether messages are taken now."""
        return self._is_running and self._link.is_connected

    async def run(self, take: Callable[[DeliveredMessage], Awaitable[bool]]) -> None:
        """Hand each message to `take`, which returns whether it is done with it; otherwise it has called `spawn`.

        Until cancelled; what is being worked on then has a moment to end, the rest is given back.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        self._failure = asyncio.get_running_loop().create_future()
        await self._puller.start()
        self._puller.add_demand(self._slots)
        self._is_running = True
        loop = asyncio.create_task(self._pull(take), name="pull")
        try:
            await asyncio.wait([loop, self._failure], return_when=asyncio.FIRST_COMPLETED)
            for ended in (self._failure, loop):
                if ended.done():
                    ended.result()
        finally:
            self._is_running = False
            await end_task(loop)
            self._failure.cancel()
            await self._puller.stop()
            await self._release()

    def spawn(self, message: DeliveredMessage, work: Coroutine[Any, Any, None]) -> None:
        """Work on a message in the background; its slot is free again when that ends."""
        task = asyncio.create_task(work)
        self._tasks[task] = message
        task.add_done_callback(self._finish_task)

    async def _pull(self, take: Callable[[DeliveredMessage], Awaitable[bool]]) -> None:
        while True:
            if await take(await self._puller.next()):
                self._puller.add_demand(1)

    def _finish_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)
        self._puller.add_demand(1)

    async def _release(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FINISH_TIMEOUT)
        left = dict(self._tasks)
        for task in left:
            await end_task(task)
        if self._link.is_connected:  # otherwise the broker finds out by itself
            for message in left.values():
                await message.nak()
