"""Runs bulk operations in the API's processes, by the runner's decision table, over consumers like those of actions.

A runner can't run them: each item takes what only the API has, the checks and limits of a submit and the rights of
callers. The message is the lease, as for any attempt: a process that is killed lets it come again, to any other.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from opstream_api.access.principal import Owner
from opstream_journal import Connection, ExpectedVersion, JournalError, VersionConflict
from opstream_journal.jetstream.pull_consumer import DeliveredMessage, PullConsumer
from opstream_journal.outage_log import OutageLog
from opstream_journal.provisioning.bulk_actions import BULK_SPECS
from opstream_journal.provisioning.provision import ensure_runner_consumer
from opstream_journal.runtime.worker_pool import WorkerPool
from opstream_journal.stores.timers import scheduled_by
from opstream_schemas import subjects
from opstream_schemas.bulk.kinds import BulkAct
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName
from opstream_schemas.events import EventData, RecordedEvent
from opstream_schemas.operation.commands import StartAttempt, decide
from opstream_schemas.operation.dispatch_decision import (
    UNDECIDABLE_RETRY_SECONDS,
    Ack,
    AppendEvent,
    BeginAttempt,
    DispatchDecision,
    RedeliverLater,
    ScheduleWake,
    Trigger,
    decide_dispatch,
)
from opstream_schemas.operation.fold import evolve, fold, next_event
from opstream_schemas.operation.state import Operation

from .attempt import BulkAttempt, BulkTools

logger = logging.getLogger(__name__)

SLOTS: Final = 32
"""Bulk operations of one kind that one process has begun at once; `service.TURNS` of them do something at a moment."""
SLOTS_OF_CALLER: Final = 1
"""Of these, those of one caller, so that none can keep others out."""
SLOTS_OF_ANONYMOUS: Final = 4
"""The same of callers that nothing tells apart."""

_LONGEST_WAIT: Final = 60.0
"""Seconds after which one that waits for others of its caller is looked at again, at most."""

_TROUBLE_DELAY: Final = 5.0
"""Seconds after which a message comes again that could not be handled because of the broker."""
_ABSENT_INTERVAL: Final = 60.0
_APPEND_BUDGET: Final = 5.0
_NAME: Final = "opstream/api"


class BulkExecutor:
    """Runs the bulk operations of one kind in one process.

    Args:
        connection: the connection.
        act: what is done to each operation.
        tools: those of the process.
        new_id: makes tokens of attempts.
    """

    def __init__(self, connection: Connection, act: BulkAct, tools: BulkTools, new_id: Callable[[], str]) -> None:
        self._connection = connection
        self._act = act
        self._spec = BULK_SPECS[act.kind]
        self._tools = tools
        self._new_id = new_id
        self._running: set[str] = set()
        """Operations of which an attempt of this process is the live one."""
        self._begun: Counter[Owner] = Counter()
        """How many of each caller have begun here."""
        self._outage = OutageLog(logger, f"no bulk {act} is run here", f"bulk operations are run again: {act}")
        self.why_off = ""
        """Why it can't run any, and what to do; empty if it can, or that is not known yet."""

    async def run(self) -> None:
        """Run until cancelled. What the broker refuses is logged, and tried again."""
        while True:
            consumer = subjects.runner_consumer(self._act.kind)
            try:
                await ensure_runner_consumer(self._connection, self._spec)
                self.why_off = ""
                self._outage.recovered()
                pulls = PullConsumer(self._connection, subjects.OPERATIONS_STREAM, consumer, clock=self._tools.clock)
                pool = WorkerPool(self._connection, pulls, slots=SLOTS)
                await pool.run(partial(self._take, pool))
            except JournalError as error:
                self._outage.failed(error)
                self.why_off = f"bulk operations can't be run now, their operator has to act: {error}"
            await self._connection.sleep(_ABSENT_INTERVAL)

    async def _take(self, pool: WorkerPool, message: DeliveredMessage) -> bool:
        pool.spawn(message, self._handle(message))
        return False

    async def _handle(self, message: DeliveredMessage) -> None:
        try:
            await self._decide(message)
        except JournalError as error:
            logger.warning("message %s of a bulk operation is put off: %s", message.sequence, error)
            await message.nak(_TROUBLE_DELAY)
        except (FoldRefused, InvalidEvent, InvalidName) as error:
            step = "next step: 'opstream audit' shows its events; update opstream if they are newer"
            logger.error("message %s can't be decided on: %s; %s", message.sequence, error, step)  # noqa: TRY400
            await message.nak(UNDECIDABLE_RETRY_SECONDS)
        except Exception:  # logged; the other bulk operations of this process go on
            logger.exception("message %s of a bulk operation failed because of an error of ours", message.sequence)
            await message.nak(UNDECIDABLE_RETRY_SECONDS)

    async def _decide(self, message: DeliveredMessage) -> None:
        """Decide by the table (docs/architecture.md), and do it; after a version conflict again.

        Raises:
            JournalError: the broker did not answer, or refused.
            FoldRefused, InvalidEvent, InvalidName: the operation can't be folded.
        """
        operation_id, trigger = _read(message)
        seen: Operation | None = None
        while True:
            events = await self._tools.journal.events(operation_id)
            operation = fold(None, events)
            if operation is None:  # it has expired
                await message.ack_confirmed()
                return
            if operation.kind != self._act.kind:
                raise FoldRefused(f"operation {operation_id} is of {operation.kind}")
            if operation_id in self._running or (seen is not None and _runs_elsewhere(seen, operation, trigger)):
                return  # another delivery of this message runs it, so neither an ack nor a nak is sent
            limit = self._spec.policy.max_attempts
            decision = decide_dispatch(operation, trigger, now=self._tools.commands.now(), max_attempts=limit)
            try:
                await self._execute(decision, operation, events, message)
            except VersionConflict:
                seen = operation
            else:
                return

    async def _execute(
        self,
        decision: DispatchDecision,
        operation: Operation,
        events: Sequence[RecordedEvent],
        message: DeliveredMessage,
    ) -> None:
        match decision:
            case Ack() | ScheduleWake():
                # No attempt of ours waits for a retry. If the sweep has ended one, it has scheduled the wake-up, too.
                await message.ack_confirmed()
            case RedeliverLater(delay=delay):
                await message.nak(delay)
            case AppendEvent(data=data):
                await self._append(operation, data)
                await message.ack_confirmed()
            case BeginAttempt():
                owner = Owner(operation.tenant, operation.caller)
                if self._begun[owner] >= (SLOTS_OF_CALLER if operation.caller else SLOTS_OF_ANONYMOUS):
                    # Its slot is for those of other callers.
                    await message.nak(min(float(message.deliveries), _LONGEST_WAIT))
                    return
                self._begun[owner] += 1
                try:
                    await self._begin(operation, events, message)
                finally:
                    self._begun[owner] -= 1
                    self._begun += Counter()  # forgets those that have none

    async def _begin(self, operation: Operation, events: Sequence[RecordedEvent], message: DeliveredMessage) -> None:
        command = StartAttempt(
            runner=_NAME, token=self._new_id(), ticket=message.sequence, lease=self._spec.policy.lease
        )
        data = decide(operation, command)
        if data is None:
            raise RuntimeError("a decision to start an attempt made no event")
        started = await self._append(operation, data)
        attempt = BulkAttempt(self._tools, self._act, evolve(operation, started), events, message)
        self._running.add(operation.id)
        try:
            await attempt.run()
        except VersionConflict as error:
            raise RuntimeError("an attempt must handle its own version conflicts") from error
        finally:
            self._running.discard(operation.id)

    async def _append(self, operation: Operation, data: EventData) -> RecordedEvent:
        commands = self._tools.commands
        event = next_event(operation, data, id=commands.new_id(), source=commands.source, time=commands.now())
        expected = ExpectedVersion(operation.stream_sequence)
        return await self._tools.journal.append(operation.kind, event, expected, budget=_APPEND_BUDGET)


def _read(message: DeliveredMessage) -> tuple[str, Trigger]:
    """Return of which operation a message is, and what the table needs to know of it.

    Raises:
        InvalidName, InvalidEvent: it is none of a bulk operation.
    """
    if not subjects.is_wake(message.subject):
        return subjects.parse_event_subject(message.subject).operation_id, Trigger(ticket=message.sequence)
    operation_id = subjects.parse_wake_subject(message.subject).operation_id
    return operation_id, Trigger(ticket=message.sequence, scheduled_by=scheduled_by(message.data))


def _runs_elsewhere(seen: Operation, now: Operation, trigger: Trigger) -> bool:
    """Return True if an attempt with this ticket started after `seen` was read."""
    return now.live is not None and now.live.ticket == trigger.ticket and now.live.number > seen.attempt
