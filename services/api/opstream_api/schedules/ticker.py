"""Submits what is due of all schedules. Each API process has one, and none knows of the others.

They need no leader: the id of an operation follows from its schedule and moment, so the journal takes it once. The
record of a moment is appended with an expected version, so it is written once. A process that dies between submit and
record leaves a moment that the others, or the next one, submit again: it is the same operation.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import msgspec

from opstream_api.errors import ApiError
from opstream_journal import Connection, JournalError, JournalUnavailable, VersionConflict
from opstream_journal.outage_log import OutageLog
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.schedules.schedule_stream import ScheduleStream
from opstream_schemas.operation.state import Operation, Status
from opstream_schemas.schedules.schedule import CATCH_UP, find_due, occurrence_id
from opstream_schemas.schedules.schedule_event import (
    OccurrenceRecord,
    Outcome,
    ScheduleAct,
    ScheduleState,
)
from opstream_schemas.text import truncate_text

from .schedule_book import ScheduleBook
from .submits import ScheduleSubmits

logger = logging.getLogger(__name__)

INTERVAL: Final = 5.0
"""Seconds between two looks at the stream: so long another process's change may be unknown here."""
_ABSENT_INTERVAL: Final = 60.0
"""The same while nothing is known and the stream can't be read: most likely there is none."""
_FORGOTTEN: Final = 500
"""Deleted schedules whose next moments may stay in memory."""
_SHORTEST_PAUSE: Final = 0.2
_DETAIL_LIMIT: Final = 500
_REVOKED: Final = "CallerRevoked: the key with which it was set may not submit its action any more; set it again"


class ScheduleTicker:
    """One process's.

    Args:
        connection: the connection.
        stream: started.
        book: the schedules.
        submits: submits operations.
        read: returns the state of an operation by its stored id, or raises `ApiError`.
        now: returns the time with a time zone.
    """

    def __init__(
        self,
        connection: Connection,
        stream: ScheduleStream,
        book: ScheduleBook,
        submits: ScheduleSubmits,
        *,
        read: Callable[[str], Awaitable[Operation]],
        now: Callable[[], datetime],
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._book = book
        self._submits = submits
        self._read = read
        self._now = now
        self._outage = OutageLog(logger, "schedules can't be followed", "schedules are followed again")
        self._next: dict[str, tuple[tuple[int, int], datetime | None]] = {}
        """By key: the sequences of a state, and the first moment that is left to do."""

    async def run(self) -> None:
        """Submit what is due until cancelled. What can't be submitted now is tried again."""
        while True:
            try:
                await self._book.refresh()
                await self.tick(self._now())
            except (JournalError, ApiError) as error:
                # Without the stream there is nothing to follow: an installation that was not provisioned for schedules.
                self._outage.failed(error) if len(self._book) else logger.debug("no schedules: %s", error)
                await self._connection.sleep(INTERVAL if len(self._book) else _ABSENT_INTERVAL)
            else:
                self._outage.recovered()
                await self._connection.sleep(self._pause())

    async def tick(self, now: datetime) -> None:
        """Submit what is due.

        Args:
            now: with time zone.

        Raises:
            JournalError: the broker did not answer, or refused.
            ApiError: an operation can't be submitted now.
        """
        if len(self._next) > 2 * len(self._book) + _FORGOTTEN:
            self._next.clear()  # most are of deleted schedules
        refused: ApiError | JournalError | None = None
        for state in self._book:
            moment = self._next_moment(state, now)
            if moment is None or moment > now:
                continue
            try:
                await self._tick(state, now)
            except VersionConflict:
                # Another process was first. What it has done comes with the next look, or has come before this state.
                if (current := await self._stream.state(state.key)) is not None:
                    self._book.put(current)
            except JournalUnavailable:
                raise  # the next one would wait as long
            except (ApiError, JournalError) as error:
                refused = error  # the others go on
        if refused is not None:
            raise refused

    def _pause(self) -> float:
        """Return the seconds until something is due, or until the next look."""
        now = self._now()
        moments = [moment for state in self._book if (moment := self._next_moment(state, now)) is not None]
        seconds = min(((moment - now).total_seconds() for moment in moments), default=INTERVAL)
        return max(_SHORTEST_PAUSE, min(seconds, INTERVAL))

    def _next_moment(self, state: ScheduleState, now: datetime) -> datetime | None:
        """Return the first moment of a schedule that is left to do; None without one, and while it is paused."""
        if not state.changed.is_active:
            return None
        version = (state.changed_sequence, state.last_sequence)
        known = self._next.get(state.key)
        if known is None or known[0] != version:
            moments = state.changed.definition.moments(state.done_until(now))
            known = self._next[state.key] = (version, next(moments, None))
        return known[1]

    async def _tick(self, state: ScheduleState, now: datetime) -> None:
        changed = state.changed
        due = find_due(changed.definition, state.done_until(now), now)
        if not due.moments and not due.has_missed:
            return
        if not self._submits.may_submit(changed):
            await self._pause_schedule(state, _REVOKED)
            return
        if due.has_missed:
            until = now - CATCH_UP
            state = await self._record(
                state, due_at=until, outcome=Outcome.MISSED, done_until=until, detail="due for more than an hour"
            )
        for moment in due.moments:
            if changed.definition.pause_on_failure and (failed := await self._failed(state)):
                await self._pause_schedule(
                    state, f"OperationFailed: operation {failed} has failed; set it again to go on"
                )
                return
            operation_id = occurrence_id(changed.name, moment)
            submitted = await self._submits.submit(changed, operation_id)
            crash_point(CrashPoint.SCHEDULE_SUBMITTED)
            state = await self._record(
                state,
                due_at=moment,
                outcome=Outcome.SUBMITTED if submitted.accepted is not None else Outcome.REFUSED,
                operation_id=operation_id if submitted.accepted is not None else "",
                done_until=moment,
                detail=truncate_text(submitted.detail, _DETAIL_LIMIT),
            )

    async def _failed(self, state: ScheduleState) -> str:
        """Return the id of the last operation if it has failed; empty otherwise."""
        last = state.last
        if last is None or not last.operation_id or last.recorded_at <= state.changed.at:
            return ""
        try:
            operation = await self._read(self._submits.stored_id(state.changed.tenant, last.operation_id))
        except ApiError:
            return ""  # it has expired, or can't be read now
        return last.operation_id if operation.status is Status.FAILED else ""

    async def _record(
        self, state: ScheduleState, *, due_at: datetime, done_until: datetime, **more: str
    ) -> ScheduleState:
        record = OccurrenceRecord(due_at=due_at, done_until=done_until, recorded_at=self._now(), **more)
        sequence = await self._stream.record(state.key, record, state.last_sequence)
        state = msgspec.structs.replace(state, last=record, last_sequence=sequence)
        self._book.put(state)
        if record.outcome != Outcome.SUBMITTED:
            logger.warning("schedule %s, due %s: %s %s", state.changed.name, due_at, record.outcome, record.detail)
        return state

    async def _pause_schedule(self, state: ScheduleState, why: str) -> None:
        changed = msgspec.structs.replace(state.changed, act=ScheduleAct.PAUSED, at=self._now(), detail=why)
        sequence = await self._stream.change(state.key, changed, state.changed_sequence)
        self._book.put(msgspec.structs.replace(state, changed=changed, changed_sequence=sequence))
        logger.warning("schedule %s is paused: %s", changed.name, why)
