"""The moments at which a schedule is due. Pure, but for the zones, which `zoneinfo` reads once from the system.

A cron expression is about what clocks on walls show. It is evaluated on wall time, and each wall time becomes one
moment. A wall time that a zone skips (a gap) becomes the first moment after the gap. One that it has twice (an overlap)
is its first moment only. So each wall time is due once, and moments never go backwards (docs/adr/0061).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from opstream_schemas.errors import InvalidName

SHORTEST_INTERVAL: Final = 60
"""Seconds between two moments of an interval, at least; those of cron are whole minutes."""
LONGEST_INTERVAL: Final = 366 * 86_400
"""Seconds between two moments of an interval, at most."""

_CRON_FIELDS: Final = 5
_CRON_LIMIT: Final = 200
"""Characters of an expression."""
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]{1,40}(?:/[A-Za-z0-9_+-]{1,40}){0,2}")
_OTHER_CLOCKS: Final = ("right/", "posix/")
"""Folders of zones that some systems have besides: with leap seconds, and the same once more."""
_NOT_ZONES: Final = frozenset({"localtime", "posixrules", "Factory"})
"""Files among the zones that differ from system to system."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)


def check_cron(text: str) -> str:
    """Return `text` if it is a cron expression of five fields: minute, hour, day of month, month, day of week.

    Raises:
        InvalidName: it is none, or its days are too rare. The message says what is wrong.
    """
    from cronsim import CronSimError  # only where there is a cron expression

    from .cron_search import YEARS_SEARCHED, BoundedCron

    if len(text) > _CRON_LIMIT or len(text.split()) != _CRON_FIELDS:
        raise InvalidName(
            f"cron {text[:80]!r} must have five fields, minute, hour, day of month, month and day of week, as in "
            "'30 3 * * 1-5'"
        )
    try:
        found = list(islice(BoundedCron(text, datetime(2000, 1, 1)), 2))  # noqa: DTZ001 - wall time
    except CronSimError as error:
        raise InvalidName(f"cron {text!r} is not valid: {error}") from error
    if len(found) != 2:
        raise InvalidName(f"cron {text!r} is never due, or not twice in {YEARS_SEARCHED} years: name other days")
    return text


def check_zone(name: str) -> str:
    """Return `name` if it is a zone of the IANA database that this system knows, such as `Europe/Berlin`.

    Raises:
        InvalidName: it is none.
    """
    find_zone(name)
    return name


@lru_cache(256)
def find_zone(name: str) -> ZoneInfo:
    """Return a zone by its name.

    Raises:
        InvalidName: there is none of this name.
    """
    if _ZONE.fullmatch(name) is not None and not name.startswith(_OTHER_CLOCKS) and name not in _NOT_ZONES:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    raise InvalidName(f"{name[:80]!r} is not a time zone that is known here: write UTC, or one such as Europe/Berlin")


def cron_moments(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Yield the moments of a cron expression in UTC, in order and each once: those of eight years after a time.

    Args:
        cron: checked (`check_cron`).
        zone: whose wall time it is about.
        after: with its zone.
    """
    from .cron_search import BoundedCron

    last = after.astimezone(UTC)
    # Wall times before this one are of moments that have passed: those of a gap come after it on the wall, too.
    for wall in BoundedCron(cron, after.astimezone(zone).replace(tzinfo=None)):
        moment = wall_moment(wall, zone)
        if moment > last:
            last = moment
            yield moment


def interval_moments(seconds: int, after: datetime) -> Iterator[datetime]:
    """Yield the moments of an interval in UTC, without end: all that come after a time.

    They are multiples of the interval since 1970, so that they follow from the interval alone, whenever the schedule
    was made, and an interval that divides a day begins at midnight UTC.

    Args:
        seconds: of the interval.
        after: with its zone.
    """
    number = int((after - _EPOCH) / _SECOND // seconds)
    while True:
        number += 1
        yield _EPOCH + timedelta(seconds=number * seconds)


def wall_moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment in UTC at which a zone's clocks show a wall time.

    Of two, the first one; of none, the first moment at which they show a later time.

    Args:
        wall: without a zone.
        zone: the zone.
    """
    moment = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _wall_of(moment, zone) == wall:
        return moment
    # A gap: `moment` is as far behind its begin as the wall time is.
    early, late = moment - (_wall_of(moment, zone) - wall), moment
    while late - early > _SECOND:
        middle = early + timedelta(seconds=int((late - early) / _SECOND) // 2)
        if _wall_of(middle, zone) > wall:
            late = middle
        else:
            early = middle
    return late


def _wall_of(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)
