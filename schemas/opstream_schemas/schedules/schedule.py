"""The definition of a schedule, as a client writes it, with its checks. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

import msgspec

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind, check_resource_id

from .occurrences import (
    LONGEST_INTERVAL,
    SHORTEST_INTERVAL,
    check_cron,
    check_zone,
    cron_moments,
    find_zone,
    interval_moments,
)

NAME_PATTERN: Final = "[a-z0-9-]{1,40}"
"""Regular expression of the name of a schedule, without anchors: an id with it has at most 64 characters."""
MAX_PREVIEW: Final = 100
"""Moments that one preview shows."""
MAX_BACKFILL: Final = 100
"""Moments that one request has made up for."""
EARLIEST_BACKFILL: Final = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST_BACKFILL: Final = timedelta(days=8 * 365)
"""Of the time in which moments are made up for: within it each moment is found."""
CATCH_UP: Final = timedelta(hours=1)
"""What was due for longer than this is not made up for: the service was down, or the schedule paused."""

_NAME: Final = re.compile(NAME_PATTERN)
_DERIVED_ID: Final = re.compile(rf"(?:sched|trig)-{NAME_PATTERN}-[0-9]{{8}}T[0-9]{{6}}Z")
_EMPTY: Final = msgspec.Raw(b"{}")


class Schedule(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", forbid_unknown_fields=True
):
    """What begins, and when. Exactly one of `cron` and `every` is there."""

    action: str
    """Resource and action, `book:reindex`."""
    resource_id: str = ""
    input: msgspec.Raw = _EMPTY
    """JSON."""
    cron: str = ""
    time_zone: str = "UTC"
    """Of `cron`."""
    every: int = 0
    """Seconds of an interval."""
    pause_on_failure: bool = False
    """Whether the schedule pauses once an operation of it has failed."""
    paused: bool = False

    @property
    def kind(self) -> Kind:
        """Return the action as a name."""
        return Kind.parse(self.action)

    def moments(self, after: datetime) -> Iterator[datetime]:
        """Yield the moments in UTC at which it is due, after a time with its zone; paused or not."""
        if self.cron:
            return cron_moments(self.cron, find_zone(self.time_zone), after)
        return interval_moments(self.every, after)


class Due(msgspec.Struct, frozen=True):
    """What of a schedule is due now."""

    moments: tuple[datetime, ...]
    """In order."""
    has_missed: bool
    """True if others were due for longer than `CATCH_UP`."""


def check_schedule_name(name: str) -> str:
    """Return `name` if it is one of a schedule.

    Raises:
        InvalidName: it is none.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidName(f"{name[:80]!r} is not a name of a schedule: 1 to 40 characters of a-z, 0-9 and '-'")
    return name


def check_schedule(schedule: Schedule) -> Schedule:
    """Return a schedule whose parts are valid. Its input is checked by the action's schema, elsewhere.

    Raises:
        InvalidName: a part is not. The message begins with the name of the member.
    """
    Kind.parse_routable(schedule.action)
    if schedule.resource_id:
        check_resource_id(schedule.resource_id)
    if bool(schedule.cron) == bool(schedule.every):
        raise InvalidName("a schedule has either 'cron' or 'every', a number of seconds")
    if schedule.cron:
        check_cron(schedule.cron)
        check_zone(schedule.time_zone)
    elif not SHORTEST_INTERVAL <= schedule.every <= LONGEST_INTERVAL:
        raise InvalidName(f"every must be {SHORTEST_INTERVAL} to {LONGEST_INTERVAL} seconds, not {schedule.every}")
    return schedule


def find_due(schedule: Schedule, after: datetime, now: datetime) -> Due:
    """Return what is due now of what comes after a time: at most what the last hour has.

    Args:
        schedule: checked.
        after: up to here all is done; with its zone.
        now: with its zone.
    """
    begin = max(after, now - CATCH_UP)
    moments = []
    for moment in schedule.moments(begin):
        if moment > now:
            break
        moments.append(moment)
    missed = next(schedule.moments(after), None) if begin > after else None
    return Due(tuple(moments), missed is not None and missed <= begin)


def next_moments(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """Return the next moments, at most so many: a cron expression may have fewer."""
    return list(islice(schedule.moments(after), count))


def occurrence_id(name: str, moment: datetime) -> str:
    """Return the id of the operation that begins at a moment: `sched-nightly-20261124T020000Z`.

    It follows from the schedule's name and the moment alone, so that whatever submits it twice makes one operation.
    """
    return f"sched-{name}-{_compact(moment)}"


def trigger_id(name: str, now: datetime) -> str:
    """Return the id of the operation that begins because a caller wants it now; one in a second."""
    return f"trig-{name}-{_compact(now)}"


def is_derived_id(operation_id: str) -> bool:
    """Return True if an id has the form of `occurrence_id` or `trigger_id`, so that no client may take it first."""
    return _DERIVED_ID.fullmatch(operation_id) is not None


def _compact(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"
