"""What an async handler has called and not begun to await: a forgotten `await` is an error, and no silent success."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeVar

from .step_errors import InvalidStep

T = TypeVar("T")

_MOST_NAMED: Final = 3
"""Calls that one message names."""


class _Pending(NamedTuple):
    coroutine: Coroutine[Any, Any, Any]
    method: str
    what: str
    name: str
    place: str


class PendingCalls:
    """The calls of one attempt whose coroutines have not begun. Any thread may use it.

    Each coroutine is kept until it begins. Otherwise it would be gone when the handler has returned, if the handler has
    not kept it.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._pending: dict[int, _Pending] = {}

    def coroutine(self, make: Callable[[], Awaitable[T]], method: str, what: str, name: str, place: str) -> Any:  # noqa: ANN401 - a coroutine of the result of `make`
        """Return what the handler has to await.

        Args:
            make: called when it begins; returns what does the work.
            method: of the context.
            what: a noun for the call.
            name: which one it is.
            place: where in the code.
        """
        number = next(self._numbers)
        coroutine: Any = self._begun(number, make)
        coroutine.__qualname__ = f"ActionContext.{method}"  # Python's own warning, in unit tests, names it
        self._pending[number] = _Pending(coroutine, method, what, name, place)
        return coroutine

    async def _begun(self, number: int, make: Callable[[], Awaitable[T]]) -> T:
        self._pending.pop(number, None)
        return await make()

    def check(self) -> None:
        """Close what has not begun now that the handler has returned: it must not begin after the attempt.

        One that was cancelled or closed before it began is no mistake: `asyncio.wait_for` and task groups do that.

        Raises:
            InvalidStep: there is one.
        """
        if not self._pending:
            return
        tasks = {task.get_coro(): task for task in asyncio.all_tasks()} if is_in_loop() else {}
        lost: list[_Pending] = []
        for one in list(self._pending.values()):
            if inspect.getcoroutinestate(one.coroutine) != inspect.CORO_CREATED:
                continue
            task = tasks.get(one.coroutine)
            if task is None:
                with contextlib.suppress(ValueError):  # another thread's loop has just begun it
                    one.coroutine.close()
            elif task.cancelling():
                continue
            else:
                task.cancel()
            lost.append(one)
        if lost:
            texts = [
                f"{one.what} {one.name!r} at {one.place} was never awaited: write `await ctx.{one.method}(...)`"
                for one in lost[:_MOST_NAMED]
            ]
            if len(lost) > _MOST_NAMED:
                texts.append(f"and {len(lost) - _MOST_NAMED} more")
            raise InvalidStep("; ".join(texts))


def is_in_loop() -> bool:
    """Return True in an event loop, where an async handler awaits; False in the thread of a plain one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def caller_place() -> str:
    """Return file and line of the code that has called the calling function."""
    caller = sys._getframe(2)  # noqa: SLF001 - documented, as a tool for messages
    return f"{caller.f_code.co_filename}:{caller.f_lineno}"
