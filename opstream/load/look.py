"""Looks at the load of all actions, again and again, and follows the journal meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from opstream_journal import Connection, JournalError
from opstream_journal.actions.action_overview import ActionOverview, QueueLength, WaitingOperations
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import end_task
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds
from opstream_journal.queues.consumer_backlogs import ConsumerBacklog, read_backlogs
from opstream_journal.stores.action_catalog import overview
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import Failed, decode_event
from opstream_schemas.names import Kind
from opstream_schemas.operation.priority import QUEUED_PRIORITIES

from .recent import WINDOW, FailurePlace, RecentEvents, RecentNumbers

logger = logging.getLogger(__name__)

_PAUSE: Final = 1.0
_HEARTBEAT: Final = 0.5
_PATIENCE: Final = 1.0
"""Seconds for the first look to read the last minute."""
_NOTHING: Final = RecentNumbers()
_NO_BACKLOG: Final = ConsumerBacklog()


class LastFailure(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The last operation of an action that failed."""

    operation_id: str
    """Its stored id."""
    code: int | str
    message: str
    at: datetime


class ActionLoad(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One action at one moment. The numbers of ends and begins are those of the last minute."""

    action: str
    version: int
    runners: int
    slots: int
    """Attempts that all its runners run at once at most."""
    running: int
    """Operations that are with runners."""
    waiting: tuple[WaitingOperations, ...]
    """What waits, the oldest first."""
    requested: int
    succeeded: int
    failed: int
    canceled: int
    retried: int
    queues: tuple[QueueLength, ...] | msgspec.UnsetType = msgspec.UNSET
    """Of an action with priorities: how much waits in each queue."""
    paused: bool = False
    """True if an operator has paused it: nothing of it begins."""
    last_failure: LastFailure | None = None
    """None if none has failed while it was watched, or within the minute before."""

    @property
    def ended(self) -> int:
        """Return how many operations ended in the last minute, however."""
        return self.succeeded + self.failed + self.canceled

    @property
    def waits(self) -> int:
        """Return how many operations wait."""
        return sum(one.number for one in self.waiting)

    @property
    def oldest(self) -> float:
        """Return the seconds for which the first of them has waited; 0 without one."""
        return max((one.oldest for one in self.waiting), default=0.0)


class LoadWatch:
    """Looks at the load on one connection.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._recent = RecentEvents()
        self._caught_up = asyncio.Event()
        self._failures: dict[str, tuple[FailurePlace, LastFailure]] = {}

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the journal, from a minute ago on."""
        task = asyncio.create_task(self._follow(), name="recent events")
        try:
            yield
        finally:
            await end_task(task)

    async def look(self) -> list[ActionLoad]:
        """Return the load of all actions, in order.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        found = await overview(self._connection)
        backlogs = await read_backlogs(self._connection, subjects.OPERATIONS_STREAM)
        await self._catch_up()
        recent = self._recent.numbers(datetime.now(UTC).timestamp())
        await self._read_failures()
        return [self._load(one, backlogs, recent.get(one.action, _NOTHING)) for one in found]

    async def _catch_up(self) -> None:
        """Wait until the last minute has been read, but not for long: perhaps nothing happened in it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._caught_up.wait()
        self._caught_up.set()

    def _load(self, one: ActionOverview, backlogs: dict[str, ConsumerBacklog], recent: RecentNumbers) -> ActionLoad:
        running = sum(backlogs.get(name, _NO_BACKLOG).num_ack_pending for name in _consumers(one.action))
        failure = self._failures.get(one.action)
        return ActionLoad(
            action=one.action,
            version=one.version,
            runners=len(one.runners),
            slots=sum(runner.slots for runner in one.runners),
            running=running,
            waiting=one.waiting,
            queues=one.queues,
            requested=recent.requested,
            succeeded=recent.succeeded,
            failed=recent.failed,
            canceled=recent.canceled,
            retried=recent.retried,
            paused=one.paused is not None,
            last_failure=None if failure is None else failure[1],
        )

    async def _follow(self) -> None:
        while True:
            try:
                await self._scan()
            except JournalError as error:
                logger.debug("the journal is not followed: %s", error)
            await self._connection.sleep(_PAUSE)
            self._recent = RecentEvents()  # what was missed meanwhile is read again, from a minute ago on

    async def _scan(self) -> None:
        recent, stream = self._recent, subjects.OPERATIONS_STREAM
        last = (await stream_bounds(self._connection, stream)).last
        scan = scan_stream(
            self._connection,
            stream,
            since=datetime.now(UTC) - timedelta(seconds=WINDOW),
            is_following=True,
            patience=0.0,
            heartbeat=_HEARTBEAT,
            is_headers_only=True,
        )
        async with contextlib.aclosing(scan) as batches:
            async for batch in batches:
                for message in batch:
                    recent.add(message.subject, message.sequence, message.nanoseconds / 1e9)
                if batch[-1].sequence >= last:
                    self._caught_up.set()

    async def _read_failures(self) -> None:
        """Read the event of each failure that is new: one for each action, however many failed."""
        for action, place in self._recent.failures.items():
            known = self._failures.get(action)
            if known is not None and known[0] == place:
                continue
            message = await rpc.get_at(self._connection, subjects.OPERATIONS_STREAM, place.sequence)
            if message is None:
                continue
            try:
                event = decode_event(message.data, place.sequence)
            except InvalidEvent as error:
                logger.debug("sequence %s: %s", place.sequence, error)
                continue
            if isinstance(event.data, Failed):
                reason = event.data.error
                failure = LastFailure(
                    operation_id=event.operation_id, code=reason.code, message=reason.message, at=event.time
                )
                self._failures[action] = (place, failure)


def _consumers(action: str) -> tuple[str, ...]:
    """Return the consumers of an action; of what the catalog has not, none."""
    resource, colon, name = action.partition(":")
    queues = ("", *QUEUED_PRIORITIES) if colon else ()
    return tuple(subjects.runner_consumer(Kind(resource, name), one) for one in queues)
