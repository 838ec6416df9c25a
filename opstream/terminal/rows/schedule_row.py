"""Schedules, their moments, and what became of these, as rows of tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from opstream.terminal.console import coloured, printable
from opstream.terminal.event_row import as_utc
from opstream.terminal.table import text_beside

from .spans import shown_span

HEADING: Final = f"{'name':<24}  {'status':<6}  {'next (UTC)':<19}"
OCCURRENCE_HEADING: Final = f"{'due (UTC)':<19}  {'cause':<8}  {'outcome':<9}"
MOMENT_HEADING: Final = f"{'due (UTC)':<19}  {'in':>7}"

_COLOURS: Final = {"submitted": "green", "refused": "red", "missed": "yellow"}


def schedule_row(
    name: str, status: str, next_at: datetime | None, what: str, *, has_colour: bool, width: int | None = None
) -> str:
    """One schedule as a row under `HEADING`.

    Args:
        name: of the schedule.
        status: `Active` or `Paused`.
        next_at: when it is due next; None for never.
        what: begins when, and why it is paused.
        has_colour: whether to colour it.
        width: columns of the terminal; None for no limit.
    """
    shown = coloured(f"{printable(status):<6}", "yellow" if status == "Paused" else None, has_colour=has_colour)
    return text_beside(f"{printable(name):<24}  {shown}  {_moment(next_at):<19}", printable(what), width)


def occurrence_row(
    due_at: datetime, cause: str, outcome: str, what: str, *, has_colour: bool, width: int | None = None
) -> str:
    """What became of a moment, as a row under `OCCURRENCE_HEADING`. See `schedule_row`.

    Args:
        due_at: the moment.
        cause: `schedule`, `trigger` or `backfill`.
        outcome: `submitted`, `refused` or `missed`.
        what: the operation, or why there is none.
        has_colour: whether to colour it.
        width: columns of the terminal; None for no limit.
    """
    shown = coloured(f"{printable(outcome):<9}", _COLOURS.get(outcome), has_colour=has_colour)
    return text_beside(f"{_moment(due_at)}  {printable(cause):<8}  {shown}", printable(what), width)


def moment_row(due_at: datetime, now: datetime, zone: ZoneInfo | None) -> str:
    """A moment that comes, as a row under `MOMENT_HEADING`.

    Args:
        due_at: the moment.
        now: the time with a time zone.
        zone: whose wall time is shown besides; None for none.
    """
    wall = "" if zone is None else f"  {due_at.astimezone(zone):%a %Y-%m-%d %H:%M}"
    return f"{_moment(due_at)}  {shown_span((due_at - now).total_seconds()):>7}{wall}"


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else f"{as_utc(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S}"
