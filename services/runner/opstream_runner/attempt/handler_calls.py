"""Calls of a handler, from its thread or process, that the runner's loop answers while the attempt lives."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from opstream_runner.errors import ActionCanceledError

T = TypeVar("T")


class HandlerCalls:
    """The calls of one attempt that have not been answered.

    Args:
        loop: the runner's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    def start(self, call: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
        """Begin to answer a call; callable from any thread.

        Args:
            call: makes the coroutine that answers it, in the runner's loop.

        Returns:
            A future with what the coroutine returns or raises; `ActionCanceledError` if the attempt is over.
        """
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            self._loop.call_soon_threadsafe(self._answer, call, done)
        except RuntimeError:  # the runner's loop has ended
            done.set_exception(attempt_over())
        return done

    def close(self) -> None:
        """Answer nothing any more: the attempt is over."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()

    def _answer(self, call: Callable[[], Coroutine[Any, Any, T]], done: concurrent.futures.Future[T]) -> None:
        if not done.set_running_or_notify_cancel():
            return  # the handler was cancelled meanwhile, which can't be done from here on
        if self._is_closed:
            done.set_exception(attempt_over())
            return
        task = self._loop.create_task(call())
        self._tasks.add(task)

        def end(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            error = attempt_over() if task.cancelled() else task.exception()
            if error is None:
                done.set_result(task.result())
            else:
                done.set_exception(error)

        task.add_done_callback(end)


def attempt_over() -> ActionCanceledError:
    """Return the error of a call that comes too late."""
    return ActionCanceledError("the attempt is over, or another one owns the operation")
