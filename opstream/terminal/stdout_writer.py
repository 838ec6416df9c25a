"""Standard output for a command that prints much: unbuffered, written by a thread of its own.

A slow reader of the output delays only the task that awaits the write, so the connection to the broker stays alive. A
thread that is blocked in a write does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from typing import Self


class StdoutWriter:
    """Writes to a file descriptor. A context manager, to be used inside of a running event loop."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._last: asyncio.Future[None] | None = None
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run_thread, name="stdout", daemon=True)

    async def write(self, data: bytes) -> None:
        """Write all of the data. If the caller is cancelled meanwhile, the write goes on.

        Raises:
            OSError: the data can't be written; `BrokenPipeError` if the reader has closed the pipe.
        """
        self._last = self._loop.create_future()
        self._last.add_done_callback(_retrieve_error)
        self._jobs.put((data, self._last))
        await asyncio.shield(self._last)

    async def is_written(self, seconds: float) -> bool:
        """Wait for the last write. Return True if it succeeds within the seconds, or if there is none."""
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
            except OSError as raised:
                error = raised
            try:
                self._loop.call_soon_threadsafe(_complete, done, error)
            except RuntimeError:
                return  # the loop is closed, so no task waits for the write


def _retrieve_error(done: asyncio.Future[None]) -> None:
    """Retrieve the error of a write whose task was cancelled: asyncio logs errors that are never retrieved."""
    if not done.cancelled():
        done.exception()


def _complete(done: asyncio.Future[None], error: OSError | None) -> None:
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
