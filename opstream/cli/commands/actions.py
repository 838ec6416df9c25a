"""`opstream actions`: shows the actions, which runners they have, and what waits."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options.option import option
from opstream.terminal.console import coloured, line_width, printable, shown_json, supports_colour
from opstream.terminal.table import fits_beside, text_below, text_beside
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream_projector.queues.action_overview import ActionOverview

_HEADING: Final = f"{'action':<32}  {'version':>7}  {'runners':>7}  {'busy':>9}  {'waiting':>7}  {'oldest':>8}"


class ActionsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream actions`."""

    is_json: bool
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


@click.command
@option("--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal.")
@common_options.nats_option
@common_options.connect_timeout_option
def actions(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Show each action that runners have announced: its version, its runners, how many of their slots are busy, how
    many operations wait, for how long the oldest, and for what.

    A table on a terminal, otherwise one JSON object per line, with a record of each runner. Runners of 0.5.0 or earlier
    are not counted.

    \b
    Example:
      opstream actions --nats nats://n1:4222
      opstream actions | jq -r 'select(.runners == []).action'
    """
    show_actions(ActionsSettings(**given))


def show_actions(settings: ActionsSettings) -> None:
    """Print the actions: a table on a terminal, otherwise one JSON object per line.

    Raises:
        CommandError: as `broker_session`.
    """
    asyncio.run(_show(settings))


async def _show(settings: ActionsSettings) -> None:
    from opstream.cli.broker_session import broker_session
    from opstream_projector.queues.action_overview import overview

    async with broker_session(
        settings.servers, "actions", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        found = await overview(connection)
    if not found:
        click.echo("opstream: no runner has announced an action: 'opstream runner --actions …' does", err=True)
        return
    if not sys.stdout.isatty() or settings.is_json:
        for one in found:
            click.echo(shown_json(msgspec.json.encode(one)))
        return
    has_colour, width = supports_colour(sys.stdout), line_width(sys.stdout)
    click.echo(f"{_HEADING}  what" if fits_beside(_HEADING, width) else _HEADING)
    for one in found:
        click.echo(table_row(one, datetime.now(UTC), has_colour=has_colour, width=width), color=has_colour or None)


def table_row(one: ActionOverview, now: datetime, *, has_colour: bool, width: int | None) -> str:
    """One action of the table. On a narrow terminal what its operations wait for is on a line of its own.

    Args:
        one: what the row shows.
        now: the time with a time zone.
        has_colour: whether to colour it.
        width: columns of the terminal; None for no limit.
    """
    slots, free = sum(runner.slots for runner in one.runners), sum(runner.free for runner in one.runners)
    number, oldest = sum(wait.number for wait in one.waiting), max((wait.oldest for wait in one.waiting), default=0.0)
    busy = f"{slots - free}/{slots}" if one.runners else "-"
    count = coloured(f"{len(one.runners):>7}", None if one.runners else "red", has_colour=has_colour)
    age = _shown_seconds(oldest) if number else "-"
    head = f"{printable(one.action):<32}  {one.version or '-':>7}  {count}  {busy:>9}  {number:>7}  {age:>8}"
    what = _what(one, now)
    return text_beside(head, what, width) if fits_beside(_HEADING, width) else text_below(head, what, width)


def _what(one: ActionOverview, now: datetime) -> str:
    parts = [f"{wait.number} for {wait.reason}" for wait in one.waiting]
    versions = sorted({runner.version for runner in one.runners})
    if versions not in ([], [one.version]):
        parts.append(f"runners of version {', '.join(map(str, versions))}")
    if not one.runners and one.last_runner_at is not None:
        parts.append(f"no runner for {_shown_seconds((now - one.last_runner_at).total_seconds())}")
    return "; ".join(parts)


def _shown_seconds(seconds: float) -> str:
    whole = timedelta(seconds=max(0, round(seconds)))
    hours, rest = divmod(whole.seconds, 3_600)
    if whole.days:
        return f"{whole.days}d {hours}h"
    if hours:
        return f"{hours}h {rest // 60}m"
    return f"{rest // 60}m {rest % 60}s" if rest >= 60 else f"{rest}s"
