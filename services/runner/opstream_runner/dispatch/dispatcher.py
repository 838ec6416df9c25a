"""The dispatcher of one action: it pulls a message for each free slot, decides, and executes the decision.

The decision table itself is pure: `opstream_schemas.operation.dispatch_decision`.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec

from opstream_journal import (
    UNTIL_STORED,
    BrokerRefused,
    Connection,
    DeliveredMessage,
    ExpectedVersion,
    JournalFull,
    JournalUnavailable,
    VersionConflict,
)
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.shared_pulls import SharedPulls
from opstream_journal.outage_log import BoundedLog, OutageLog
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.stores.timers import schedule_wake_up, send_wake_up
from opstream_runner.attempt.attempt import Attempt
from opstream_runner.attempt.completion import RELEASE_WAKE_UP
from opstream_runner.authoring.action import Action
from opstream_runner.dependencies import RunnerDependencies
from opstream_runner.handler.handler_loop import HandlerLoop
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName
from opstream_schemas.events import Canceled, EventData, Failed, RecordedEvent
from opstream_schemas.operation.commands import StartAttempt, decide
from opstream_schemas.operation.dispatch_decision import (
    Ack,
    AppendEvent,
    BeginAttempt,
    RedeliverLater,
    ScheduleWake,
    Trigger,
    decide_dispatch,
)
from opstream_schemas.operation.failure_line import canceled_line, end_fields, failure_line
from opstream_schemas.operation.fold import evolve, next_event
from opstream_schemas.operation.state import Operation
from opstream_schemas.seals.sealed_events import seal_event

from .admission import Admission, AdmissionControl, Admit, Defer, Reject, Requeue
from .message_slot import MessageSlot
from .operation_loader import UNREADABLE_DELAY, LoadedOperation, OperationLoader, runs_elsewhere, trigger_of
from .queues import pulls_of
from .request_opener import RequestOpener
from .version_gate import PresentVersions, VersionGate

logger = logging.getLogger(__name__)

_BROKER_TROUBLE_DELAY: Final = 1.0
_BLOCKED_DELAY: Final = 1.0
_CANCEL_TIMEOUT: Final = 0.5


class Dispatcher:
    """Runs the attempts of one action.

    Args:
        connection: pulls messages and schedules wake-ups.
        dependencies: journal, clocks and ids.
        action: the action to run.
        runner: this process's name in events.
        slots: how many handlers run at once. As many outcomes besides may be on their way into the journal.
        handler_loop: runs async handlers, also those of other actions.
    """

    def __init__(
        self,
        connection: Connection,
        dependencies: RunnerDependencies,
        action: Action[Any, Any],
        *,
        runner: str,
        slots: int,
        handler_loop: HandlerLoop,
    ) -> None:
        self._connection = connection
        self._dependencies = dependencies
        self._action = action
        self._runner = runner
        self._slots = slots
        self._handler_loop = handler_loop
        self._loader = OperationLoader(dependencies.journal, action.spec, dependencies.documents)
        self._opener = RequestOpener(self._loader, dependencies.keys, action.kind)
        self._admission = AdmissionControl(connection, dependencies, action.spec)
        present = PresentVersions(connection, action.kind, dependencies.monotonic)
        self.versions = VersionGate(action, dependencies.monotonic, present.read)
        self._unreadable = BoundedLog(logger, f"messages of {action.kind} that can't be folded by this version")
        self._missing_streams = OutageLog(
            logger,
            f"messages of {action.kind} can't be handled, because a stream or bucket is missing",
            f"messages of {action.kind} can be handled again",
        )
        self._unavailable = OutageLog(
            logger,
            f"messages of {action.kind} are requeued, because the journal does not respond",
            f"messages of {action.kind} are handled again",
        )
        self._is_draining = False
        self._is_stopping = False
        self._recording = 0
        """Tasks whose slots are free already."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts: dict[str, Attempt] = {}
        self._consumer = pulls_of(connection, action.spec, dependencies.monotonic)

    @property
    def running(self) -> int:
        """The number of attempts that have begun and whose outcome is not recorded yet."""
        return len(self._attempts)

    async def run(self) -> None:
        """Pull and dispatch until cancelled.

        Raises:
            ConsumerGone: the action's consumer was deleted.
        """
        await self._admission.start()
        await self._consumer.start()
        self._consumer.add_demand(self._slots)
        while True:
            self.handle(await self._consumer.next())

    def handle(self, message: DeliveredMessage) -> asyncio.Task[None]:
        """Begin to handle a message, as `run` does with each that it pulls. The task ends once it is settled."""
        slot = MessageSlot()
        task = asyncio.create_task(self._handle_message(message, slot), name=message.subject)
        self._tasks.add(task)
        task.add_done_callback(partial(self._end_task, slot, message))
        return task

    def notify(self, operation_id: str) -> None:
        """If the operation runs here, let its attempt read the journal now, because an event was published."""
        attempt = self._attempts.get(operation_id)
        if attempt is not None:
            attempt.notify()

    def begin_drain(self) -> None:
        """Start no more attempts, because the process will end soon. Running attempts continue."""
        self._is_draining = True
        for attempt in self._attempts.values():
            attempt.expect_shutdown()

    async def stop_pulling(self) -> None:
        """Stop pulling, and requeue the messages that no attempt was started for.

        Call it after `begin_drain`, once `run` has ended.
        """
        await self._consumer.stop()

    async def wait_until_idle(self) -> None:
        """Wait until no attempt runs. Call it after `begin_drain`, so that none starts."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self, until: float) -> None:
        """Stop the running attempts and release their operations.

        Call it after `stop_pulling`, so that this process does not receive the released operations again.

        Args:
            until: when to give up, by the monotonic clock. This returns at most half a second later.
        """
        self._is_stopping = True
        for attempt in self._attempts.values():
            attempt.stop()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=max(0.0, until - self._dependencies.monotonic()))
        if not late:
            return
        for task in late:
            logger.warning("%s could not be released; its lease will run out", task.get_name())
            task.cancel()
        await asyncio.wait(late, timeout=_CANCEL_TIMEOUT)

    def _release_slot(self, slot: MessageSlot) -> None:
        """Let the next message come while an outcome is being stored, which takes as long as the disk does."""
        if self._recording < self._slots:
            slot.is_free = True
            self._recording += 1
            self._ask_for_another()

    def _ask_for_another(self) -> None:
        if not self._is_draining:
            self._consumer.add_demand(1)

    def _end_task(self, slot: MessageSlot, message: DeliveredMessage, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not slot.has_begun and isinstance(self._consumer, SharedPulls):
            self._consumer.repeat_turn(message)
        if slot.is_free:
            self._recording -= 1
        else:
            self._ask_for_another()
        if not task.cancelled() and (error := task.exception()) is not None:
            # The message is not acknowledged, so it is delivered again when its lease has run out.
            if isinstance(error, BrokerRefused) and error.err_code == rpc.STREAM_NOT_FOUND:
                self._missing_streams.failed(f"run 'opstream provision' ({task.get_name()}: {error})")
            else:
                logger.error("%s could not be handled", task.get_name(), exc_info=error)
        else:
            self._missing_streams.recovered()

    async def _handle_message(self, message: DeliveredMessage, slot: MessageSlot) -> None:
        try:
            await self._decide_and_execute(message, slot)
        except JournalFull as error:
            # The condition `StorageLimitReached` is in the log, once for all messages, with the count of refusals.
            logger.debug("%s (message %s) is requeued: %s", message.subject, message.sequence, error)
            await message.nak(_BROKER_TROUBLE_DELAY)
        except JournalUnavailable as error:
            self._unavailable.failed(f"{message.subject} (message {message.sequence}): {error}")
            await message.nak(_BROKER_TROUBLE_DELAY)
        else:
            self._unavailable.recovered()

    async def _decide_and_execute(self, message: DeliveredMessage, slot: MessageSlot) -> None:
        loaded: LoadedOperation | None
        try:
            trigger = trigger_of(message)
            loaded = await self._loader.load(message)
            if loaded is None:
                logger.info("%s (message %s): its operation expired", message.subject, message.sequence)
                await message.ack()
                return
        except (FoldRefused, InvalidEvent, InvalidName) as refused:
            self._unreadable.log(
                logging.WARNING,
                "%s (message %s) can't be folded by this version: %s",
                message.subject,
                message.sequence,
                refused,
            )
            loaded, trigger = None, Trigger(ticket=message.sequence)
        while True:
            operation = loaded.operation if loaded else None
            if operation is not None and self._runs_here(operation, trigger):
                # The lease ran out while this whole process was paused, and no other runner has noticed. The attempt's
                # next heartbeat and its ack count for this delivery.
                logger.warning(
                    "operation %s: message %s came again; it still runs here", operation.id, message.sequence
                )
                self.notify(operation.id)
                return
            limit, skew = self._action.spec.policy.max_attempts, self._connection.clock_skew
            decision = decide_dispatch(
                operation, trigger, now=self._dependencies.now(), max_attempts=limit, clock_skew=skew
            )
            if loaded is None or isinstance(decision, RedeliverLater):
                await message.nak(decision.delay if isinstance(decision, RedeliverLater) else _BROKER_TROUBLE_DELAY)
                return
            if isinstance(decision, BeginAttempt) and self._is_draining:
                await message.nak()
                return
            if isinstance(decision, BeginAttempt) and self._would_wait_for_handler():
                await message.nak(_BLOCKED_DELAY)
                return
            try:
                await self._execute(decision, loaded, message, slot)
            except VersionConflict as conflict:
                seen = loaded.operation
                loaded = await self._loader.reload(loaded)
                if loaded is not None and loaded.operation.position == seen.position:
                    raise JournalUnavailable(
                        f"{conflict}, but the journal has no newer event", maybe_stored=False
                    ) from conflict
                if loaded is not None and runs_elsewhere(seen, loaded.operation, trigger):
                    logger.info("operation %s: another delivery of message %s runs it", seen.id, message.sequence)
                    return
            else:
                return

    def _runs_here(self, operation: Operation, trigger: Trigger) -> bool:
        attempt = self._attempts.get(operation.id)
        is_same_message = operation.live is not None and operation.live.ticket == trigger.ticket
        return attempt is not None and is_same_message and attempt.keeps_lease_of(operation)

    def _would_wait_for_handler(self) -> bool:
        """Return True if an attempt would have to wait here, because another handler blocks the loop that it needs."""
        return self._handler_loop.is_blocked and self._action.is_async and not self._action.is_isolated

    async def _execute(
        self,
        decision: Ack | AppendEvent | BeginAttempt | ScheduleWake,
        loaded: LoadedOperation,
        message: DeliveredMessage,
        slot: MessageSlot,
    ) -> None:
        operation = loaded.operation
        queue = self._action.spec.policy.served_queue(operation.queue)
        waking = (self._connection, operation.kind, operation.id)
        match decision:
            case Ack():
                if operation.is_terminal:
                    # The process that recorded its end may have died before it released the lock.
                    await self._admission.release_lock(operation)
                await message.ack_confirmed()
            case AppendEvent(data=data):
                await self._append_event(operation, data if loaded.key is None else seal_event(data, loaded.key))
                if isinstance(data, Failed):
                    line = failure_line(operation, data.error, is_ours=True)
                    logger.warning("%s", line, extra=end_fields(operation, data.error))
                elif isinstance(data, Canceled):
                    logger.info("%s", canceled_line(operation), extra=end_fields(operation))
                else:
                    logger.info("operation %s: recorded %s", operation.id, data.name)
                await self._admission.release_lock(operation)
                await message.ack_confirmed()
            case ScheduleWake(at=None, scheduled_by=sequence):
                await send_wake_up(*waking, RELEASE_WAKE_UP, armed_by=sequence, queue=queue)
                await message.ack_confirmed()
            case ScheduleWake(at=datetime() as at, scheduled_by=sequence, reason=reason):
                await schedule_wake_up(*waking, reason, at=at, armed_by=sequence, queue=queue)
                crash_point(CrashPoint.RUNNER_WAKE_ARMED)
                await message.ack_confirmed()
            case BeginAttempt(row=row):
                if (opened := await self._opener.open(loaded)) is None:
                    await message.nak(UNREADABLE_DELAY)
                    return
                loaded, action_input = opened
                admission: Admission = await self.versions.admit(operation, action_input)
                if isinstance(admission, Admit):
                    loaded = loaded._replace(action_input=admission.action_input or action_input)
                    admission = await self._admission.admit(operation, loaded.request_sequence, message)
                match admission:
                    case Defer():
                        await message.ack_confirmed()
                    case Requeue(delay=delay):
                        await message.nak(delay)
                    case Reject(data=data):
                        await self._execute(AppendEvent(row, data), loaded, message, slot)
                    case Admit():
                        number, request = operation.attempt + 1, operation.trace
                        with self._dependencies.tracing.attempt_span(operation.kind, operation.id, number, request):
                            await self._start_attempt(loaded, message, slot)

    async def _start_attempt(self, loaded: LoadedOperation, message: DeliveredMessage, slot: MessageSlot) -> None:
        command = StartAttempt(
            runner=self._runner,
            token=self._dependencies.new_id(),
            ticket=message.sequence,
            lease=self._action.spec.policy.lease,
            clean_up=self._action.spec.policy.clean_up,
        )
        if (data := decide(loaded.operation, command)) is None or not isinstance(loaded.action_input, msgspec.Raw):
            raise RuntimeError("a decision to start an attempt made no event, or it has no input")
        operation = evolve(loaded.operation, await self._append_event(loaded.operation, data))
        slot.has_begun = True
        if operation.attempt > 1:
            logger.info("operation %s: attempt %s begins", operation.id, operation.attempt)
        crash_point(CrashPoint.RUNNER_STARTED)
        attempt = Attempt(
            self._connection,
            self._dependencies,
            self._action,
            operation,
            loaded.action_input,
            loaded.steps,
            loaded.waits,
            message,
            self._handler_loop,
            partial(self._release_slot, slot),
            loaded.key,
        )
        self._attempts[operation.id] = attempt
        if self._is_draining:
            attempt.expect_shutdown()
        if self._is_stopping:
            attempt.stop()
        try:
            await attempt.run()
        except VersionConflict as error:
            raise RuntimeError("an attempt must handle its own version conflicts") from error
        finally:
            if self._attempts.get(operation.id) is attempt:
                del self._attempts[operation.id]
        if operation.hold:
            await self._admission.try_release_lock(attempt.operation)

    async def _append_event(self, operation: Operation, data: EventData) -> RecordedEvent:
        deps = self._dependencies
        event = next_event(operation, data, id=deps.new_id(), source=deps.source, time=deps.now())
        expected = ExpectedVersion(operation.stream_sequence)
        return await deps.journal.append(operation.kind, event, expected, budget=UNTIL_STORED)
