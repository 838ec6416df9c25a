"""The pipe that a runner holds while the process of an isolated action runs: its end kills the process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
from typing import Final

_PARENT_POLL_MS: Final = 1_000
"""Milliseconds between two checks of the parent's process id."""


def kill_group_with_runner(lifeline: int) -> None:
    """Let the kernel kill this process and its group once the other end of a pipe is closed.

    Linux signals the owner of a descriptor when an event happens on it. The only possible event on this one is that
    the runner ended. The signal also works while a handler holds the interpreter's lock, and it reaches the processes
    that the handler started. The warden, which kills the others, needs a moment longer. On other systems, and in a
    sandbox that refuses this, only the thread that watches the pipe does it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def watch_lifeline(lifeline: int, parent: int) -> None:
    """Kill this process and its group once the other end of a pipe is closed, or the parent has ended.

    Args:
        lifeline: file descriptor of the pipe.
        parent: process id.
    """
    # A process that the runner forked without exec may hold the pipe open, so the parent is checked, too.
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    while not poll.poll(_PARENT_POLL_MS) and os.getppid() == parent:
        pass
    os.killpg(0, signal.SIGKILL)
