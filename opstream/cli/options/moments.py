"""Moments as people write them: a date, a time with its zone, or an age. Called by the options of `opstream replay`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

Moment = datetime | timedelta
"""A time, or how long ago it is."""

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""The broker counts nanoseconds in 64 bits, and takes what is far beyond this for the distant past."""

_EXAMPLES: Final = "2026-11-24, 2026-11-24T15:30:00Z, or an age such as 90s, 30m, 2h or 3d"
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
"""RFC 3339, which asks for the zone; what is stored is in UTC, and nobody should have to guess."""
_AGE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class MomentType(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """A date (its first moment in UTC), RFC 3339, or an age with its unit."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Moment:  # noqa: ANN401
        """A time with its zone, or an age; click's usage error for anything else."""
        if isinstance(value, datetime | timedelta):
            return value
        try:
            if (age := _AGE.fullmatch(value)) is not None:
                return timedelta(seconds=float(age[1]) * _SECONDS[age[2]])
            if _DATE.fullmatch(value) is not None:
                return _bounded(datetime.fromisoformat(value).replace(tzinfo=UTC))
            if _TIME.fullmatch(value) is not None:
                return _bounded(datetime.fromisoformat(value.upper()).astimezone(UTC))
        except (ValueError, OverflowError) as error:
            raise click.BadParameter(f"{value!r} is no time ({error}): write {_EXAMPLES}", ctx, param) from error
        raise click.BadParameter(f"{value!r} is no time: write {_EXAMPLES}", ctx, param)


def _bounded(moment: datetime) -> datetime:
    if moment > _LATEST:
        raise ValueError("it is after the year 2199")
    return moment


def at(moment: Moment | None, now: datetime) -> datetime | None:
    """The time that is meant; `EARLIEST` for anything before that."""
    if isinstance(moment, timedelta):
        return max(now - moment, EARLIEST) if moment < now - EARLIEST else EARLIEST
    return moment if moment is None else max(moment, EARLIEST)
