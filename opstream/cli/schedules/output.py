"""Prints schedules, their moments and what became of these: tables on a terminal, otherwise a JSON object per line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from opstream.cli.client_session import print_json
from opstream.terminal.console import line_width, printable, shown_json, supports_colour
from opstream.terminal.rows.schedule_row import (
    HEADING,
    MOMENT_HEADING,
    OCCURRENCE_HEADING,
    moment_row,
    occurrence_row,
    schedule_row,
)
from opstream.terminal.rows.spans import shown_span
from opstream.terminal.table import fits_beside

if TYPE_CHECKING:
    from opstream.client.schedules.models import ScheduleOccurrence, ScheduleView


def is_plain(*, is_json: bool) -> bool:
    """Return True if lines of JSON are printed, and no table."""
    return is_json or not sys.stdout.isatty()


def print_schedule(found: ScheduleView) -> None:
    """Print one schedule as JSON."""
    print_json(msgspec.Raw(msgspec.json.encode(found)))


def print_lines(found: Iterable[Any]) -> None:
    """Print anything that can be JSON, one per line."""
    for one in found:
        click.echo(shown_json(msgspec.json.encode(one)))


def print_schedules(found: Sequence[ScheduleView]) -> None:
    """Print a table of schedules."""
    has_colour, width = supports_colour(sys.stdout), line_width(sys.stdout)
    click.echo(f"{HEADING}  what" if fits_beside(HEADING, width) else HEADING)
    for one in found:
        row = schedule_row(one.name, one.status, one.next_at, _what(one), has_colour=has_colour, width=width)
        click.echo(row, color=has_colour or None)


def print_occurrences(found: Sequence[ScheduleOccurrence]) -> None:
    """Print a table of what became of moments."""
    has_colour, width = supports_colour(sys.stdout), line_width(sys.stdout)
    click.echo(f"{OCCURRENCE_HEADING}  what" if fits_beside(OCCURRENCE_HEADING, width) else OCCURRENCE_HEADING)
    for one in found:
        what = one.operation_id or one.detail
        row = occurrence_row(one.due_at, one.cause, one.outcome, what, has_colour=has_colour, width=width)
        click.echo(row, color=has_colour or None)


def print_moments(moments: Iterable[datetime], zone: str) -> None:
    """Print a table of moments that come, with the wall time of a zone."""
    from opstream_schemas.schedules.occurrences import find_zone

    is_other = zone != "UTC"
    click.echo(f"{MOMENT_HEADING}  {printable(zone)}" if is_other else MOMENT_HEADING)
    for moment in moments:
        click.echo(moment_row(moment, datetime.now(UTC), find_zone(zone) if is_other else None))


def _what(one: ScheduleView) -> str:
    when = f"{one.cron} {one.time_zone}" if one.cron else f"every {shown_span(one.every)}"
    target = f"{one.action} of {one.resource_id}" if one.resource_id else one.action
    return f"{target}, {when}{f'; {one.paused_because}' if one.paused_because else ''}"
