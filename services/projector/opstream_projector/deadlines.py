"""Deadlines: scheduled as timers on the broker, and enforced when they are due, so that no runner need be alive.

A short deadline is scheduled as soon as the projector sees the operation (`DeadlineScheduler`, an after-effect), any
other only if the operation is still open after a while (`DeadlineScanner`; docs/adr/0012). A superfluous timer does no
harm: `DeadlineEnforcer` decides by the journal, not by the timer.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from opstream_journal import Connection, DeliveredMessage, JournalError, JournalUnavailable, PullConsumer
from opstream_journal.command_handler import CommandHandler
from opstream_journal.outage_log import BoundedLog, OutageLog
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.runtime.worker_pool import WorkerPool
from opstream_journal.stores.timers import cancel_timers, schedule_deadline
from opstream_schemas import subjects
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName, OperationFinished
from opstream_schemas.operation.commands import FailOperation, deadline_outcome
from opstream_schemas.operation.failure_line import end_fields, failure_line
from opstream_schemas.operation.fold import fold
from opstream_schemas.operation.state import Operation

logger = logging.getLogger(__name__)

SCAN_DELAY: Final = 30.0
"""Seconds after which the scanner schedules the deadline of an operation that is still open."""
SHORT_DEADLINE: Final = timedelta(seconds=60)
"""A deadline closer than this to its request is scheduled at once."""

_SCHEDULED_IDS: Final = 10_000
_ENDED_IDS: Final = 50_000
_LOGGED_IDS: Final = 1_000
_MAX_IN_FLIGHT: Final = 16
_FAIL_TIMEOUT: Final = 10.0
_RETRY_SOON: Final = 2.0
_RETRY_LATER: Final = 60.0


class RecentIds:
    """A set of operation ids that keeps the newest: at least the last `size`, at most twice as many."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._new: set[str] = set()
        self._old: set[str] = set()

    def __contains__(self, operation_id: str) -> bool:
        return operation_id in self._new or operation_id in self._old

    def add(self, operation_id: str) -> None:
        """Add an id."""
        if len(self._new) >= self._size:
            self._old, self._new = self._new, set()
        self._new.add(operation_id)


class DeadlineScheduler:
    """Schedules short deadlines, and cancels the timers of operations that have ended; an `AfterEffect`.

    An operation with a long deadline that ended quickly has no timer, and costs no request to the broker.

    Args:
        connection: the connection.
        scan_delay: see `SCAN_DELAY`.
    """

    def __init__(self, connection: Connection, *, scan_delay: float = SCAN_DELAY) -> None:
        self._connection = connection
        # Two processes recorded start and end of an operation, by their clocks; the scan runs by a third clock. Half of
        # the delay leaves a margin for differences of these clocks. A wrong guess costs a useless purge.
        self._unscheduled_below = timedelta(seconds=scan_delay / 2)
        self._scheduled = RecentIds(_SCHEDULED_IDS)
        self.ended = RecentIds(_ENDED_IDS)
        """Operations that this process has seen ended; the scanner can skip them."""

    async def apply(self, operation: Operation) -> None:
        """See `AfterEffect`.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        if operation.is_terminal:
            self.ended.add(operation.id)
            if self._may_be_scheduled(operation):
                await cancel_timers(self._connection, operation.id)
        elif _has_short_deadline(operation) and operation.id not in self._scheduled:
            await schedule_deadline(self._connection, operation.kind, operation.id, operation.deadline)
            crash_point(CrashPoint.PROJECTOR_DEADLINE_ARMED)
            self._scheduled.add(operation.id)

    def _may_be_scheduled(self, operation: Operation) -> bool:
        finished_at = operation.finished_at
        is_slow = finished_at is not None and finished_at - operation.created_at >= self._unscheduled_below
        # A wait that ended before its time leaves a timer, which may fire in a year: nobody would remove it.
        has_waited = operation.uncounted > 0
        return is_slow or has_waited or operation.start_at is not None or _has_short_deadline(operation)


class DeadlineEnforcer:
    """Receives the deadlines that are due, and fails operations that are still open.

    Args:
        connection: the connection.
        handler: appends the outcome; its clocks are used.
        consumer: the durable consumer that all replicas share.
    """

    def __init__(
        self, connection: Connection, handler: CommandHandler, *, consumer: str = subjects.PROJECTOR_DUE_CONSUMER
    ) -> None:
        self._connection = connection
        self._handler = handler
        pull_consumer = PullConsumer(connection, subjects.OPERATIONS_STREAM, consumer, clock=handler.monotonic)
        self._pool = WorkerPool(connection, pull_consumer, slots=_MAX_IN_FLIGHT)
        self._logged = RecentIds(_LOGGED_IDS)
        self._foreign = BoundedLog(logger, "messages among the deadlines that are none", clock=handler.monotonic)
        self._outage = OutageLog(
            logger,
            "overdue operations can't be failed now",
            "overdue operations can be failed again",
            clock=handler.monotonic,
        )

    @property
    def is_ready(self) -> bool:
        """Return True if deadlines are enforced now."""
        return self._pool.is_ready

    async def run(self) -> None:
        """Enforce deadlines until cancelled. Messages that can't be finished then are released.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        await self._pool.run(self._handle)

    async def _handle(self, message: DeliveredMessage) -> bool:
        self._pool.spawn(message, self._enforce(message))
        return False

    async def _enforce(self, message: DeliveredMessage) -> None:
        try:
            _, operation_id = subjects.parse_due_subject(message.subject)
        except InvalidName as error:
            self._foreign.log(logging.ERROR, "sequence %s is not a deadline: %s", message.sequence, error)
            await message.ack()
            return
        try:
            await self._fail(operation_id, message.stored_at)
        except OperationFinished:
            await message.ack()
        except (FoldRefused, InvalidEvent) as error:
            if operation_id not in self._logged:
                self._logged.add(operation_id)
                logger.error("operation %s is overdue and can't be failed: %s", operation_id, error)  # noqa: TRY400
            await message.nak(_RETRY_LATER)
        except JournalError as error:
            self._outage.failed(f"{operation_id}: {error}")
            await message.nak(_RETRY_SOON if isinstance(error, JournalUnavailable) else _RETRY_LATER)
        else:
            self._outage.recovered()
            await message.ack()

    async def _fail(self, operation_id: str, fired_at: datetime) -> None:
        """Fail an operation whose deadline has passed. Schedule the deadline again if the timer fired too early.

        Raises:
            OperationFinished: the operation has ended.
            FoldRefused, InvalidEvent: the operation's events can't be folded.
            JournalError: the broker did not answer, or refused.
        """
        operation = fold(None, await self._handler.journal.events(operation_id))
        if operation is None or operation.is_terminal:
            return
        # The timer fired by the broker's clock. If only our clock counted, a slow one would schedule again and again.
        if max(fired_at, self._handler.now()) < operation.deadline:
            await schedule_deadline(self._connection, operation.kind, operation_id, operation.deadline)
            return
        error = deadline_outcome(operation).error
        await self._handler.handle(
            operation_id, FailOperation(error=error), budget=_FAIL_TIMEOUT, on_appended=_log_failure
        )


def _log_failure(operation: Operation) -> None:
    if operation.error is not None:
        line = failure_line(operation, operation.error, is_ours=True)
        logger.warning("%s", line, extra=end_fields(operation, operation.error))


def _has_short_deadline(operation: Operation) -> bool:
    return operation.deadline - operation.created_at < SHORT_DEADLINE
