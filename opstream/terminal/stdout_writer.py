"""Standard output for a command that prints much: unbuffered, and written to by a thread of its own.

Called by `replaying`. A reader that is slow holds up whoever awaits the write and nothing else, so that the connection
to the broker stays alive; a thread that is stuck in a write does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from typing import Self


class StdoutWriter:
    """Writes to a file descriptor. As a context manager: while the loop runs that it is used in."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._last: asyncio.Future[None] | None = None
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run_thread, name="stdout", daemon=True)

    async def write(self, data: bytes) -> None:
        """Write all of it. If the caller is cancelled meanwhile, the write goes on.

        Raises:
            OSError: it can't be written; `BrokenPipeError` for a reader that has gone.
        """
        self._last = self._loop.create_future()
        self._last.add_done_callback(_retrieve_error)
        self._jobs.put((data, self._last))
        await asyncio.shield(self._last)

    async def is_written(self, seconds: float) -> bool:
        """Whether the last write has ended well, be it after some seconds."""
        if self._last is None:
            return True
        await asyncio.wait([self._last], timeout=seconds)
        return self._last.done() and self._last.exception() is None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.put(None)

    def _run_thread(self) -> None:
        while (job := self._jobs.get()) is not None:
            data, done = job
            error: OSError | None = None
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError as refused:
                error = refused
            try:
                self._loop.call_soon_threadsafe(_complete, done, error)
            except RuntimeError:
                return  # the loop is closed: whoever wrote has given up


def _retrieve_error(done: asyncio.Future[None]) -> None:
    """Whoever wrote may have been cancelled, and then asyncio would complain that nobody looked at the error."""
    if not done.cancelled():
        done.exception()


def _complete(done: asyncio.Future[None], error: OSError | None) -> None:
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
