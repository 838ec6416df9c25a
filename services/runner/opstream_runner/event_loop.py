"""Runs the process's event loop so that its end can't be held up by what actions left behind. Caller: `main.py`.

`asyncio.run` waits at its end for every task and every thread of the default executor. An action may have left either:
a handler that ignores its cancellation, or one that had `asyncio.to_thread` do something long. Whoever stops a runner
would wait for them, in vain or for hours, although their operations were handed back already.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import uvloop

from opstream_journal import JournalError

from .errors import RunnerError

logger = logging.getLogger(__name__)

_END_TIMEOUT: Final = 0.5
"""Seconds that tasks, and then threads, have to notice that it is over."""


def run_until_complete(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a loop of its own; what it raises is raised.

    If tasks or threads stay nevertheless, the process ends here and now, with status 0, or 1 for an error, which is
    logged.
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
        left += _join_threads()
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
        _, tasks = await asyncio.wait(tasks, timeout=_END_TIMEOUT)
    if not tasks:
        await loop.shutdown_asyncgens()
    return sorted(task.get_name() for task in tasks)


def _join_threads() -> list[str]:
    # The interpreter waits for those that are no daemons.
    threads = [one for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon]
    for thread in threads:
        thread.join(_END_TIMEOUT / len(threads))
    return sorted(thread.name for thread in threads if thread.is_alive())


def _exit_now(left: list[str], error: BaseException | None) -> None:
    logger.warning("ending although these do not: %s", ", ".join(left))
    if error is not None:
        is_known = isinstance(error, (JournalError, RunnerError))
        logger.critical("%s", error, exc_info=None if is_known else error)
    logging.shutdown()
    os._exit(0 if error is None else 1)
