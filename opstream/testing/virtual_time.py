"""Time that is skipped where nothing happens: a clock, and an event loop that goes by it.

The loop moves the clock on instead of waiting, but only while nothing real can come: no socket, no pipe, no thread.
While something can, it waits for that in real time, and the clock goes on by as much.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_MICROSECONDS: Final = 1_000_000
_WAIT_FOR_CHILD: Final = "asyncio-waitpid-"
"""Begins the names of the threads in which asyncio waits for processes."""


_LOOK_INTERVAL: Final = 0.005
"""Seconds between two looks whether all threads have ended, which nothing tells."""


class VirtualClock:
    """A clock that is moved on by hand.

    Args:
        start: what it shows at first; with a time zone.
    """

    def __init__(self, start: datetime) -> None:
        self.start = start
        self._microseconds = 0  # a whole number, so that no sum of skips is off by a bit
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the time."""
        return self.start + timedelta(microseconds=self._microseconds)

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return self._microseconds / _MICROSECONDS

    def advance(self, seconds: float) -> None:
        """Move the clock on, at least by so many seconds and at most a microsecond further."""
        with self._lock:  # a plain handler's thread moves it on, too
            self._microseconds += max(0, ceil(seconds * _MICROSECONDS))

    def seconds_until(self, moment: datetime) -> float:
        """Return the seconds until a time; 0 if it has passed."""
        return max(0.0, (moment - self.now()).total_seconds())


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that goes by a virtual clock.

    Args:
        clock: moved on while nothing happens.
        is_awaited: returns True if a thread is to be waited for in real time.
    """

    def __init__(self, clock: VirtualClock, is_awaited: Callable[[threading.Thread], bool]) -> None:
        self._clock = clock
        self._jobs = 0
        self._is_awaited = is_awaited
        super().__init__(_SkippingSelector(clock, self._is_idle))
        self._own_files = len(self._selector.get_map() or ())  # type: ignore[attr-defined] # asyncio's: the wake-up pipe

    def time(self) -> float:
        """Return the seconds of the clock."""
        return self._clock.seconds()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Do as asyncio's loop does, and wait in real time meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        future.add_done_callback(self._end_job)
        return future

    def _end_job(self, _: object) -> None:
        self._jobs -= 1

    def _is_idle(self, files: int) -> bool:
        if self._jobs or files > self._own_files:
            return False
        return not any(
            thread.name.startswith(_WAIT_FOR_CHILD) or self._is_awaited(thread) for thread in threading.enumerate()
        )


class _SkippingSelector(selectors.BaseSelector):
    def __init__(self, clock: VirtualClock, is_idle: Callable[[int], bool]) -> None:
        self._clock = clock
        self._is_idle = is_idle
        self._real = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:  # noqa: ANN401
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:  # noqa: ANN401
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        until = None if timeout is None else self._clock.seconds() + timeout
        ready = self._real.select(0)
        while not ready and (until is None or self._clock.seconds() < until):
            left = _LOOK_INTERVAL if until is None else until - self._clock.seconds()
            if until is not None and self._is_idle(len(self._real.get_map())):
                # A thread that has ended a moment ago may have left its result since.
                ready = self._real.select(0)
                if not ready:
                    self._clock.advance(left)
            else:
                began = time.monotonic()
                ready = self._real.select(min(left, _LOOK_INTERVAL))
                self._clock.advance(time.monotonic() - began)
        return ready
