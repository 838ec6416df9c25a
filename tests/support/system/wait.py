"""Waits for a condition; tests never wait for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


async def eventually(probe: Callable[[], _T | Awaitable[_T]], *, within: float = 20.0, poll: float = 0.01) -> _T:
    """Call `probe` until its result is true, and return that.

    Args:
        probe: plain or async.
        within: seconds.
        poll: seconds between two calls.

    Raises:
        AssertionError: the result was not true within `within` seconds; the message holds the last one.
    """
    until = time.monotonic() + within
    while True:
        result: Any = probe()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if time.monotonic() > until:
            raise AssertionError(f"still {result!r} after {within:g} s")
        await asyncio.sleep(poll)
