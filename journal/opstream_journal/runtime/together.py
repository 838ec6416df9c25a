"""Parts of one process, none of which is of use without the others. Callers: the services' roots."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from opstream_journal.jetstream.connection import end_task

_STOP_TIMEOUT: Final = 5.0


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run parts until the first one ends, or this is cancelled; then cancel the others and wait for what they clean up.

    Raises:
        Exception: what the part that ended raised.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop(*tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, once, and wait until they are over.

    One that takes more than a few seconds is cancelled again and again: some of nats-py's waits forget a cancellation.
    """
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_STOP_TIMEOUT)
    for task in tasks:
        await end_task(task)
