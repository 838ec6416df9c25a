"""Outlasts a broker that is away for a while, and bounds how much work runs at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from opstream_journal import Connection, JournalUnavailable

RETRY_TIMEOUT: Final = 60.0
"""Seconds for which the broker may be away."""

_FIRST_DELAY: Final = 0.1
_MAX_DELAY: Final = 2.0

_T = TypeVar("_T")


async def retry_while_unavailable(connection: Connection, step: Callable[[], Awaitable[_T]]) -> _T:
    """Call a step until the broker answers. The step must be repeatable.

    Raises:
        JournalUnavailable: the broker did not answer for `RETRY_TIMEOUT`.
    """
    loop = asyncio.get_running_loop()
    until, delay = loop.time() + RETRY_TIMEOUT, _FIRST_DELAY
    while True:
        try:
            return await step()
        except JournalUnavailable:
            left = until - loop.time()
            if left <= 0:
                raise
            if connection.is_connected:
                await connection.sleep(min(delay, left))
                delay = min(delay * 2, _MAX_DELAY)
            else:
                await connection.wait_connected(left)


async def run_bounded(todo: Iterable[Callable[[], Awaitable[None]]], limit: asyncio.Semaphore) -> None:
    """Call all functions, as many at once as the semaphore allows.

    Raises:
        ExceptionGroup: of what the functions raised.
    """

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        async with limit:
            await work()

    async with asyncio.TaskGroup() as group:
        for work in todo:
            group.create_task(run(work))


def first_error(group: ExceptionGroup) -> Exception:
    """Return the first error of a group; the others most likely have the same cause."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
