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
    Delivered,
    Expected,
    JournalFull,
    JournalUnavailable,
    Link,
    Puller,
    VersionConflict,
)
from opstream_journal.runtime.crash_points import CrashPoint, point
from opstream_journal.stores.timers import arm_wake
from opstream_runner.attempt.attempt import Attempt
from opstream_runner.attempt.completion import RETRY_WAKE
from opstream_runner.authoring.action import Action
from opstream_runner.dependencies import Tools
from opstream_schemas import subjects
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName
from opstream_schemas.events import EventData, RecordedEvent
from opstream_schemas.operation.commands import StartAttempt, decide
from opstream_schemas.operation.dispatch_decision import Ack, Append, ArmWake, Delivery, Hold, Start, decide_delivery
from opstream_schemas.operation.fold import Operation, evolve, next_event

from .admission import Gate, Later, Refuse, Wait
from .operation_loader import Loaded, Loader, delivery_of

logger = logging.getLogger(__name__)

_BROKER_TROUBLE_DELAY: Final = 1.0
_NEWER_DELAY: Final = 1.0
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

    def __init__(self, link: Link, tools: Tools, action: Action[Any, Any], *, runner: str, slots: int) -> None:
        self._link = link
        self._tools = tools
        self._action = action
        self._runner = runner
        self._slots = slots
        self._loader = Loader(tools.journal, action.kind)
        self._gate = Gate(link, tools, action.spec)
        self._is_leaving = False
        self._is_stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts: dict[str, Attempt] = {}
        self._puller = Puller(
            link, subjects.OPERATIONS_STREAM, subjects.runner_consumer(action.kind), clock=tools.monotonic
        )

    async def run(self) -> None:
        """Pull and dispatch until cancelled.

        Raises:
            ConsumerGone: the action's consumer was deleted.
        """
        await self._gate.start()
        await self._puller.start()
        self._puller.want(self._slots)
        while True:
            message = await self._puller.next()
            task = asyncio.create_task(self._handle(message), name=message.subject)
            self._tasks.add(task)
            task.add_done_callback(self._free_slot)

    def hint(self, operation_id: str) -> None:
        """Somebody says that something happened to an operation; if it runs here, look now."""
        attempt = self._attempts.get(operation_id)
        if attempt is not None:
            attempt.hint()

    def leave(self) -> None:
        """The process will end before long: begin nothing any more. What runs goes on."""
        self._is_leaving = True
        for attempt in self._attempts.values():
            attempt.leave()

    async def close(self) -> None:
        """Pull no more, and give back what was delivered but not begun. Once `run` has ended, after `leave`."""
        await self._puller.stop()

    async def idle(self) -> None:
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

    def _free_slot(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._is_leaving:
            self._puller.want(1)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Not acknowledged: the message comes again when its lease has run out.
            logger.error("%s could not be handled", task.get_name(), exc_info=error)

    async def _handle(self, message: Delivered) -> None:
        try:
            await self._decide(message)
        except (JournalUnavailable, JournalFull) as error:
            logger.warning("%s (message %s) is put back: %s", message.subject, message.sequence, error)
            await message.nak(_BROKER_TROUBLE_DELAY)

    async def _decide(self, message: Delivered) -> None:
        loaded: Loaded | None
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
            loaded, delivery = None, Delivery(ticket=message.sequence)
        while True:
            operation = loaded.operation if loaded else None
            decision = decide_delivery(
                operation, delivery, now=self._tools.now(), max_attempts=self._action.spec.policy.max_attempts
            )
            if loaded is None or isinstance(decision, Hold):
                await message.nak(decision.delay if isinstance(decision, Hold) else _BROKER_TROUBLE_DELAY)
                return
            if isinstance(decision, Start) and self._is_leaving:
                await message.nak()
                return
            if isinstance(decision, Start) and self._is_newer(loaded.operation):
                await message.nak(_NEWER_DELAY)
                return
            try:
                await self._carry_out(decision, loaded, message)
            except VersionConflict as conflict:
                seen = loaded.operation
                loaded = await self._loader.reload(loaded)
                if loaded is not None and loaded.operation.position == seen.position:
                    raise JournalUnavailable(f"{conflict}, yet nothing is newer", maybe_stored=False) from conflict
                if loaded is not None and _is_taken(seen, loaded.operation, delivery):
                    logger.info("operation %s: another delivery of message %s runs it", seen.id, message.sequence)
                    return
            else:
                return

    def _is_newer(self, operation: Operation) -> bool:
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

    async def _carry_out(self, decision: Ack | Append | Start | ArmWake, loaded: Loaded, message: Delivered) -> None:
        operation = loaded.operation
        match decision:
            case Ack():
                if operation.is_terminal:
                    # Whoever recorded its end may have died before it passed on what it held.
                    await self._gate.leave(operation)
                await message.ack_confirmed()
            case Append(data=data):
                await self._append(operation, data)
                logger.info("operation %s: recorded %s", operation.id, data.name)
                await self._gate.leave(operation)
                await message.ack_confirmed()
            case ArmWake(at=at, armed_by=sequence):
                await arm_wake(self._link, operation.kind, operation.id, RETRY_WAKE, at=at, armed_by=sequence)
                await message.ack_confirmed()
            case Start(row=row):
                match await self._gate.admit(operation, loaded.requested, message):
                    case Wait():
                        await message.ack_confirmed()
                    case Later(delay=delay):
                        await message.nak(delay)
                    case Refuse(data=data):
                        await self._carry_out(Append(row, data), loaded, message)
                    case _:
                        await self._start(loaded, message)

    async def _start(self, loaded: Loaded, message: Delivered) -> None:
        command = StartAttempt(
            runner=self._runner,
            token=self._tools.new_id(),
            ticket=message.sequence,
            lease=self._action.spec.policy.lease,
        )
        data = decide(loaded.operation, command)
        if data is None:
            raise RuntimeError("a started attempt is always an event")
        operation = evolve(loaded.operation, await self._append(loaded.operation, data))
        if operation.attempt > 1:
            logger.info("operation %s: attempt %s begins", operation.id, operation.attempt)
        point(CrashPoint.RUNNER_STARTED)
        attempt = Attempt(self._link, self._tools, self._action, operation, loaded.action_input, message)
        self._attempts[operation.id] = attempt
        if self._is_leaving:
            attempt.leave()
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
            await self._gate.leave_or_log(operation)

    async def _append(self, operation: Operation, data: EventData) -> RecordedEvent:
        tools = self._tools
        event = next_event(operation, data, id=tools.new_id(), source=tools.source, time=tools.now())
        expected = Expected(operation.stream_sequence)
        return await tools.journal.append(operation.kind, event, expected, budget=UNTIL_STORED)


def _is_taken(seen: Operation, now: Operation, delivery: Delivery) -> bool:
    """Whether an attempt under this very ticket began after we had looked: a later, or an older, delivery of the same
    message is with somebody who works. Its lease did not run out, so this is not row 7."""
    return now.live is not None and now.live.ticket == delivery.ticket and now.live.number > seen.attempt
