"""The click types of durations, sizes, and times or ages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from opstream_schemas.errors import InvalidName

UNLIMITED: Final = "unlimited"
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_BYTES: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_AMOUNT_PATTERN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)")
_MAX_DURATION: Final = 36_500 * 86_400
"""Seconds: a century. The broker's nanoseconds in 64 bits end at about three."""


class Duration(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """Seconds, written `30d`, `12h`, `5m`, `90s` or `90`.

    Args:
        unlimited: the value of the word `unlimited`; None if the word is not allowed.
        is_positive: refuse 0.
    """

    name = "duration"

    def __init__(self, *, unlimited: float | None = None, is_positive: bool = False) -> None:
        self._unlimited = unlimited
        # 0 is ambiguous where `unlimited` is allowed: no limit, or no time at all.
        self._is_positive = is_positive or unlimited is not None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Convert the text to seconds.

        Raises:
            click.BadParameter: it is not a duration, or too long.
        """
        if isinstance(value, int | float):
            return float(value)
        if self._unlimited is not None and value == UNLIMITED:
            return self._unlimited
        seconds = _parse_amount(value, _SECONDS)
        if seconds is None or (self._is_positive and not seconds):
            examples = "30d, 12h, 5m, 90s or a number of seconds"
            self.fail(f"{value!r} is not a duration: write {examples}{_unlimited_hint(self._unlimited)}", param, ctx)
        if seconds > _MAX_DURATION:
            self.fail(f"{value!r} is too long: write at most 36500d{_unlimited_hint(self._unlimited)}", param, ctx)
        return seconds


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, written `256KiB`, `10GiB` or `262144`.

    Args:
        unlimited: the value of the word `unlimited`; None if the word is not allowed.
        most: the largest size that is allowed, as text.
    """

    name = "size"

    def __init__(self, *, unlimited: int | None = None, most: str = "1048576TiB") -> None:
        self._unlimited = unlimited
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        """Convert the text to bytes, at least 1.

        Raises:
            click.BadParameter: it is not a size, or too large.
        """
        if isinstance(value, int):
            return value
        if self._unlimited is not None and value == UNLIMITED:
            return self._unlimited
        size = _parse_amount(value, _BYTES)
        if size is None or size < 1:
            examples = "256KiB, 4MiB, 10GiB or a number of bytes"
            self.fail(f"{value!r} is not a size: write {examples}{_unlimited_hint(self._unlimited)}", param, ctx)
        if size > (_parse_amount(self._most, _BYTES) or 0):
            self.fail(
                f"{value!r} is too much: write at most {self._most}{_unlimited_hint(self._unlimited)}", param, ctx
            )
        return int(size)


def _parse_amount(text: str, units: dict[str, int]) -> float | None:
    found = _AMOUNT_PATTERN.fullmatch(text.strip())
    if found is None:
        return None
    factor = {unit.lower(): factor for unit, factor in units.items()}.get(found[2].lower())
    return None if factor is None else float(found[1]) * factor


def _unlimited_hint(unlimited: float | None) -> str:
    return "" if unlimited is None else f", or {UNLIMITED!r}"


Moment = datetime | timedelta
"""A time, or an age."""

EARLIEST_MOMENT: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MOMENT: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""The broker counts nanoseconds in 64 bits, so a time in the distant future becomes one in the past."""

_EXAMPLES: Final = "2026-11-24, 2026-11-24T15:30:00Z, or an age such as 90s, 30m, 2h or 3d"
_EXAMPLE: Final = "e.g. 2026-11-24T08:00:00+01:00 (RFC 3339)"
_DATE_PATTERN: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME_PATTERN: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
"""RFC 3339, which requires a zone: stored times are in UTC, and a time without a zone is ambiguous."""
_AGE_PATTERN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])")


class MomentType(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """A date (its first moment in UTC), RFC 3339, or an age with its unit."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Moment:  # noqa: ANN401
        """Convert the text to a time with a zone, or to an age.

        Raises:
            click.BadParameter: it is neither.
        """
        if isinstance(value, datetime | timedelta):
            return value
        try:
            if (age := _AGE_PATTERN.fullmatch(value)) is not None:
                return timedelta(seconds=float(age[1]) * _SECONDS[age[2]])
            if _DATE_PATTERN.fullmatch(value) is not None:
                return _bounded(datetime.fromisoformat(value).replace(tzinfo=UTC))
            if _TIME_PATTERN.fullmatch(value) is not None:
                return _bounded(datetime.fromisoformat(value.upper()).astimezone(UTC))
        except (ValueError, OverflowError) as error:
            raise click.BadParameter(f"{value!r} is not a time ({error}): write {_EXAMPLES}", ctx, param) from error
        raise click.BadParameter(f"{value!r} is not a time: write {_EXAMPLES}", ctx, param)


def check_time(text: str) -> str:
    """Return a time with its zone (RFC 3339) as it was written.

    Raises:
        InvalidName: it is none; the message says what to write.
    """
    try:
        if _TIME_PATTERN.fullmatch(text) is not None:
            _bounded(datetime.fromisoformat(text.upper()).astimezone(UTC))
            return text
    except (ValueError, OverflowError) as error:
        raise InvalidName(f"{text!r} is not a time ({error}): write {_EXAMPLE}") from error
    raise InvalidName(f"{text!r} is not a time with its zone: write {_EXAMPLE}")


def _bounded(moment: datetime) -> datetime:
    if moment > _LATEST_MOMENT:
        raise ValueError("it is after the year 2199")
    return moment


def resolve_moment(moment: Moment | None, now: datetime) -> datetime | None:
    """The time of a moment, where ages count from `now`; not before `EARLIEST_MOMENT`. None stays None."""
    if isinstance(moment, timedelta):
        return max(now - moment, EARLIEST_MOMENT) if moment < now - EARLIEST_MOMENT else EARLIEST_MOMENT
    return moment if moment is None else max(moment, EARLIEST_MOMENT)
