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

from opstream_journal import Delivered, JournalUnavailable, Link
from opstream_journal.errors import JournalError
from opstream_runner.authoring.action import Action
from opstream_runner.authoring.context import DONE, ActionContext
from opstream_runner.dependencies import Tools
from opstream_runner.handler.child_process import InChild
from opstream_runner.handler.in_process import InProcess, Work, see_out
from opstream_runner.handler.invocation import Outcome
from opstream_runner.handler.progress_throttle import Throttle
from opstream_runner.handler.stop_reason import Judgement, Verdict
from opstream_schemas.errors import DecisionRefused, FoldRefused, InvalidEvent
from opstream_schemas.operation.commands import ReportProgress
from opstream_schemas.operation.fold import Operation

from .completion import Closing, Ending
from .event_recorder import Recorder

logger = logging.getLogger(__name__)

CHECKS_PER_LEASE: Final = 3
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
        link: Link,
        tools: Tools,
        action: Action[Any, Any],
        operation: Operation,
        action_input: msgspec.Raw,
        message: Delivered,
    ) -> None:
        if operation.live is None:
            raise ValueError(f"operation {operation.id} has no live attempt")
        self.id = operation.id
        self._recorder = Recorder(tools, operation)
        self._judgement = judgement = Judgement()
        # Without `self`: nothing of an attempt that is over should have to wait for the garbage collector.
        self._closing = Closing(link, tools, self._recorder, message, lambda: judgement.verdict is Verdict.STOP)
        self._tools = tools
        self._action = action
        self._input = action_input
        self._message = message
        self._live = operation.live
        self._throttle = Throttle(tools.monotonic)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._work: Work | None = None
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
        self._work = self._begin()
        if self._is_leaving:
            self._work.expect_signals()
        self._schedule_check()
        self._set_limits()
        try:
            outcome = await see_out(
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

    def leave(self) -> None:
        """The process will end before long; until then the handler goes on."""
        self._is_leaving = True
        if self._work is not None:
            self._work.expect_signals()

    def stop(self) -> None:
        """The process is about to end: cancel the handler and hand the operation back."""
        self._judgement.give(Verdict.STOP)

    def hint(self) -> None:
        """Somebody says that something happened: look at the journal now, and soon once more.

        A hint is published to us and to the stream at once, so the first look can come before the event is stored.
        """
        if not self._is_concluding:  # else it is most likely our own event that they heard of
            self._is_hinted = True
            self._check_now()

    def _begin(self) -> Work:
        operation = self._recorder.operation
        context = ActionContext(
            operation_id=operation.id,
            resource_id=operation.resource_id,
            attempt=self._live.number,
            traceparent=operation.trace.traceparent if operation.trace else "",
            report=self._report,
            cancel_requested=self._is_unwanted,
        )
        limit = self._tools.result_limit
        if self._action.is_isolated:
            return InChild(self._action, self._input, context, limit, self._relay)
        return InProcess(self._action, self._input, context, limit)

    def _is_unwanted(self) -> bool:
        return self._is_over or self._judgement.verdict is not None

    def _set_limits(self) -> None:
        timeout = self._action.spec.policy.timeout
        if timeout:
            self._limits.append(self._loop.call_later(timeout, self._judgement.give, Verdict.TIMEOUT))
        left = (self._recorder.operation.deadline - self._tools.now()).total_seconds()
        self._limits.append(self._loop.call_later(max(0.0, left), self._judgement.give, Verdict.DEADLINE))

    async def _conclude(self, outcome: Outcome) -> None:
        ending = Ending(
            token=self._live.token,
            outcome=outcome,
            verdict=self._judgement.verdict,
            policy=self._action.spec.policy,
            factor=self._tools.jitter(),
        )
        if ending.is_silent:
            why = ending.verdict.value if ending.verdict else ""
            logger.warning("operation %s: attempt %s ends silently: %s", self.id, self._live.number, why)
        else:
            await self._closing.close(ending)

    def _check_now(self) -> None:
        if self._check is None and self._work is not None and not self._is_over:
            self._check = asyncio.create_task(self._check_once())

    def _schedule_check(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_over or self._judgement.verdict in {Verdict.FENCED, Verdict.BLIND}:
            return
        pause = self._live.lease / CHECKS_PER_LEASE
        left = self._seen + self._live.lease - self._tools.monotonic()
        if left > 0:
            pause = min(pause, left)
        if self._is_hinted:
            self._is_hinted = False
            pause = min(pause, _SECOND_LOOK)
        self._timer = self._loop.call_later(pause, self._check_now)

    async def _check_once(self) -> None:
        lease = self._live.lease
        try:
            # At least one honest try, also after a pause of the whole process.
            left = self._seen + lease - self._tools.monotonic()
            async with asyncio.timeout(max(left, lease / CHECKS_PER_LEASE)):
                await self._check_lease()
        except (JournalUnavailable, TimeoutError) as error:
            if self._tools.monotonic() - self._seen >= lease:
                self._lose_sight()
            else:
                logger.info("operation %s: heartbeat failed: %s", self.id, error or "no answer in time")
        except (FoldRefused, InvalidEvent, JournalError) as error:
            logger.error("operation %s can't be decided by this version: %s", self.id, error)  # noqa: TRY400
            self._lose_sight()
        finally:
            self._check = None
            self._schedule_check()

    async def _check_lease(self) -> None:
        """The one check per heartbeat: is this attempt still the live one, and is it wanted?"""
        last = await self._tools.journal.last(self.id)
        if last is not None:
            await self._recorder.catch_up(last)
        self._seen = self._tools.monotonic()
        operation = self._recorder.operation
        if operation.live is None or operation.live.token != self._live.token:
            if not self._is_concluding:
                self._judgement.give(Verdict.FENCED)
            return
        if operation.cancel is not None:
            self._judgement.give(Verdict.CANCEL)
        await self._message.in_progress()

    def _lose_sight(self) -> None:
        # While the outcome is being stored there is nothing to stop any more, and the append has its own patience.
        if not self._is_concluding:
            self._judgement.give(Verdict.BLIND)

    def _report(self, percent: float, message: str) -> Awaitable[None]:
        if self._is_over or not self._throttle.passes(percent):
            return DONE
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self._relay, percent, message)
            return DONE
        return self._relay(percent, message)

    def _relay(self, percent: float, message: str) -> Awaitable[None]:
        if self._is_over:
            return DONE
        command = ReportProgress(token=self._live.token, percent=percent, message=message)
        # A task of its own, so that it is recorded also where the author forgot to await it.
        task = self._loop.create_task(self._record_report(command))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
        return task

    async def _record_report(self, command: ReportProgress) -> None:
        try:
            await self._recorder.record(lambda _: command, _PROGRESS_BUDGET)
        except DecisionRefused:
            # The check gives the verdict; now it only comes sooner.
            self._check_now()
        except (JournalError, FoldRefused, InvalidEvent) as error:
            logger.info("operation %s: progress was dropped: %s", self.id, error)
