"""Waiting in tests: for something to become true, never for time to pass. Callers: every test of something real."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


async def eventually(probe: Callable[[], _T | Awaitable[_T]], *, within: float = 5.0, poll: float = 0.01) -> _T:
    """Ask `probe` until it gives something true, and return that.

    Raises:
        AssertionError: it did not within `within` seconds; the message holds its last answer.
    """
    until = time.monotonic() + within
    while True:
        answer: Any = probe()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"still {answer!r} after {within:g} s")
        await asyncio.sleep(poll)
