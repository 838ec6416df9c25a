"""One attempt of one operation: runs the handler, keeps the lease, records progress and the outcome.

Caller: `dispatch.py`, once `started` is stored. The rules are architecture.md's: one check per heartbeat, and whoever
was fenced off says nothing more about the message, since the broker would take it for the successor's word.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable
from typing import Any, Final

import msgspec

from opstream_journal import Connection, DeliveredMessage, JournalUnavailable
from opstream_journal.errors import JournalError
from opstream_runner.authoring.action import Action
from opstream_runner.authoring.context import COMPLETED, ActionContext
from opstream_runner.dependencies import RunnerDependencies
from opstream_runner.handler.child_process import ChildProcessHandler
from opstream_runner.handler.in_process import InProcessHandler, RunningHandler, supervise
from opstream_runner.handler.invocation import HandlerOutcome
from opstream_runner.handler.progress_throttle import ProgressThrottle
from opstream_runner.handler.stop_reason import StopReason, StopSignal
from opstream_schemas.errors import DecisionRefused, FoldRefused, InvalidEvent
from opstream_schemas.operation.commands import ReportProgress
from opstream_schemas.operation.state import Operation

from .completion import AttemptResult, Completion
from .event_recorder import EventRecorder

logger = logging.getLogger(__name__)

HEARTBEATS_PER_LEASE: Final = 3
_PROGRESS_BUDGET: Final = 2.0
_STOP_GRACE: Final = 3.0
_SECOND_LOOK: Final = 0.2


class Attempt:
    """A started attempt.

    Args:
        link: the connection, to arm wakes.
        tools: journal, clocks, ids.
        action: what to run.
        operation: the state that has this attempt as its live one.
        action_input: JSON from the `requested` event.
        message: the delivery that caused it.
    """

    def __init__(
        self,
        link: Connection,
        tools: RunnerDependencies,
        action: Action[Any, Any],
        operation: Operation,
        action_input: msgspec.Raw,
        message: DeliveredMessage,
    ) -> None:
        if operation.live is None:
            raise ValueError(f"operation {operation.id} has no live attempt")
        self.id = operation.id
        self._recorder = EventRecorder(tools, operation)
        self._judgement = judgement = StopSignal()
        # Without `self`: nothing of an attempt that is over should have to wait for the garbage collector.
        self._closing = Completion(
            link, tools, self._recorder, message, lambda: judgement.reason is StopReason.SHUTDOWN
        )
        self._tools = tools
        self._action = action
        self._input = action_input
        self._message = message
        self._live = operation.live
        self._throttle = ProgressThrottle(tools.monotonic)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._work: RunningHandler | None = None
        self._is_leaving = False
        self._is_concluding = False
        self._is_over = False
        self._seen = tools.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._limits: list[asyncio.TimerHandle] = []
        self._check: asyncio.Task[None] | None = None
        self._is_hinted = False
        self._reports: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run to the end: outcome recorded and acknowledged, or handed back, or silent because fenced off.

        Raises:
            JournalError: the outcome can't be stored at all (refused by the broker).
            AttemptNotBegun: there is no process for an isolated action. The lease runs out and another attempt follows:
                a machine without room must not fail all operations that it can get hold of.
        """
        policy = self._action.spec.policy
        self._work = self._start_handler()
        if self._is_leaving:
            self._work.expect_signals()
        self._schedule_heartbeat()
        self._start_limit_timers()
        try:
            outcome = await supervise(
                self._work,
                self._judgement,
                cancel_grace=policy.cancel_grace,
                stop_grace=_STOP_GRACE,
                name=f"operation {self.id}: the handler of {self._action.kind}",
            )
            self._is_concluding = True
            await self._conclude(outcome)
        finally:
            # From here on nothing of this attempt may speak any more: not a check that is under way, and not the
            # thread of a handler that was left behind and goes on telling its progress.
            self._is_over = True
            for timer in (self._timer, *self._limits):
                if timer is not None:
                    timer.cancel()
            for task in (self._check, self._work.outcome, *self._reports):
                if task is not None:
                    task.cancel()

    def expect_shutdown(self) -> None:
        """The process will end before long; until then the handler goes on."""
        self._is_leaving = True
        if self._work is not None:
            self._work.expect_signals()

    def stop(self) -> None:
        """The process is about to end: cancel the handler and hand the operation back."""
        self._judgement.set(StopReason.SHUTDOWN)

    def notify(self) -> None:
        """Somebody says that something happened: look at the journal now, and soon once more.

        A hint is published to us and to the stream at once, so the first look can come before the event is stored.
        """
        if not self._is_concluding:  # else it is most likely our own event that they heard of
            self._is_hinted = True
            self._heartbeat_now()

    def _start_handler(self) -> RunningHandler:
        operation = self._recorder.operation
        context = ActionContext(
            operation_id=operation.id,
            resource_id=operation.resource_id,
            attempt=self._live.number,
            traceparent=operation.trace.traceparent if operation.trace else "",
            report=self._on_progress,
            cancel_requested=self._should_stop,
        )
        limit = self._tools.result_limit
        if self._action.is_isolated:
            return ChildProcessHandler(self._action, self._input, context, limit, self._start_recording_progress)
        return InProcessHandler(self._action, self._input, context, limit)

    def _should_stop(self) -> bool:
        return self._is_over or self._judgement.reason is not None

    def _start_limit_timers(self) -> None:
        timeout = self._action.spec.policy.timeout
        if timeout:
            self._limits.append(self._loop.call_later(timeout, self._judgement.set, StopReason.TIMEOUT))
        left = (self._recorder.operation.deadline - self._tools.now()).total_seconds()
        self._limits.append(self._loop.call_later(max(0.0, left), self._judgement.set, StopReason.DEADLINE))

    async def _conclude(self, outcome: HandlerOutcome) -> None:
        ending = AttemptResult(
            token=self._live.token,
            outcome=outcome,
            stop_reason=self._judgement.reason,
            policy=self._action.spec.policy,
            jitter=self._tools.jitter(),
        )
        if ending.is_discarded:
            why = ending.stop_reason.value if ending.stop_reason else ""
            logger.warning("operation %s: attempt %s ends silently: %s", self.id, self._live.number, why)
        else:
            await self._closing.complete(ending)

    def _heartbeat_now(self) -> None:
        if self._check is None and self._work is not None and not self._is_over:
            self._check = asyncio.create_task(self._heartbeat())

    def _schedule_heartbeat(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_over or self._judgement.reason in {StopReason.LEASE_LOST, StopReason.LEASE_UNVERIFIED}:
            return
        pause = self._live.lease / HEARTBEATS_PER_LEASE
        left = self._seen + self._live.lease - self._tools.monotonic()
        if left > 0:
            pause = min(pause, left)
        if self._is_hinted:
            self._is_hinted = False
            pause = min(pause, _SECOND_LOOK)
        self._timer = self._loop.call_later(pause, self._heartbeat_now)

    async def _heartbeat(self) -> None:
        lease = self._live.lease
        try:
            # At least one honest try, also after a pause of the whole process.
            left = self._seen + lease - self._tools.monotonic()
            async with asyncio.timeout(max(left, lease / HEARTBEATS_PER_LEASE)):
                await self._verify_lease()
        except (JournalUnavailable, TimeoutError) as error:
            if self._tools.monotonic() - self._seen >= lease:
                self._give_up_lease()
            else:
                logger.info("operation %s: heartbeat failed: %s", self.id, error or "no answer in time")
        except (FoldRefused, InvalidEvent, JournalError) as error:
            logger.error("operation %s can't be decided by this version: %s", self.id, error)  # noqa: TRY400
            self._give_up_lease()
        finally:
            self._check = None
            self._schedule_heartbeat()

    async def _verify_lease(self) -> None:
        """The one check per heartbeat: is this attempt still the live one, and is it wanted?"""
        last = await self._tools.journal.last_message(self.id)
        if last is not None:
            await self._recorder.catch_up(last)
        self._seen = self._tools.monotonic()
        operation = self._recorder.operation
        if operation.live is None or operation.live.token != self._live.token:
            if not self._is_concluding:
                self._judgement.set(StopReason.LEASE_LOST)
            return
        if operation.cancel is not None:
            self._judgement.set(StopReason.CANCEL)
        await self._message.in_progress()

    def _give_up_lease(self) -> None:
        # While the outcome is being stored there is nothing to stop any more, and the append has its own patience.
        if not self._is_concluding:
            self._judgement.set(StopReason.LEASE_UNVERIFIED)

    def _on_progress(self, percent: float, message: str) -> Awaitable[None]:
        if self._is_over or not self._throttle.allow(percent):
            return COMPLETED
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self._start_recording_progress, percent, message)
            return COMPLETED
        return self._start_recording_progress(percent, message)

    def _start_recording_progress(self, percent: float, message: str) -> Awaitable[None]:
        if self._is_over:
            return COMPLETED
        command = ReportProgress(token=self._live.token, percent=percent, message=message)
        # A task of its own, so that it is recorded also where the author forgot to await it.
        task = self._loop.create_task(self._record_progress(command))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
        return task

    async def _record_progress(self, command: ReportProgress) -> None:
        try:
            await self._recorder.record(lambda _: command, _PROGRESS_BUDGET)
        except DecisionRefused:
            # The check gives the verdict; now it only comes sooner.
            self._heartbeat_now()
        except (JournalError, FoldRefused, InvalidEvent) as error:
            logger.info("operation %s: progress was dropped: %s", self.id, error)
