"""Records the events of an attempt's steps, for a handler in another thread or process.

A result is retried like an outcome: until it is stored, or the attempt has lost its lease. A broker that is away for a
minute must not cost it, since the step would run again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from opstream_journal import UNTIL_STORED, EventTooLarge, JournalFull
from opstream_journal.errors import JournalError
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_runner.errors import ActionCanceledError
from opstream_runner.steps.step_errors import StepNotRecorded, StepResultTooLarge
from opstream_runner.steps.step_table import StepEvent
from opstream_schemas.errors import DecisionRefused, FoldRefused, InvalidEvent
from opstream_schemas.events import StepFailed, StepStarted
from opstream_schemas.operation.commands import RecordStep

from .event_recorder import EventRecorder

logger = logging.getLogger(__name__)

_FULL_DELAY: Final = 2.0
_FAILURE_BUDGET: Final = 2.0
"""Seconds to record that a step failed before that is dropped: it is for people, and decides nothing."""


class StepRecorder:
    """The steps of one attempt, on their way into the journal.

    Args:
        recorder: the attempt's recorder.
        token: the attempt's token.
        loop: the runner's, in which events are appended.
        on_lost: called when the attempt is not the live one any more.
        on_unreadable: called when the operation can't be folded.
        count: called with each step that has ended: True if it has failed.
    """

    def __init__(
        self,
        recorder: EventRecorder,
        token: str,
        loop: asyncio.AbstractEventLoop,
        *,
        on_lost: Callable[[], None],
        on_unreadable: Callable[[], None],
        count: Callable[[bool], None],
    ) -> None:
        self._recorder = recorder
        self._token = token
        self._on_lost = on_lost
        self._on_unreadable = on_unreadable
        self._count = count
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def record(self, event: StepEvent) -> concurrent.futures.Future[None]:
        """Record an event; callable from any thread.

        Returns:
            A future that is done once the event is stored. Its exception is one of `StepResultTooLarge`,
            `StepNotRecorded`, and `ActionCanceledError` if the attempt has lost its lease or is over.
        """
        recorded: concurrent.futures.Future[None] = concurrent.futures.Future()
        try:
            self._loop.call_soon_threadsafe(self._start, event, recorded)
        except RuntimeError:  # the runner's loop has ended
            recorded.set_exception(_over())
        return recorded

    def close(self) -> None:
        """Record nothing any more: the attempt is over."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()

    def _start(self, event: StepEvent, recorded: concurrent.futures.Future[None]) -> None:
        if self._is_closed:
            recorded.set_exception(_over())
            return
        task = self._loop.create_task(self._store(event))
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = _over() if task.cancelled() else task.exception()
            if error is None:
                recorded.set_result(None)
            else:
                recorded.set_exception(error)

        task.add_done_callback(end)

    async def _store(self, event: StepEvent) -> None:
        if isinstance(event, StepFailed):
            self._count(True)  # noqa: FBT003 - a callback
            with contextlib.suppress(JournalError, DecisionRefused, FoldRefused, InvalidEvent):
                await self._append(event, _FAILURE_BUDGET)
            return
        crash_point(
            CrashPoint.RUNNER_STEP_DONE if not isinstance(event, StepStarted) else CrashPoint.RUNNER_STEP_BEGINS
        )
        while True:
            try:
                await self._append(event, UNTIL_STORED)
            except JournalFull as error:
                logger.debug("operation %s: a step waits for room: %s", self._recorder.operation.id, error)
                await asyncio.sleep(_FULL_DELAY)
            except EventTooLarge as error:
                raise StepResultTooLarge(str(error)) from error
            except DecisionRefused as error:
                self._on_lost()
                raise _over() from error
            except (FoldRefused, InvalidEvent) as error:
                logger.error("operation %s: a step can't be recorded: %s", self._recorder.operation.id, error)  # noqa: TRY400
                self._on_unreadable()
                raise _over() from error
            except JournalError as error:
                raise StepNotRecorded(f"step {event.step!r} can't be recorded: {error}") from error
            else:
                break
        if not isinstance(event, StepStarted):
            self._count(False)  # noqa: FBT003
        crash_point(CrashPoint.RUNNER_STEP_RECORDED)

    async def _append(self, event: StepEvent, budget: float) -> None:
        command = RecordStep(token=self._token, data=event)
        await self._recorder.record(lambda _: command, budget)


def _over() -> ActionCanceledError:
    return ActionCanceledError("the attempt is over, or another one owns the operation")
