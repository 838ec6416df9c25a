"""An event loop whose end does not wait for tasks and threads that actions left behind.

`asyncio.run` waits at its end for every task and for every thread of the default executor. An action may leave either
behind: a handler that ignores its cancellation, or one that started a long `asyncio.to_thread`. A stopping runner would
wait for them for hours or for ever, although their operations were released already.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvloop

from opstream_journal import JournalError

from .containment.left_behind import wait_for_left_behind
from .errors import RunnerError
from .handler.handler_loop import END_TIMEOUT

logger = logging.getLogger(__name__)


def run_until_complete(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a new event loop, and raise the exception that it raises.

    If tasks or threads do not end, this ends the process at once: with status 0, or with status 1 after an error, which
    it logs.
    """
    error: BaseException | None = None
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop = uvloop.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        loop.set_default_executor(executor)
        loop.run_until_complete(main)
    except BaseException as raised:
        error = raised
        raise
    finally:
        left = loop.run_until_complete(_cancel_tasks())
        executor.shutdown(wait=False, cancel_futures=True)
        left += wait_for_left_behind(END_TIMEOUT)
        if left:
            _exit_now(left, error)
        asyncio.set_event_loop(None)
        loop.close()


async def _cancel_tasks() -> list[str]:
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=END_TIMEOUT)
    if not tasks:
        await loop.shutdown_asyncgens()
    return sorted(task.get_name() for task in tasks)


def _exit_now(left: list[str], error: BaseException | None) -> None:
    logger.warning("ending the process although these do not end: %s", ", ".join(left))
    if error is not None:
        is_known = isinstance(error, (JournalError, RunnerError))
        logger.critical("%s", error, exc_info=None if is_known else error)
    logging.shutdown()
    os._exit(0 if error is None else 1)
