"""The thread of a plain handler.

It is a daemon thread, not one of an executor: it can't be interrupted, and the end of the process must not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from opstream_schemas.names import Kind

_T = TypeVar("_T")

_CHECK_INTERVAL: Final = 1.0
"""Seconds between two looks whether the thread still runs."""


def handler_thread_name(kind: Kind, operation_id: str) -> str:
    """Return the name of the thread in which a plain handler runs."""
    return f"{kind} {operation_id}"


async def run_in_thread(function: Callable[[], _T], name: str) -> _T:
    """Call a function in a thread of its own, and return what it returns.

    Args:
        function: must not raise.
        name: names the thread.

    Raises:
        RuntimeError: no thread can be started, or it ended and the function did not return. A function that an author
            gave to `threading.settrace` or `setprofile` can end a thread before its first line.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        result = function()
        with contextlib.suppress(RuntimeError):  # the runner stopped before its thread did
            loop.call_soon_threadsafe(end, result)

    def end(result: _T) -> None:
        if not done.done():
            done.set_result(result)

    def lose() -> None:
        if not done.done():
            done.set_exception(RuntimeError("its thread ended early: does threading.settrace() have a function?"))

    timer: asyncio.TimerHandle | None = None

    def check() -> None:
        nonlocal timer
        if thread.is_alive():
            timer = loop.call_later(_CHECK_INTERVAL, check)
        else:
            loop.call_soon(lose)  # after the result, if that is on its way

    if getattr(threading, "excepthook", None) is None:  # an author's code has taken it away: no thread can be made then
        threading.excepthook = threading.__excepthook__
    # As asyncio.to_thread does it: the attempt's span is active in the handler, too.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True)
    thread.start()
    timer = loop.call_later(_CHECK_INTERVAL, check)
    try:
        return await done
    finally:
        if timer is not None:
            timer.cancel()
