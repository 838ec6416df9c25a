"""The event loop of the async handlers, in a thread of its own.

The runner's loop pulls messages, keeps leases, and reacts to cancels, signals and probes. None of that may depend on an
author's code. A handler that blocks its loop delays other async handlers and nothing else, and an exit that one of its
tasks or callbacks raises ends neither the runner nor another handler (docs/adr/0031).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
import threading
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import uvloop

from opstream_runner.containment.author_loop import run_until
from opstream_runner.containment.exceptions import log_exception

from .blockage import OPERATION, blocking_line, blocking_operation
from .invocation import UNEXPECTED_ERROR, HandlerOutcome, Raised

logger = logging.getLogger(__name__)

END_TIMEOUT: Final = 0.5
"""Seconds that cancelled tasks have to end."""
_CHECK_INTERVAL: Final = 0.25
_FIRST_WARNING: Final = 2
"""Checks without an answer before the first warning. One can be a pause of the whole process."""
_MAX_WARNING_INTERVAL: Final = 240
"""Checks between two warnings, at most: a minute. Each interval is four times the one before."""
_BLOCKED_CHECKS: Final = 8
"""Checks without an answer after which this process begins no attempt that would have to wait: 2 s."""

_Task: Final = asyncio.Task
"""Made without `create_task`: a task factory of an author's may raise, or make something else."""

CallMaker = Callable[[], Coroutine[Any, Any, HandlerOutcome]]


class HandlerLoop:
    """Runs handlers in an event loop of its own, which begins with the first of them.

    The runner's loop calls all public methods.

    Args:
        packages: the top-level packages of the actions. A line of theirs is named when the loop is blocked.
        loop: runs them there, and makes no loop and no thread; the runner's own, as `opstream.testing` does.
    """

    def __init__(self, packages: Collection[str] = (), *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._packages = packages
        self._loop = loop
        self._is_watched = loop is None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._tasks: dict[asyncio.Task[HandlerOutcome], str] = {}
        self._calls: set[HandlerCall] = set()
        self._next_check: asyncio.TimerHandle | None = None
        self._is_answered = True
        self._unanswered = 0
        self._next_warning = _FIRST_WARNING

    @property
    def is_blocked(self) -> bool:
        """True if a handler blocks the loop for 2 s or more."""
        return self._unanswered >= _BLOCKED_CHECKS

    def call(self, make: CallMaker, name: str) -> HandlerCall:
        """Run a coroutine in the loop.

        Args:
            make: makes the coroutine; called in the loop, unless the call is cancelled before.
            name: names the call in the log.
        """
        return HandlerCall(self, make, name)

    def post(self, callback: Callable[..., object], *args: object) -> None:
        """Call a function in the loop. Nothing happens if the loop has ended."""
        loop = self._loop or self._start()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(callback, *args)

    def begin(self, call: HandlerCall) -> None:
        """Begin a call."""
        self._calls.add(call)
        self.post(self._create_task, call)
        if self._next_check is None and self._is_watched:
            self._next_check = asyncio.get_running_loop().call_later(_CHECK_INTERVAL, self._check)

    def note_end(self, call: HandlerCall) -> None:
        """Note that a call has ended."""
        self._calls.discard(call)

    async def close(self) -> None:
        """Cancel the handlers that still run, and end the thread, within a second.

        A thread that does not end is left. Its name then says which handlers keep it.
        """
        if self._next_check is not None:
            self._next_check.cancel()
            self._next_check = None
        if self._ended is not None:
            self.post(self._begin_closing)
            await asyncio.wait([self._ended], timeout=END_TIMEOUT + _CHECK_INTERVAL)

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = uvloop.new_event_loop()
        self._loop = loop
        runner_loop = asyncio.get_running_loop()
        ended = self._ended = runner_loop.create_future()
        thread_name = "the event loop of the async handlers"

        def run() -> None:
            asyncio.set_event_loop(loop)
            # Its end must not wait for threads that handlers left behind.
            executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
            loop.set_default_executor(executor)
            run_until(loop, lambda: self._closing is not None and self._closing.done())
            executor.shutdown(wait=False, cancel_futures=True)
            loop.close()
            with contextlib.suppress(RuntimeError):  # the runner did not wait
                runner_loop.call_soon_threadsafe(ended.set_result, None)

        self._thread = threading.Thread(target=run, name=thread_name, daemon=False)
        self._thread.start()
        return loop

    def _create_task(self, call: HandlerCall) -> None:
        try:
            call.context.run(OPERATION.set, call.name)
            task = _Task(call.take_coroutine(), loop=asyncio.get_running_loop(), context=call.context)
        except BaseException as error:  # noqa: BLE001 - without an outcome the attempt would never end
            call.fail(error)
            return
        call.task = task
        self._tasks[task] = call.name
        task.add_done_callback(self._tasks.pop)
        task.add_done_callback(call.on_end)

    def _begin_closing(self) -> None:
        if self._closing is None:
            loop = asyncio.get_running_loop()
            self._closing = _Task(self._end_tasks(), loop=loop)
            self._closing.add_done_callback(lambda _: loop.stop())

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=END_TIMEOUT)
            if left:
                names = sorted(self._tasks.get(one, one.get_name()) for one in left)
                threading.current_thread().name = ", ".join(names)
                await asyncio.wait(left)
        await asyncio.get_running_loop().shutdown_asyncgens()

    def _check(self) -> None:
        """Ask the loop for an answer, and warn if it does not give one."""
        self._next_check = None
        if self._thread is not None and not self._thread.is_alive():
            self._abandon()
        if self._is_answered:
            if self._unanswered >= _FIRST_WARNING:
                logger.warning("the async handlers run again after %.1f s", self._unanswered * _CHECK_INTERVAL)
            self._unanswered, self._next_warning = 0, _FIRST_WARNING
            if not self._calls:
                return
            self._is_answered = False
            self.post(self._answer)
        else:
            self._unanswered += 1
            if self._unanswered == self._next_warning:
                self._next_warning += min(3 * self._next_warning, _MAX_WARNING_INTERVAL)
                self._warn()
        self._next_check = asyncio.get_running_loop().call_later(_CHECK_INTERVAL, self._check)

    def _abandon(self) -> None:
        """End the calls of a loop whose thread has ended. The next call begins another one."""
        logger.error(
            "the thread of the async handlers has ended; their attempts have failed: does threading.settrace() or "
            "setprofile() have a function that raises?"
        )
        loop, self._loop, self._thread, self._ended = self._loop, None, None, None
        self._is_answered = True
        self._tasks.clear()
        for call in tuple(self._calls):
            call.lose()
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.close()

    def _answer(self) -> None:
        self._is_answered = True

    def _warn(self) -> None:
        if self._loop is None or self._thread is None or self._thread.ident is None:
            return
        frame = sys._current_frames().get(self._thread.ident)  # noqa: SLF001 - documented, as a tool for deadlocks
        operation = blocking_operation(self._loop, self._tasks)
        others = ", ".join(sorted(set(self._tasks.copy().values()) - {operation})[:5])
        logger.warning(
            "%s blocks the async handlers of this runner for %.1f s, at %s; waiting: %s. "
            'Call it in asyncio.to_thread(), write the handler as a plain def, or use isolation="process"',
            operation or "a handler, or a task or callback of one,",
            self._unanswered * _CHECK_INTERVAL,
            blocking_line(frame, self._packages),
            others or "no other",
        )


