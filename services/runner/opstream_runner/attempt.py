"""One attempt of one operation: runs the handler, keeps the lease, records progress and the outcome.

Caller: `dispatch.py`, once `started` is stored. The rules are architecture.md's: one check per heartbeat, and whoever
was fenced off says nothing more about the message, since the broker would take it for the successor's word.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import Enum
from typing import Any, Final

import msgspec

from opstream_journal import UNTIL_STORED, Delivered, Expected, Journal, JournalUnavailable, VersionConflict
from opstream_journal.errors import JournalError
from opstream_schemas.commands import Command, ConfirmCancel, Fail, HandBack, ReportProgress, Succeed, decide
from opstream_schemas.errors import DecisionRefused, ErrorCode, FoldRefused, InvalidEvent
from opstream_schemas.events import OperationError
from opstream_schemas.operation import Operation, evolve, fold, next_event

from .actions import DONE, Action, ActionContext
from .execution import Outcome, Raised, Returned, Stopped, execute

logger = logging.getLogger(__name__)

CHECKS_PER_LEASE: Final = 3
PROGRESS_STEP: Final = 1.0
"""Percent."""
PROGRESS_INTERVAL: Final = 10.0
"""Seconds."""
_PROGRESS_BUDGET: Final = 2.0
_HAND_BACK_BUDGET: Final = 3.0
_STOP_GRACE: Final = 3.0
_RUNNER_STOPPED: Final = OperationError(code=ErrorCode.RUNNER_STOPPED, message="the runner was stopped")


class Verdict(Enum):
    """Why a running handler has to stop."""

    FENCED = "a later attempt or a terminal event was recorded"
    BLIND = "the journal could not be read for longer than the lease"
    CANCEL = "a client asked to cancel"
    STOP = "the runner stops"


_WEIGHT: Final = {Verdict.CANCEL: 0, Verdict.STOP: 1, Verdict.BLIND: 2, Verdict.FENCED: 3}
"""A heavier verdict replaces a lighter one."""


class Tools(msgspec.Struct, frozen=True):
    """What an attempt works with. Clocks and ids are parameters, for tests."""

    journal: Journal
    source: str
    """CloudEvents source of the runner's events."""
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    new_id: Callable[[], str]
    result_limit: int


