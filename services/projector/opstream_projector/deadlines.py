"""Deadlines: armed as timers of the broker, and carried out when they are due, so that no runner need be alive.

Caller: `main.py`. An operation that has little time is armed as soon as it is seen (`DeadlineScheduler`, an
after-effect),
all others only once they have been open for a while (`trail.py`; docs/adr/0012). What is armed too much does no harm:
`DeadlineEnforcer` believes the journal and not the timer.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from opstream_journal import Connection, DeliveredMessage, JournalError, JournalUnavailable, PullConsumer
from opstream_journal.command_handler import CommandHandler
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.runtime.service import run_until_first_ends
from opstream_journal.stores.timers import cancel_timers, schedule_deadline
from opstream_schemas import subjects
from opstream_schemas.errors import FoldRefused, InvalidEvent, InvalidName, OperationFinished
from opstream_schemas.operation.commands import ForceFail, deadline_outcome
from opstream_schemas.operation.fold import fold
from opstream_schemas.operation.state import Operation

logger = logging.getLogger(__name__)

SCAN_DELAY: Final = 30.0
"""Seconds after which an operation that is still open is armed."""
SHORT_DEADLINE: Final = timedelta(seconds=60)
"""An operation that has less time than this from its request is armed at once."""

_SCHEDULED_IDS: Final = 10_000
_ENDED_IDS: Final = 50_000
_LOGGED_IDS: Final = 1_000
_MAX_IN_FLIGHT: Final = 16
_FAIL_TIMEOUT: Final = 10.0
_RETRY_SOON: Final = 2.0
_RETRY_LATER: Final = 60.0


class RecentIds:
    """A set of operation ids that forgets the oldest: it holds the last `size` at least, and twice as many at most."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: set[str] = set()
        self._old: set[str] = set()

    def __contains__(self, operation_id: str) -> bool:
        return operation_id in self._young or operation_id in self._old

    def add(self, operation_id: str) -> None:
        """Remember an id."""
        if len(self._young) >= self._size:
            self._old, self._young = self._young, set()
        self._young.add(operation_id)


class DeadlineScheduler:
    """Arms the deadlines that are near, and disarms those of operations that have ended.

    An operation that had time enough and ended quickly was armed by nobody, and costs no call to the broker.

    Args:
        link: the connection.
        trail: see `SCAN_DELAY`.
    """

    def __init__(self, link: Connection, *, trail: float = SCAN_DELAY) -> None:
        self._link = link
        # Creation and end are of two clocks, and the trail goes by a third one; a timer too few costs a useless purge.
        self._unscheduled_below = timedelta(seconds=trail / 2)
        self._scheduled = RecentIds(_SCHEDULED_IDS)
        self.ended = RecentIds(_ENDED_IDS)
        """Operations that this process has seen ended; the trail need not look at them."""

    async def apply(self, operation: Operation) -> None:
        """See `AfterEffect`.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        if operation.is_terminal:
            self.ended.add(operation.id)
            if self._may_be_scheduled(operation):
                await cancel_timers(self._link, operation.id)
        elif _has_short_deadline(operation) and operation.id not in self._scheduled:
            await schedule_deadline(self._link, operation.kind, operation.id, operation.deadline)
            crash_point(CrashPoint.PROJECTOR_DEADLINE_ARMED)
            self._scheduled.add(operation.id)

    def _may_be_scheduled(self, operation: Operation) -> bool:
        finished_at = operation.finished_at
        is_slow = finished_at is not None and finished_at - operation.created_at >= self._unscheduled_below
        return is_slow or _has_short_deadline(operation)


class DeadlineEnforcer:
    """Takes the deadlines that are due, and fails the operations that they find open.

    Args:
        link: the connection.
        carrier: carries it out; its clocks count.
        consumer: the durable that all replicas share.
    """

    def __init__(
        self, link: Connection, carrier: CommandHandler, *, consumer: str = subjects.PROJECTOR_DUE_CONSUMER
    ) -> None:
        self._link = link
        self._carrier = carrier
        self._puller = PullConsumer(link, subjects.OPERATIONS_STREAM, consumer, clock=carrier.monotonic)
        self._held: set[DeliveredMessage] = set()
        self._logged = RecentIds(_LOGGED_IDS)
        self._is_running = False

    @property
    def is_ready(self) -> bool:
        """Whether deadlines are carried out now."""
        return self._is_running and self._link.is_connected

    async def run(self) -> None:
        """Work until cancelled; what is in hand is given back then.

        Raises:
            ConsumerGone: the consumer was deleted.
        """
        await self._puller.start()
        self._puller.add_demand(_MAX_IN_FLIGHT)
        self._is_running = True
        try:
            await run_until_first_ends(*(self._work() for _ in range(_MAX_IN_FLIGHT)))
        finally:
            self._is_running = False
            await self._puller.stop()
            if self._link.is_connected:  # otherwise the broker finds out by itself
                for message in self._held:
                    await message.nak()

    async def _work(self) -> None:
        while True:
            message = await self._puller.next()
            self._held.add(message)
            await self._handle(message)
            self._held.discard(message)
            self._puller.add_demand(1)

    async def _handle(self, message: DeliveredMessage) -> None:
        try:
            _, operation_id = subjects.parse_due_subject(message.subject)
        except InvalidName as error:
            logger.error("sequence %s is no deadline: %s", message.sequence, error)  # noqa: TRY400 - no bug here
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
            logger.warning("operation %s is overdue and can't be failed now: %s", operation_id, error)
            await message.nak(_RETRY_SOON if isinstance(error, JournalUnavailable) else _RETRY_LATER)
        else:
            await message.ack()

    async def _fail(self, operation_id: str, fired_at: datetime) -> None:
        """Fail an operation whose deadline has passed; arm it again if that is still to come.

        Raises:
            OperationFinished: it has ended.
            FoldRefused, InvalidEvent: it holds something that can't be decided upon.
            JournalError: not now.
        """
        operation = fold(None, await self._carrier.journal.events(operation_id))
        if operation is None or operation.is_terminal:
            return
        # The timer went off by the broker's clock. Were only ours to count, one that is slow would arm again and again.
        if max(fired_at, self._carrier.now()) < operation.deadline:
            await schedule_deadline(self._link, operation.kind, operation_id, operation.deadline)
            return
        logger.info("operation %s did not finish by its deadline", operation_id)
        await self._carrier.handle(
            operation_id, ForceFail(error=deadline_outcome(operation).error), budget=_FAIL_TIMEOUT
        )


def _has_short_deadline(operation: Operation) -> bool:
    return operation.deadline - operation.created_at < SHORT_DEADLINE
