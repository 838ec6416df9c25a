"""One attempt of one operation: it runs the handler, keeps the lease, and records progress and the outcome.

The dispatcher starts an attempt once its `started` event is stored. The attempt verifies its lease with one read a
heartbeat. An attempt that lost its lease sends neither an ack nor a nak: the broker would take it for the successor's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from opstream_journal import Connection, DeliveredMessage, JournalUnavailable
from opstream_journal.errors import JournalError
from opstream_runner.authoring.action import Action
from opstream_runner.authoring.context import ActionContext
from opstream_runner.authoring.files.uploaded_file import uploaded_files
from opstream_runner.authoring.progress_throttle import ProgressThrottle
from opstream_runner.containment.log_guard import restore_logs
from opstream_runner.dependencies import RunnerDependencies
from opstream_runner.handler.child_process import ChildProcessHandler
from opstream_runner.handler.handler_loop import HandlerLoop
from opstream_runner.handler.in_process import InProcessHandler
from opstream_runner.handler.invocation import Postponed, Raised
from opstream_runner.handler.supervision import RunningHandler, StopReason, StopSignal, supervise
from opstream_runner.steps.clean_up import CanceledRecord, CleanUp
from opstream_runner.steps.step_table import StepTable
from opstream_runner.waits.wait_table import WaitTable
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.operation.state import Operation
from opstream_schemas.seals.operation_key import OperationKey
from opstream_schemas.signals.wait_history import (
    ClosedWait,
    WaitEvent,
    clean_up_begin,
    closed_waits,
    cut_child_wait,
    sleeps,
)
from opstream_schemas.steps.step_history import StepRecord

from .child_office import ChildOffice
from .completion import AttemptResult, Completion
from .event_recorder import EventRecorder
from .file_recorder import FileRecorder
from .progress_recorder import ProgressRecorder
from .step_recorder import StepRecorder

logger = logging.getLogger(__name__)

HEARTBEATS_PER_LEASE: Final = 3
_STOP_GRACE: Final = 3.0
"""Seconds that a handler has to end after a shutdown or a lost lease."""
_SECOND_HEARTBEAT_DELAY: Final = 0.2
"""Seconds between the heartbeat that a notification causes and the next one."""
_WITHOUT_LEASE: Final = frozenset({StopReason.LEASE_LOST, StopReason.LEASE_UNVERIFIED})


class Attempt:
    """A started attempt.

    Args:
        connection: schedules wake-ups.
        dependencies: journal, clocks and ids.
        action: the action to run.
        operation: the state in which this attempt is the live one.
        action_input: JSON from the `requested` event.
        steps: what earlier attempts have recorded of their steps.
        waits: the events that decide about the operation's waits, before the `started` of this attempt.
        message: the delivery that caused the attempt.
        handler_loop: runs async handlers.
        on_handled: called once, when the handler has ended and its outcome is still to be recorded.
        key: of a confidential operation, seals what is recorded; None for any other.
    """

    def __init__(
        self,
        connection: Connection,
        dependencies: RunnerDependencies,
        action: Action[Any, Any],
        operation: Operation,
        action_input: msgspec.Raw,
        steps: tuple[StepRecord, ...],
        waits: tuple[WaitEvent, ...],
        message: DeliveredMessage,
        handler_loop: HandlerLoop,
        on_handled: Callable[[], None],
        key: OperationKey | None = None,
    ) -> None:
        if operation.live is None:
            raise ValueError(f"operation {operation.id} has no live attempt")
        self.id = operation.id
        self._recorder = EventRecorder(dependencies, operation, waits, key)
        self._stop_signal = StopSignal()
        # Nothing here refers back to `self`: an ended attempt is freed at once, without the garbage collector.
        self._completion = Completion(
            connection, dependencies, self._recorder, message, self._stop_signal, action.spec.policy
        )
        self._dependencies = dependencies
        self._action = action
        self._input = action_input
        self._steps = steps
        self._waits = waits
        self._step_recorder: StepRecorder | None = None
        self._connection = connection
        self._child_office: ChildOffice | None = None
        self._message = message
        self._live = operation.live
        self._handler_loop = handler_loop
        signal, self._clean_up = self._stop_signal, None
        if operation.cancel is not None:
            record = CanceledRecord.of(steps, clean_up_begin(waits), cut_child_wait(waits))
            clean_up = CleanUp(record, self._cancel_handler, lambda: signal.reason is not None)
            self._clean_up = clean_up.expect(dependencies.monotonic, operation.live.lease)
        self._on_handled = on_handled
        self._loop = asyncio.get_running_loop()
        self._progress = ProgressRecorder(
            self._recorder,
            operation.live.token,
            self._loop,
            throttle=ProgressThrottle(dependencies.monotonic),
            # The heartbeat sets the stop signal; start it now instead of at its time.
            on_refused=self._heartbeat_now,
        )
        self._files = FileRecorder(
            self._recorder,
            operation.live.token,
            dependencies.payloads,
            self._loop,
            on_lost=partial(self._stop_signal.set, StopReason.LEASE_LOST),
        )
        self._handler: RunningHandler | None = None
        self._is_shutting_down = False
        self._is_completing = False
        self._is_over = False
        self._verified_at = dependencies.monotonic()
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._limit_timers: list[asyncio.TimerHandle] = []
        self._heartbeat_task: asyncio.Task[None] | None = None
        self._is_notified = False

    @property
    def operation(self) -> Operation:
        """The operation as this attempt has seen it last."""
        return self._recorder.operation

    async def run(self) -> None:
        """Run the handler and complete the attempt.

        Afterwards the outcome is recorded and acknowledged, or the operation is released, or, without a lease, nothing
        is recorded.

        Raises:
            JournalError: the broker refused the outcome for good.
        """
        policy = self._action.spec.policy
        began = self._dependencies.monotonic()
        self._handler = self._start_handler()
        if self._is_shutting_down:
            self._handler.expect_signals()
        self._schedule_heartbeat()
        self._start_limit_timers()
        try:
            outcome = await supervise(
                self._handler,
                self._stop_signal,
                cancel_grace=policy.cancel_grace,
                stop_grace=_STOP_GRACE,
                name=f"operation {self.id}: the handler of {self._action.kind}",
            )
            self._is_completing = True
            self._dependencies.meter.observe(self._action.kind, self._dependencies.monotonic() - began)
            restore_logs()
            if self._dependencies.tracing.is_on and isinstance(outcome, Raised | Postponed):
                self._dependencies.tracing.active().fail(str(outcome.error.code))
            self._on_handled()
            result = AttemptResult(
                attempt=self._live.number,
                token=self._live.token,
                outcome=outcome,
                stop_reason=self._stop_signal.reason,
                policy=policy,
                jitter=self._dependencies.jitter(),
            )
            await self._completion.complete(result)
        finally:
            # From here on this attempt must send nothing, neither the present heartbeat nor progress from the thread of
            # a handler that did not stop.
            self._is_over = True
            self._dependencies.heartbeats.forget(self.id)
            for timer in (self._heartbeat_timer, *self._limit_timers):
                if timer is not None:
                    timer.cancel()
            for task in (self._heartbeat_task, self._handler.outcome):
                if task is not None:
                    task.cancel()
            for part in (self._progress, self._files, self._step_recorder, self._child_office):
                if part is not None:
                    part.close()
            self._step_recorder = None  # it refers back to this attempt

    def expect_shutdown(self) -> None:
        """Note that the process will end soon. The handler continues until `stop`."""
        self._is_shutting_down = True
        if self._handler is not None:
            self._handler.expect_signals()

    def stop(self) -> None:
        """Stop the handler and release the operation, because the process ends now."""
        self._stop_signal.set(StopReason.SHUTDOWN)

    def keeps_lease_of(self, operation: Operation) -> bool:
        """Return True if this attempt is the live one of this state, and has not given up its lease."""
        is_live = operation.live is not None and operation.live.token == self._live.token
        return is_live and not self._is_over and self._stop_signal.reason not in _WITHOUT_LEASE

    def notify(self) -> None:
        """Read the journal now, and soon once more, because an event of the operation was published.

        The event goes to this runner and to the stream at the same time, so the first read can come too early.
        """
        if not self._is_completing:  # otherwise it is most likely the event of this attempt
            self._is_notified = True
            self._heartbeat_now()

    def _start_handler(self) -> RunningHandler:
        operation = self._recorder.operation
        tracing = self._dependencies.tracing
        trace = operation.trace
        if tracing.is_on:
            trace = tracing.active().trace or trace
        context = ActionContext(
            operation_id=operation.id,
            resource_id=operation.resource_id,
            attempt=self._live.number,
            traceparent=trace.traceparent if trace else "",
            report=self._progress.report,
            cancel_requested=self._should_stop,
            make_steps=self._make_steps,
            make_waits=self._make_waits,
            attach_file=self._files.attach,
            uploads=uploaded_files(operation.uploads),
            fetch_file=self._files.fetch,
        )
        limit = self._dependencies.result_limit
        if self._action.is_isolated:
            report = self._progress.start
            return ChildProcessHandler(
                self._action,
                self._input,
                context,
                limit,
                report,
                steps=self._steps,
                sleeps=sleeps(self._waits),
                record=None if self._clean_up is None else self._clean_up.record,
                on_canceled=self._cancel_handler,
                record_step=lambda event: self._recorder_of_steps().record(event),
                fetch_result=lambda payload: self._recorder_of_steps().fetch(payload),
                closed=self._closed_waits(),
                is_proven=bool(operation.own_id),
                attach_file=self._files.attach,
                ask=lambda ask: self._office_of_children().ask(ask),
                fetch_file=self._files.fetch,
                is_traced=tracing.is_on,
            )
        return InProcessHandler(self._action, self._input, context, limit, self._handler_loop)

    def _closed_waits(self) -> Mapping[str, ClosedWait]:
        operation = self._recorder.operation
        return closed_waits(self._waits, operation.caller, has_started=True) if operation.signals is not None else {}

    def _make_waits(self) -> WaitTable:
        is_proven = bool(self._recorder.operation.own_id)
        now = self._dependencies.step_clock.now
        return WaitTable(self._closed_waits(), is_proven=is_proven, now=now, clean_up=self._clean_up)

    def _make_steps(self) -> StepTable:
        """Return the steps of this attempt; called in the handler's thread, when it comes to its first one."""
        return StepTable(
            self._steps,
            self._recorder_of_steps().record,
            attempt=self._live.number,
            limit=self._dependencies.result_limit,
            should_stop=self._should_stop,
            waits=sleeps(self._waits),
            clock=self._dependencies.step_clock,
            fetch=lambda payload: self._recorder_of_steps().fetch(payload),
            clean_up=self._clean_up,
            marks_clean_up=self._recorder.operation.cleans_up,
            operation_id=self.id,
            ask=self._office_of_children().ask,
        )

    def _office_of_children(self) -> ChildOffice:
        if self._child_office is None:
            of_all = self._dependencies
            self._child_office = ChildOffice(
                self._connection, of_all.journal, self.operation, self._live.token, of_all.documents, self._loop
            )
        if self._is_over:
            self._child_office.close()
        return self._child_office

    def _recorder_of_steps(self) -> StepRecorder:
        recorder = self._step_recorder
        if recorder is None:
            recorder = self._step_recorder = StepRecorder(
                self._recorder,
                self._live.token,
                self._dependencies.documents,
                self._loop,
                on_lost=partial(self._stop_signal.set, StopReason.LEASE_LOST),
                on_unreadable=self._give_up_lease,
                count=lambda failed: self._dependencies.meter.count_step(self._action.kind, has_failed=failed),
            )
        if self._is_over:  # the thread of a handler that was left behind comes to its first step
            recorder.close()
        return recorder

    def _cancel_handler(self) -> None:
        self._loop.call_soon_threadsafe(self._stop_signal.set, StopReason.CANCEL)

    def _should_stop(self) -> bool:
        has_ended = self._is_over or self._stop_signal.reason is not None
        return has_ended or (self._clean_up is not None and self._clean_up.has_begun)

    def _start_limit_timers(self) -> None:
        timeout = self._action.spec.policy.timeout
        if timeout:
            self._limit_timers.append(self._loop.call_later(timeout, self._stop_signal.set, StopReason.TIMEOUT))
        left = (self._recorder.operation.deadline - self._dependencies.now()).total_seconds()
        self._limit_timers.append(self._loop.call_later(max(0.0, left), self._stop_signal.set, StopReason.DEADLINE))

    def _heartbeat_now(self) -> None:
        if self._heartbeat_task is None and self._handler is not None and not self._is_over:
            self._heartbeat_task = asyncio.create_task(self._heartbeat())

    def _schedule_heartbeat(self) -> None:
        if self._heartbeat_timer is not None:
            self._heartbeat_timer.cancel()
        if self._is_over or self._stop_signal.reason in _WITHOUT_LEASE:
            return
        delay = self._live.lease / HEARTBEATS_PER_LEASE
        left = self._verified_at + self._live.lease - self._dependencies.monotonic()
        if left > 0:
            delay = min(delay, left)
        if self._is_notified:
            self._is_notified = False
            delay = min(delay, _SECOND_HEARTBEAT_DELAY)
        self._heartbeat_timer = self._loop.call_later(delay, self._heartbeat_now)

    async def _heartbeat(self) -> None:
        lease = self._live.lease
        try:
            # The timeout leaves time for one read even if the whole process was paused for longer than the lease.
            left = self._verified_at + lease - self._dependencies.monotonic()
            async with asyncio.timeout(max(left, lease / HEARTBEATS_PER_LEASE)):
                await self._verify_lease()
        except (JournalUnavailable, TimeoutError) as error:
            if self._dependencies.monotonic() - self._verified_at >= lease:
                self._give_up_lease()
            else:
                self._dependencies.heartbeats.failed(self.id, str(error) or "no response in time")
        except (FoldRefused, InvalidEvent, JournalError) as error:
            step = "next step: 'opstream audit' shows its events; update opstream if they are newer"
            logger.error("operation %s can't be folded by this version: %s; %s", self.id, error, step)  # noqa: TRY400
            self._give_up_lease()
        else:
            self._dependencies.heartbeats.works(self.id)
        finally:
            self._heartbeat_task = None
            self._schedule_heartbeat()

    async def _verify_lease(self) -> None:
        """Read what is new, and set the stop signal if this attempt is not the live one or a client has canceled."""
        last = await self._dependencies.journal.last_message(self.id)
        if last is not None:
            await self._recorder.catch_up(last)
        self._verified_at = self._dependencies.monotonic()
        operation = self._recorder.operation
        if operation.live is None or operation.live.token != self._live.token:
            if not self._is_completing:
                self._stop_signal.set(StopReason.LEASE_LOST)
            return
        if operation.cancel is not None and not (self._clean_up and self._clean_up.is_ahead):
            self._stop_signal.set(StopReason.CANCEL)
        await self._message.in_progress()

    def _give_up_lease(self) -> None:
        # During completion the handler has ended, and the append has its own time budget.
        if not self._is_completing:
            if self._stop_signal.reason is None:
                self._dependencies.heartbeats.gave_up(self.id, self._dependencies.monotonic() - self._verified_at)
            self._stop_signal.set(StopReason.LEASE_UNVERIFIED)