class Attempt:
    """A started attempt.

    Args:
        tools: journal, clocks, ids.
        action: what to run.
        operation: the state that has this attempt as its live one.
        action_input: JSON from the `requested` event.
        message: the delivery that caused it.
    """

    def __init__(
        self,
        tools: Tools,
        action: Action[Any, Any],
        operation: Operation,
        action_input: msgspec.Raw,
        message: Delivered,
    ) -> None:
        if operation.live is None:
            raise ValueError(f"operation {operation.id} has no live attempt")
        self.operation = operation
        self._tools = tools
        self._action = action
        self._input = action_input
        self._message = message
        self._live = operation.live
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._handler: asyncio.Task[Outcome] | None = None
        self._verdict: Verdict | None = None
        self._judged: asyncio.Future[None] = self._loop.create_future()
        self._seen = tools.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._check: asyncio.Task[None] | None = None
        self._reports: set[asyncio.Task[None]] = set()
        self._reported_percent: float | None = None
        self._reported_at = 0.0

    async def run(self) -> None:
        """Run to the end: outcome recorded and acknowledged, or handed back, or silent because fenced off.

        Raises:
            JournalError: the outcome can't be stored at all (refused by the broker).
        """
        context = ActionContext(
            operation_id=self.operation.id,
            resource_id=self.operation.resource_id,
            attempt=self._live.number,
            traceparent=self.operation.trace.traceparent if self.operation.trace else "",
            report=self._report,
        )
        self._handler = asyncio.create_task(execute(self._action, self._input, context, self._tools.result_limit))
        self._schedule_check()
        try:
            await self._conclude(await self._finished(self._handler))
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in (self._check, self._handler, *self._reports):
                if task is not None:
                    task.cancel()

    def stop(self) -> None:
        """The process is about to end: cancel the handler and hand the operation back."""
        self._judge(Verdict.STOP)

    def check_now(self) -> None:
        """Look at the journal now rather than at the next heartbeat."""
        if self._check is None and self._handler is not None:
            self._check = asyncio.create_task(self._check_once())

    async def _finished(self, handler: asyncio.Task[Outcome]) -> Outcome:
        """How the handler ended, by itself or by a verdict."""
        heeded: Verdict | None = None
        while not handler.done():
            if self._verdict is heeded:
                waited: list[asyncio.Future[Any]] = [handler, self._judged]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                continue
            heeded = self._verdict
            self._judged = self._loop.create_future()
            if heeded is not Verdict.CANCEL:
                handler.cancel()
                await asyncio.wait([handler], timeout=_STOP_GRACE)
                break
            if self._action.is_async:
                # A client's wish waits for the handler's own clean-up; a thread can't be interrupted at all.
                handler.cancel()
        if not handler.done():
            logger.warning(
                "operation %s: the handler of %s did not stop within %g s and is left behind",
                self.operation.id,
                self._action.kind,
                _STOP_GRACE,
            )
            return Stopped()
        return Stopped() if handler.cancelled() else handler.result()

    async def _conclude(self, outcome: Outcome) -> None:
        command = self._command(outcome)
        if command is None:
            logger.warning(
                "operation %s: attempt %s ends silently: %s", self.operation.id, self._live.number, self._why()
            )
            return
        try:
            await self._record(command, _HAND_BACK_BUDGET if isinstance(command, HandBack) else UNTIL_STORED)
        except DecisionRefused as refused:
            logger.warning("operation %s: the outcome came too late: %s", self.operation.id, refused)
        except (FoldRefused, InvalidEvent) as refused:
            logger.warning("operation %s can't be decided by this version: %s", self.operation.id, refused)
        except JournalUnavailable as error:
            logger.warning("operation %s was not handed back: %s; its lease will run out", self.operation.id, error)
        else:
            await (self._message.nak() if isinstance(command, HandBack) else self._message.ack_confirmed())

    def _command(self, outcome: Outcome) -> Command | None:
        """What to record, None for nothing. The guard of the append has the last word on who owns the outcome."""
        token = self._live.token
        verdict = self._verdict
        if verdict is Verdict.FENCED:
            return None
        match outcome:
            case Returned(result):
                return Succeed(token=token, result=result)
            case Raised(error, is_meant) if is_meant or verdict in {None, Verdict.CANCEL}:
                return Fail(token=token, error=error)
            case Stopped() if verdict is Verdict.CANCEL:
                return ConfirmCancel(token=token)
            case _ if verdict is Verdict.BLIND:
                return None
            case _:
                return HandBack(token=token, error=_RUNNER_STOPPED, retry_at=self._tools.now(), counted=False)

    async def _record(self, command: Command, budget: float) -> None:
        """Decide and append; decide again, under a new event id, whenever somebody else was first.

        Raises:
            DecisionRefused: the attempt does not own the outcome any more.
            FoldRefused, InvalidEvent: the operation holds something that this version can't fold.
            JournalUnavailable: not stored within the budget.
        """
        tools = self._tools
        async with self._lock:
            while True:
                data = decide(self.operation, command)
                if data is None:
                    return
                event = next_event(self.operation, data, id=tools.new_id(), source=tools.source, time=tools.now())
                expected = Expected(self.operation.stream_sequence)
                try:
                    stored = await tools.journal.append(self.operation.kind, event, expected, budget=budget)
                except VersionConflict:
                    await self._catch_up()
                else:
                    self.operation = evolve(self.operation, stored)
                    return

    async def _catch_up(self) -> None:
        events = await self._tools.journal.events(self.operation.id, since=self.operation)
        self.operation = fold(self.operation, events) or self.operation

    def _schedule_check(self) -> None:
        self._timer = self._loop.call_later(self._live.lease / CHECKS_PER_LEASE, self.check_now)

    async def _check_once(self) -> None:
        try:
            await self._check_lease()
        except JournalUnavailable as error:
            if self._tools.monotonic() - self._seen > self._live.lease:
                self._judge(Verdict.BLIND)
            else:
                logger.info("operation %s: heartbeat failed: %s", self.operation.id, error)
        except (FoldRefused, InvalidEvent, JournalError) as error:
            logger.error("operation %s can't be decided by this version: %s", self.operation.id, error)  # noqa: TRY400
            self._judge(Verdict.BLIND)
        finally:
            self._check = None
            if self._timer is not None:
                self._timer.cancel()
            if self._verdict not in {Verdict.FENCED, Verdict.BLIND}:
                self._schedule_check()

    async def _check_lease(self) -> None:
        """The one check per heartbeat: is this attempt still the live one, and is it wanted?"""
        last = await self._tools.journal.last(self.operation.id)
        if last is not None and last.seq > self.operation.stream_sequence:
            async with self._lock:
                await self._catch_up()
        self._seen = self._tools.monotonic()
        live = self.operation.live
        if live is None or live.token != self._live.token:
            if not self._is_concluding():
                self._judge(Verdict.FENCED)
            return
        if self.operation.cancel is not None:
            self._judge(Verdict.CANCEL)
        await self._message.in_progress()

    def _is_concluding(self) -> bool:
        return self._handler is not None and self._handler.done()

    def _why(self) -> str:
        return self._verdict.value if self._verdict else "it was cancelled"

    def _judge(self, verdict: Verdict) -> None:
        if self._verdict is None or _WEIGHT[verdict] > _WEIGHT[self._verdict]:
            self._verdict = verdict
            if not self._judged.done():
                self._judged.set_result(None)

    def _report(self, percent: float, message: str) -> Awaitable[None]:
        now = self._tools.monotonic()
        last = self._reported_percent
        if last is not None and percent - last < PROGRESS_STEP and now - self._reported_at < PROGRESS_INTERVAL:
            return DONE
        self._reported_percent, self._reported_at = percent, now
        command = ReportProgress(token=self._live.token, percent=percent, message=message)
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self._start_report, command)
            return DONE
        return self._start_report(command)

    def _start_report(self, command: ReportProgress) -> Awaitable[None]:
        # A task of its own, so that it is recorded also where the author forgot to await it.
        task = self._loop.create_task(self._record_report(command))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
        return task

    async def _record_report(self, command: ReportProgress) -> None:
        try:
            await self._record(command, _PROGRESS_BUDGET)
        except DecisionRefused:
            # The check gives the verdict; now it only comes sooner.
            self.check_now()
        except (JournalError, FoldRefused, InvalidEvent) as error:
            logger.info("operation %s: progress was dropped: %s", self.operation.id, error)
