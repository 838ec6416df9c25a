"""Much work at once, on a broker that may be away for a while. Callers: `sweeping.py`, `rebuild.py`, `verify.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from opstream_journal import Connection, JournalUnavailable

RETRY_TIMEOUT: Final = 60.0
"""Seconds that the broker may be away."""

_FIRST_DELAY: Final = 0.1
_MAX_DELAY: Final = 2.0

_T = TypeVar("_T")


async def retry_while_unavailable(link: Connection, step: Callable[[], Awaitable[_T]]) -> _T:
    """Take a step that may be taken any number of times, until the broker answers.

    Raises:
        JournalUnavailable: it did not for `PATIENCE`.
    """
    loop = asyncio.get_running_loop()
    until, rest = loop.time() + RETRY_TIMEOUT, _FIRST_DELAY
    while True:
        try:
            return await step()
        except JournalUnavailable:
            left = until - loop.time()
            if left <= 0:
                raise
            if link.is_connected:
                await link.sleep(min(rest, left))
                rest = min(rest * 2, _MAX_DELAY)
            else:
                await link.wait_connected(left)


async def run_bounded(todo: Iterable[Callable[[], Awaitable[None]]], limit: asyncio.Semaphore) -> None:
    """Do everything, so much of it at once as the limit lets.

    Raises:
        ExceptionGroup: of what was raised.
    """

    async def do(work: Callable[[], Awaitable[None]]) -> None:
        async with limit:
            await work()

    async with asyncio.TaskGroup() as group:
        for one in todo:
            group.create_task(do(one))


def first_error(group: ExceptionGroup) -> Exception:
    """One of the errors; the others are most likely the same."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
