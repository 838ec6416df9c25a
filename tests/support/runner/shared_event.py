"""An event that the test sets and async handlers wait for, or the other way round: they run in different loops."""

from __future__ import annotations

import asyncio
import contextlib


class SharedEvent:
    """Like `asyncio.Event`, for any number of loops and threads."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def is_set(self) -> bool:
        """Return True once `set` was called."""
        return self._is_set

    def set(self) -> None:
        """Let all pass, now and later."""
        self._is_set = True
        for loop, future in self._waiting:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(lambda one=future: one.done() or one.set_result(None))

    async def wait(self) -> None:
        """Wait until `set` is called."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((loop, future))
        if not self._is_set:  # looked at after `append`, so that `set` misses nobody
            await future
