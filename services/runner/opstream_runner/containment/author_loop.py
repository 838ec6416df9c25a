"""Runs an event loop that executes authors' code, so that no exit and no stop in that code ends it.

asyncio lets `SystemExit` and `KeyboardInterrupt` of a task or callback out of the loop: argparse in a sub-task would
end the process. The task that raised it has its exception all the same, so the handler that awaits this task gets it,
and the loop can run on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .exceptions import log_exception, type_name
from .forks import leave_fork, loop_of_this_thread

logger = logging.getLogger(__name__)


def run_until(loop: asyncio.AbstractEventLoop, is_over: Callable[[], bool]) -> None:
    """Run a loop in this thread until it stops while `is_over` returns True. If it stops before, it runs on.

    Raises:
        RuntimeError: the loop was closed.
    """
    with loop_of_this_thread(loop):
        while not is_over():
            try:
                loop.run_forever()
            except BaseException as error:
                if loop.is_closed():
                    raise
                text = "a task or callback that a handler started raised %s, which ends nothing else"
                log_exception(logger, error, text, type_name(error))
            leave_fork()
