"""Records the progress that a handler reports, from its thread or process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from opstream_journal.errors import JournalError
from opstream_runner.authoring.context import COMPLETED
from opstream_runner.authoring.progress_throttle import ProgressThrottle
from opstream_schemas.errors import DecisionRefused, FoldRefused, InvalidEvent
from opstream_schemas.operation.commands import ReportProgress

from .event_recorder import EventRecorder

logger = logging.getLogger(__name__)

_BUDGET: Final = 2.0
"""Seconds to record a report before it is dropped."""


class ProgressRecorder:
    """The progress of one attempt, on its way into the journal.

    Args:
        recorder: the attempt's recorder.
        token: the attempt's token.
        loop: the runner's, in which events are appended.
        throttle: says which reports are worth an event.
        on_refused: called when a report is refused, because the attempt may not be the live one any more.
    """

    def __init__(
        self,
        recorder: EventRecorder,
        token: str,
        loop: asyncio.AbstractEventLoop,
        *,
        throttle: ProgressThrottle,
        on_refused: Callable[[], None],
    ) -> None:
        self._recorder = recorder
        self._token = token
        self._loop = loop
        self._throttle = throttle
        self._on_refused = on_refused
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def report(self, percent: float, message: str) -> Awaitable[None]:
        """Record a report unless it comes too soon after the last; callable from any thread."""
        if self._is_closed or not self._throttle.allow(percent):
            return COMPLETED
        recorded: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(self._record_for, recorded, percent, message)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a plain handler, in a thread without a loop, does not wait
            return COMPLETED
        return asyncio.wrap_future(recorded, loop=loop)

    def start(self, percent: float, message: str) -> asyncio.Task[None] | None:
        """Record a report; in the runner's loop. None if the attempt is over."""
        if self._is_closed:
            return None
        command = ReportProgress(token=self._token, percent=percent, message=message)
        # A task records it even if the author forgot to await the result.
        task = self._loop.create_task(self._record(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self) -> None:
        """Record nothing any more: the attempt is over."""
        self._is_closed = True
        self._on_refused = _do_nothing  # it refers back to the attempt, which is freed without the garbage collector
        for task in self._tasks:
            task.cancel()

    def _record_for(self, recorded: concurrent.futures.Future[None], percent: float, message: str) -> None:
        def end(_: object = None) -> None:
            if recorded.set_running_or_notify_cancel():
                recorded.set_result(None)

        def pass_cancellation(future: concurrent.futures.Future[None]) -> None:
            if future.cancelled() and task is not None:
                self._loop.call_soon_threadsafe(task.cancel)

        task = self.start(percent, message)
        if task is None:
            end()
        else:
            task.add_done_callback(end)
            recorded.add_done_callback(pass_cancellation)

    async def _record(self, command: ReportProgress) -> None:
        try:
            await self._recorder.record(lambda _: command, _BUDGET)
        except DecisionRefused:
            self._on_refused()
        except (JournalError, FoldRefused, InvalidEvent) as error:
            logger.info("operation %s: progress was dropped: %s", self._recorder.operation.id, error)


def _do_nothing() -> None:
    """Have nobody to tell."""
