"""A thread that does what blocks, one thing after the other, while the event loop goes on.

It is a daemon, unlike those of an executor: a database that never answers must not keep the process from its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Call(NamedTuple):
    work: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class IndexThread:
    """One thread, which runs from the first call to `stop`."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def call(self, work: Callable[[], T]) -> T:
        """Do something in the thread, after what was asked for before, and return its result or raise its error.

        If the caller is cancelled, it is done nevertheless.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="index", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._calls.put(_Call(work, future, loop))
        return await future

    def stop(self) -> None:
        """End the thread once it has done what it was asked for. Nothing is waited for."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                result = call.work()
            except BaseException as error:  # noqa: BLE001 - it is raised in the loop
                _answer(call, call.future.set_exception, error)
            else:
                _answer(call, call.future.set_result, result)


def _answer(call: _Call, answer: Callable[[Any], None], value: object) -> None:
    def settle() -> None:
        if not call.future.done():
            answer(value)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        call.loop.call_soon_threadsafe(settle)
