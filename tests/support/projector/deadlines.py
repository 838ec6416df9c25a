"""Deadlines in tests: operations with a deadline, the projector's loops for them, and the timers on the broker.

`python -m tests.support.projector.deadlines URL CONSUMER` is a process that only scans for deadlines, until the crash
point of `OPSTREAM_CRASH_AT` ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import nats.errors
from nats.js.api import AckPolicy, ConsumerConfig

from opstream_journal import NEW_OPERATION, Connection, Journal, JournalUnavailable
from opstream_journal.command_handler import CommandHandler
from opstream_journal.runtime.crash_points import CRASH_VARIABLE, arm
from opstream_projector.deadline_scanner import DeadlineScanner
from opstream_projector.deadlines import DeadlineEnforcer, DeadlineScheduler, RecentIds
from opstream_schemas import subjects
from opstream_schemas.events import Canceled, Failed, RecordedEvent, Succeeded
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.state import Operation
from tests.support.journal.journals import KIND, first, folded, linked, opened
from tests.support.projector.projection import utc_now
from tests.support.schemas.histories import request

SCAN_DELAY: Final = 0.2
"""Seconds: the scan delay in tests."""
LONG: Final = 3_600.0
"""Seconds: the deadline of an operation that must not be overdue."""

_numbers = itertools.count(1)


async def begin(journal: Journal, operation_id: str, seconds: float = LONG) -> Operation:
    """Store the request of an operation whose deadline is so many seconds away."""
    data = request(deadline=utc_now() + timedelta(seconds=seconds))
    return folded(None, await journal.append(KIND, first(operation_id, data=data), NEW_OPERATION, budget=10))


def command_handler(journal: Journal, *, now: Callable[[], datetime] = utc_now) -> CommandHandler:
    """The projector's command handler."""
    return CommandHandler(
        journal=journal,
        source="opstream/projector",
        now=now,
        monotonic=time.monotonic,
        new_id=lambda: f"carried-{os.getpid()}-{next(_numbers)}",
    )


def scheduler(link: Connection) -> DeadlineScheduler:
    """The projector's after-effect for deadlines."""
    return DeadlineScheduler(link, scan_delay=SCAN_DELAY)


def scanner(
    link: Connection,
    journal: Journal,
    *,
    ended: RecentIds | None = None,
    now: Callable[[], datetime] = utc_now,
    scan_delay: float = SCAN_DELAY,
    consumer: str = subjects.PROJECTOR_DEADLINES_CONSUMER,
) -> DeadlineScanner:
    """The loop that schedules the deadlines of open operations. By default it knows of no operation that has ended."""
    known = RecentIds(1) if ended is None else ended
    return DeadlineScanner(
        link, journal, known, now=now, monotonic=time.monotonic, scan_delay=scan_delay, consumer=consumer
    )


def enforcer(link: Connection, journal: Journal, *, now: Callable[[], datetime] = utc_now) -> DeadlineEnforcer:
    """The loop that fails overdue operations."""
    return DeadlineEnforcer(link, command_handler(journal, now=now))


async def requests_consumer(link: Connection, name: str, *, ack_wait: float = 1.0) -> str:
    """A durable consumer like `projector_deadlines` that redelivers soon."""
    config = ConsumerConfig(
        durable_name=name,
        filter_subject=subjects.event_type_subject("requested"),
        headers_only=True,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ack_wait,
    )
    await link.nc.jetstream().add_consumer(subjects.OPERATIONS_STREAM, config)
    return name


async def scheduled(link: Connection) -> dict[str, int]:
    """The timers that are scheduled now: subjects, and how many messages each has."""
    info = await link.nc.jetstream().stream_info(subjects.TIMERS_STREAM, subjects_filter=">")
    return info.state.subjects or {}


async def ever_scheduled(link: Connection) -> int:
    """How many messages the stream of timers has ever held: scheduled ones and fired ones."""
    return (await link.nc.jetstream().stream_info(subjects.TIMERS_STREAM)).state.last_seq


async def is_scheduled(link: Connection, *operation_ids: str) -> bool:
    """Return True if exactly these operations have a scheduled deadline; False if the broker does not answer."""
    try:
        return await scheduled(link) == {subjects.deadline_subject(KIND, one): 1 for one in operation_ids}
    except (nats.errors.Error, TimeoutError):
        return False


async def scheduled_for(link: Connection, operation_id: str) -> datetime:
    """The time for which the operation's deadline is scheduled."""
    subject = subjects.deadline_subject(KIND, operation_id)
    timer = await link.nc.jetstream().get_last_msg(subjects.TIMERS_STREAM, subject)
    return datetime.fromisoformat((timer.headers or {})["Nats-Schedule"].removeprefix("@at "))


async def is_acked(link: Connection, consumer: str) -> bool:
    """Return True if a consumer of the journal has delivered everything, and all is acknowledged."""
    info = await link.nc.jetstream().consumer_info(subjects.OPERATIONS_STREAM, consumer)
    return (info.num_pending, info.num_ack_pending) == (0, 0)


async def finished(journal: Journal, operation_id: str) -> Operation | None:
    """The operation if it has ended; None if not, or if the broker does not answer."""
    try:
        operation = fold_for_reader(None, await journal.events(operation_id))
    except JournalUnavailable:
        return None
    return operation if operation is not None and operation.is_terminal else None


async def ends(journal: Journal, operation_id: str) -> list[RecordedEvent]:
    """The operation's terminal events."""
    events = await journal.events(operation_id)
    return [event for event in events if isinstance(event.data, Succeeded | Failed | Canceled)]


async def _scan_only(url: str, consumer: str) -> None:
    arm(os.environ[CRASH_VARIABLE])
    async with linked(url) as link:
        await scanner(link, await opened(link), consumer=consumer).run()


if __name__ == "__main__":
    asyncio.run(_scan_only(*sys.argv[1:]))
