"""What a process that an author's code forks must not inherit: signal handlers, connections, and a running event loop.

`multiprocessing` forks. A child without exec has the runner's signal handlers, which write into a socket that the
runner reads: a SIGTERM for the child would stop the runner. It would hold the runner's connection to the broker, so
that the broker does not notice the end of a killed runner. And a child that returns from the handler's call would go on
with everything that the runner does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
EXIT_STATUS: Final = 70
"""How a forked process ends that came back from the handler's code (EX_SOFTWARE of sysexits.h)."""

DescriptorSource = Callable[[], Iterable[int]]


class _ForkState(threading.local):
    mask: Any = None
    """The signal mask of this thread before its fork."""


class _ForkGuard:
    """The state of this process, which the hooks read. They can't be removed once they are registered."""

    def __init__(self) -> None:
        self.is_prepared = False
        self.is_fork = False
        self.loops: dict[int, asyncio.AbstractEventLoop] = {}
        self.sources: list[DescriptorSource] = []
        self.thread = _ForkState()

    def block_signals(self) -> None:
        # Until the child has its own handlers, a signal would still be handled as if it were the parent's.
        self.thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def unblock_signals(self) -> None:
        mask, self.thread.mask = self.thread.mask, None
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def release_inheritance(self) -> None:
        self.is_fork = True
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with contextlib.suppress(OSError):
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in self._descriptors():
                os.dup2(nothing, descriptor, inheritable=False)
            os.close(nothing)
        loop = self.loops.get(threading.get_ident())
        if loop is not None:
            loop.stop()
        self.unblock_signals()

    def _descriptors(self) -> Iterator[int]:
        for source in self.sources:
            with contextlib.suppress(Exception):  # whatever it is, the child must go on
                yield from (one for one in source() if one >= 0)


_guard: Final = _ForkGuard()


def prepare_forks() -> None:
    """Let the processes that this one forks inherit no signal handlers. Call it before any code of an author runs."""
    if not _guard.is_prepared:
        _guard.is_prepared = True
        os.register_at_fork(
            before=_guard.block_signals,
            after_in_parent=_guard.unblock_signals,
            after_in_child=_guard.release_inheritance,
        )


@contextlib.contextmanager
def keep_from_forks(source: DescriptorSource) -> Iterator[None]:
    """While this context is entered, replace these descriptors by the null device in every process that is forked.

    Args:
        source: returns the descriptors, in the forked process.
    """
    _guard.sources.append(source)
    try:
        yield
    finally:
        _guard.sources.remove(source)


@contextlib.contextmanager
def loop_of_this_thread(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """While this context is entered, this thread runs the loop; a process that it forks stops its copy."""
    _guard.loops[threading.get_ident()] = loop
    try:
        yield
    finally:
        del _guard.loops[threading.get_ident()]


def leave_fork() -> None:
    """End this process at once if it is a fork: the handler's code has come back in a process that is not its own."""
    if _guard.is_fork:
        os.write(2, b"opstream: a process that a handler forked came back from the handler; it ends\n")
        os._exit(EXIT_STATUS)