class HandlerCall:
    """A coroutine in the loop of the handlers, and its outcome in the loop of the runner. Made by `HandlerLoop.call`.

    Attributes:
        outcome: what the coroutine returns. It is cancelled if the coroutine ends so; to cancel it cancels the
            coroutine, and does not wait.
    """

    def __init__(self, handler_loop: HandlerLoop, make: CallMaker, name: str) -> None:
        self.name = name
        self.context = contextvars.copy_context()
        self.task: asyncio.Task[HandlerOutcome] | None = None
        self._handler_loop = handler_loop
        self._runner_loop = asyncio.get_running_loop()
        self._make: CallMaker | None = make
        self._is_begun = False
        self._is_over = False
        self.outcome: asyncio.Future[HandlerOutcome] = self._runner_loop.create_future()
        self.outcome.add_done_callback(self._on_outcome)
        # A call that is cancelled now is never made.
        self._runner_loop.call_soon(self._begin)

    def take_coroutine(self) -> Coroutine[Any, Any, HandlerOutcome]:
        """Make the coroutine; called once, in the loop of the handlers."""
        make, self._make = self._make, None  # its arguments refer back to the attempt that owns this call
        if make is None:
            raise RuntimeError("a call is made once")
        return make()

    def cancel(self) -> None:
        """Cancel the coroutine, which may ignore it."""
        if not self._is_begun:
            self.outcome.cancel()
        elif not self._is_over:
            self._handler_loop.post(self._cancel_task)

    def on_end(self, task: asyncio.Task[HandlerOutcome]) -> None:
        """Take the outcome from the task; called in the loop of the handlers."""
        outcome: HandlerOutcome | None = None
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                log_exception(logger, error, "%s: the call of its handler failed", self.name)
            outcome = Raised(UNEXPECTED_ERROR, is_meant=False) if error is not None else task.result()
        with contextlib.suppress(RuntimeError):  # the runner did not wait
            self._runner_loop.call_soon_threadsafe(self._end, outcome)

    def fail(self, error: BaseException) -> None:
        """End the call, which could not begin; called in the loop of the handlers."""
        log_exception(logger, error, "%s: the call of its handler failed", self.name)
        with contextlib.suppress(RuntimeError):
            self._runner_loop.call_soon_threadsafe(self.lose)

    def lose(self) -> None:
        """End the call without its handler; called in the loop of the runner."""
        self._end(Raised(UNEXPECTED_ERROR, is_meant=False))

    def _begin(self) -> None:
        if not self.outcome.done():
            self._is_begun = True
            self._handler_loop.begin(self)
        else:
            self._make = None

    def _cancel_task(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _end(self, outcome: HandlerOutcome | None) -> None:
        self._is_over = True
        self.task = None
        self._handler_loop.note_end(self)
        if self.outcome.done():
            return
        if outcome is None:
            self.outcome.cancel()
        else:
            self.outcome.set_result(outcome)

    def _on_outcome(self, outcome: asyncio.Future[HandlerOutcome]) -> None:
        if outcome.cancelled() and self._is_begun:
            self.cancel()
