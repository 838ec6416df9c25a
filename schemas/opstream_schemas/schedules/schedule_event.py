"""The events of schedules in the stream SCHEDULES, and the state that follows from them. Pure.

Each schedule has two subjects. On one is what callers and opstream decided about it; each such event has the whole
definition, so the last one is enough to go on. On the other is what became of its moments; the last one says up to
where all is done.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from opstream_schemas.errors import InvalidEvent

from .schedule import Schedule, check_schedule, check_schedule_name

DETAIL_LIMIT: Final = 500
"""Bytes of a detail."""
CLOCK_MARGIN: Final = timedelta(minutes=5)
"""By which the clocks of two processes may differ."""

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class ScheduleAct(StrEnum):
    """What was decided about a schedule."""

    SET = "set"
    """A caller made it, or changed it."""
    DELETED = "deleted"
    PAUSED = "paused"
    """By opstream: an operation has failed, or its caller may not submit the action any more."""


class ScheduleChanged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A decision about a schedule."""

    act: str
    """One of `ScheduleAct`."""
    at: _Instant
    """What is due later counts, if the schedule is not paused."""
    name: str
    tenant: str = ""
    caller: str = ""
    """In whose name its operations begin: who set it last."""
    key_id: str = ""
    """Of the API key with which it was set; empty without authentication."""
    created_at: _Instant
    definition: Schedule
    detail: str = ""
    """Why opstream paused it."""

    @property
    def is_active(self) -> bool:
        """Return True if its moments count."""
        return self.act == ScheduleAct.SET and not self.definition.paused


class Outcome(StrEnum):
    """What became of a moment."""

    SUBMITTED = "submitted"
    REFUSED = "refused"
    """The submit was refused, for good; the detail says why."""
    MISSED = "missed"
    """It, and perhaps others before it, had been due for too long."""


class OccurrenceRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What became of a moment of a schedule, of a trigger or of a moment that was made up for."""

    due_at: _Instant
    outcome: str
    """One of `Outcome`."""
    operation_id: str = ""
    """The id by which the caller knows the operation; empty without one."""
    cause: str = "schedule"
    """`schedule`, `trigger` or `backfill`."""
    by: str = ""
    """Who triggered it or had it made up for."""
    done_until: _Instant
    """Up to here, no moment of the schedule is left to do."""
    recorded_at: _Instant
    detail: str = ""


class ScheduleState(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it is now."""

    key: str
    """Under which it is stored."""
    changed: ScheduleChanged
    changed_sequence: int
    """Stream sequence of the last decision: the expected version of the next one."""
    last: OccurrenceRecord | None = None
    last_sequence: int = 0
    """Stream sequence of the last record of a moment; 0 for none."""

    def done_until(self, now: datetime) -> datetime:
        """Return the time up to which no moment is left to do.

        A record that names a time to come is not believed: a stolen login could else silence a schedule for
        ever.
        """
        last = self.last
        if last is None or last.done_until > now + CLOCK_MARGIN:
            return self.changed.at
        return max(self.changed.at, last.done_until)

    @property
    def is_deleted(self) -> bool:
        """Return True if it is not there any more."""
        return self.changed.act == ScheduleAct.DELETED


_encode: Final = msgspec.json.Encoder().encode
_changed: Final = msgspec.json.Decoder(ScheduleChanged).decode
_record: Final = msgspec.json.Decoder(OccurrenceRecord).decode


def encode_schedule_event(event: ScheduleChanged | OccurrenceRecord) -> bytes:
    """Return the bytes of an event on the broker."""
    return _encode(event)


def decode_changed(payload: bytes) -> ScheduleChanged:
    """Decode a decision about a schedule, whose definition is valid here.

    Raises:
        InvalidEvent: it is none, or has a zone that this system does not know.
    """
    try:
        changed = _changed(payload)
        check_schedule_name(changed.name)
        check_schedule(changed.definition)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a decision about a schedule: {error}") from error
    return changed


def decode_occurrence(payload: bytes) -> OccurrenceRecord:
    """Decode a record of a moment.

    Raises:
        InvalidEvent: it is none.
    """
    try:
        return _record(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a record of a schedule's moment: {error}") from error
