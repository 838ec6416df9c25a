"""The dispatch of one action: pulls messages as slots are free, decides on each, runs what it may run.

Caller: `runner.py`. The decisions themselves are pure (`opstream_schemas.operation.dispatch_decision`); here they are
carried out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from opstream_journal import (
    UNTIL_STORED,
    Connection,
    DeliveredMessage,
    ExpectedVersion,
    JournalFull,
    JournalUnavailable,
    PullConsumer,
    VersionConflict,
)
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.stores.timers import schedule_wake_up
from opstream_runner.attempt.attempt import Attempt
from opstream_runner.attempt.completion import RETRY_WAKE_UP
from opstream_runner.authoring.action import Action
from opstream_runner.dependencies import RunnerDependencies
from opstream_schemas import subjects
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName
from opstream_schemas.events import EventData, RecordedEvent
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
from opstream_schemas.operation.fold import evolve, next_event
from opstream_schemas.operation.state import Operation

from .admission import AdmissionControl, Defer, Reject, Requeue
from .operation_loader import LoadedOperation, OperationLoader, delivery_of

logger = logging.getLogger(__name__)

_BROKER_TROUBLE_DELAY: Final = 1.0
_NEWER_VERSION_DELAY: Final = 1.0
_CANCEL_TIMEOUT: Final = 0.5


class Dispatcher:
    """Runs one action.

    Args:
        link: the connection.
        tools: what attempts work with.
        action: what to run.
        runner: this process, as events name it.
        slots: attempts at once.
    """

    def __init__(
        self, link: Connection, tools: RunnerDependencies, action: Action[Any, Any], *, runner: str, slots: int
    ) -> None:
        self._link = link
        self._tools = tools
        self._action = action
        self._runner = runner
        self._slots = slots
        self._loader = OperationLoader(tools.journal, action.kind)
        self._gate = AdmissionControl(link, tools, action.spec)
        self._is_leaving = False
        self._is_stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts: dict[str, Attempt] = {}
        self._puller = PullConsumer(
            link, subjects.OPERATIONS_STREAM, subjects.runner_consumer(action.kind), clock=tools.monotonic
        )

    async def run(self) -> None:
        """Pull and dispatch until cancelled.

        Raises:
            ConsumerGone: the action's consumer was deleted.
        """
        await self._gate.start()
        await self._puller.start()
        self._puller.add_demand(self._slots)
        while True:
            message = await self._puller.next()
            task = asyncio.create_task(self._handle_message(message), name=message.subject)
            self._tasks.add(task)
            task.add_done_callback(self._release_slot)

    def notify(self, operation_id: str) -> None:
        """Somebody says that something happened to an operation; if it runs here, look now."""
        attempt = self._attempts.get(operation_id)
        if attempt is not None:
            attempt.notify()

    def begin_drain(self) -> None:
        """The process will end before long: begin nothing any more. What runs goes on."""
        self._is_leaving = True
        for attempt in self._attempts.values():
            attempt.expect_shutdown()

    async def stop_pulling(self) -> None:
        """Pull no more, and give back what was delivered but not begun. Once `run` has ended, after `leave`."""
        await self._puller.stop()

    async def wait_until_idle(self) -> None:
        """Wait until nothing runs. After `leave`: nothing new begins."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self, until: float) -> None:
        """Hand back what runs, and leave nothing behind that the broker would wait for.

        After `close`: what is put back must not come to us again.

        Args:
            until: when to give up, by the tools' monotonic clock; back half a second later at most.
        """
        self._is_stopping = True
        for attempt in self._attempts.values():
            attempt.stop()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=max(0.0, until - self._tools.monotonic()))
        if not late:
            return
        for task in late:
            logger.warning("%s could not be handed back; its lease will run out", task.get_name())
            task.cancel()
        await asyncio.wait(late, timeout=_CANCEL_TIMEOUT)

    def _release_slot(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._is_leaving:
            self._puller.add_demand(1)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Not acknowledged: the message comes again when its lease has run out.
            logger.error("%s could not be handled", task.get_name(), exc_info=error)

    async def _handle_message(self, message: DeliveredMessage) -> None:
        try:
            await self._decide_and_execute(message)
        except (JournalUnavailable, JournalFull) as error:
            logger.warning("%s (message %s) is put back: %s", message.subject, message.sequence, error)
            await message.nak(_BROKER_TROUBLE_DELAY)

    async def _decide_and_execute(self, message: DeliveredMessage) -> None:
        loaded: LoadedOperation | None
        try:
            delivery = delivery_of(message)
            loaded = await self._loader.load(message)
            if loaded is None:
                logger.info("%s (message %s): its operation expired", message.subject, message.sequence)
                await message.ack()
                return
        except (FoldRefused, InvalidEvent, InvalidName) as refused:
            logger.warning(
                "%s (message %s) can't be decided by this version: %s", message.subject, message.sequence, refused
            )
            loaded, delivery = None, Trigger(ticket=message.sequence)
        while True:
            operation = loaded.operation if loaded else None
            decision = decide_dispatch(
                operation, delivery, now=self._tools.now(), max_attempts=self._action.spec.policy.max_attempts
            )
            if loaded is None or isinstance(decision, RedeliverLater):
                await message.nak(decision.delay if isinstance(decision, RedeliverLater) else _BROKER_TROUBLE_DELAY)
                return
            if isinstance(decision, BeginAttempt) and self._is_leaving:
                await message.nak()
                return
            if isinstance(decision, BeginAttempt) and self._needs_newer_version(loaded.operation):
                await message.nak(_NEWER_VERSION_DELAY)
                return
            try:
                await self._execute(decision, loaded, message)
            except VersionConflict as conflict:
                seen = loaded.operation
                loaded = await self._loader.reload(loaded)
                if loaded is not None and loaded.operation.position == seen.position:
                    raise JournalUnavailable(f"{conflict}, yet nothing is newer", maybe_stored=False) from conflict
                if loaded is not None and _runs_elsewhere(seen, loaded.operation, delivery):
                    logger.info("operation %s: another delivery of message %s runs it", seen.id, message.sequence)
                    return
            else:
                return

    def _needs_newer_version(self, operation: Operation) -> bool:
        """Whether the request was made for a higher version of the action than this process has.

        During a rolling upgrade the API validates by the new version while old runners still pull. What the new
        input means only a new runner knows; an old one would fail the operation for good.
        """
        own = self._action.spec.action_version
        if operation.action_version > own:
            logger.info(
                "operation %s is left to a runner of version %s or later; this one has version %s",
                operation.id,
                operation.action_version,
                own,
            )
        return operation.action_version > own

    async def _execute(
        self,
        decision: Ack | AppendEvent | BeginAttempt | ScheduleWake,
        loaded: LoadedOperation,
        message: DeliveredMessage,
    ) -> None:
        operation = loaded.operation
        match decision:
            case Ack():
                if operation.is_terminal:
                    # Whoever recorded its end may have died before it passed on what it held.
                    await self._gate.release_lock(operation)
                await message.ack_confirmed()
            case AppendEvent(data=data):
                await self._append_event(operation, data)
                logger.info("operation %s: recorded %s", operation.id, data.name)
                await self._gate.release_lock(operation)
                await message.ack_confirmed()
            case ScheduleWake(at=at, scheduled_by=sequence):
                await schedule_wake_up(
                    self._link, operation.kind, operation.id, RETRY_WAKE_UP, at=at, armed_by=sequence
                )
                await message.ack_confirmed()
            case BeginAttempt(row=row):
                match await self._gate.admit(operation, loaded.request_sequence, message):
                    case Defer():
                        await message.ack_confirmed()
                    case Requeue(delay=delay):
                        await message.nak(delay)
                    case Reject(data=data):
                        await self._execute(AppendEvent(row, data), loaded, message)
                    case _:
                        await self._start_attempt(loaded, message)

    async def _start_attempt(self, loaded: LoadedOperation, message: DeliveredMessage) -> None:
        command = StartAttempt(
            runner=self._runner,
            token=self._tools.new_id(),
            ticket=message.sequence,
            lease=self._action.spec.policy.lease,
        )
        data = decide(loaded.operation, command)
        if data is None:
            raise RuntimeError("a started attempt is always an event")
        operation = evolve(loaded.operation, await self._append_event(loaded.operation, data))
        if operation.attempt > 1:
            logger.info("operation %s: attempt %s begins", operation.id, operation.attempt)
        crash_point(CrashPoint.RUNNER_STARTED)
        attempt = Attempt(self._link, self._tools, self._action, operation, loaded.action_input, message)
        self._attempts[operation.id] = attempt
        if self._is_leaving:
            attempt.expect_shutdown()
        if self._is_stopping:
            attempt.stop()
        try:
            await attempt.run()
        except VersionConflict as error:
            raise RuntimeError("an attempt settles its own conflicts") from error
        finally:
            if self._attempts.get(operation.id) is attempt:
                del self._attempts[operation.id]
        if operation.hold:
            await self._gate.try_release_lock(operation)

    async def _append_event(self, operation: Operation, data: EventData) -> RecordedEvent:
        tools = self._tools
        event = next_event(operation, data, id=tools.new_id(), source=tools.source, time=tools.now())
        expected = ExpectedVersion(operation.stream_sequence)
        return await tools.journal.append(operation.kind, event, expected, budget=UNTIL_STORED)


def _runs_elsewhere(seen: Operation, now: Operation, delivery: Trigger) -> bool:
    """Whether an attempt under this very ticket began after we had looked: a later, or an older, delivery of the same
    message is with somebody who works. Its lease did not run out, so this is not row 7."""
    return now.live is not None and now.live.ticket == delivery.ticket and now.live.number > seen.attempt
