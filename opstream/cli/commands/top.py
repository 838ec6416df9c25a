"""`opstream top`: shows the load of all actions, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options.option import option
from opstream.cli.options.value_types import Duration
from opstream.terminal.console import (
    EXIT_INTERRUPTED,
    line_width,
    printable,
    shown_json,
    supports_colour,
)
from opstream.terminal.rows.load_row import LiveScreen, LoadRow, heading, load_row
from opstream.terminal.rows.spans import shown_span
from opstream.terminal.standard_streams import is_reader_gone
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream.load.look import ActionLoad
    from opstream_journal import Connection

_NO_ACTIONS: Final = "no runner has announced an action: 'opstream runner --actions …' does"
_DEFAULT_HEIGHT: Final = 24


class TopSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream top`."""

    is_once: bool
    is_json: bool
    interval: float
    """Seconds between two looks."""
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


@click.command
@option("--once", "is_once", variable="ONCE", is_flag=True, help="Look once, and end.")
@option("--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal.")
@option(
    "--interval",
    variable="INTERVAL",
    type=Duration(is_positive=True),
    default=2.0,
    help="How long to wait between two looks, e.g. 5s.",
)
@common_options.nats_option
@common_options.connect_timeout_option
def top(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Show of each action what runs, what waits, for how long and for what, and how many operations were requested,
    ended and failed within the last minute, until Ctrl-C.

    A screen that is drawn again on a terminal, otherwise one JSON object for each action and look. It asks the broker
    alone, so it also works while API, projector or index don't. While the broker is away it says so, and goes on.

    \b
    Example:
      opstream top --nats nats://n1:4222
      opstream top --once | jq -r 'select(.failed > 0).action'
    """
    settings = TopSettings(**given)
    try:
        asyncio.run(_show(settings))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


async def _show(settings: TopSettings) -> None:
    from opstream.cli.broker_session import broker_session

    async with broker_session(
        settings.servers, "top", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        if settings.is_once or settings.is_json or not _can_redraw():
            await _print(settings, connection)
        else:
            await _draw(settings, connection)


async def _print(settings: TopSettings, connection: Connection) -> None:
    is_table = sys.stdout.isatty() and not settings.is_json
    async for found, trouble in _looks(settings, connection):
        if trouble:
            click.echo(f"opstream: {trouble}", err=True)
        elif not found:
            click.echo(f"opstream: {_NO_ACTIONS}", err=True)
        elif is_table:
            _print_table(found)
        else:
            for one in found:
                click.echo(shown_json(msgspec.json.encode(one)))
        if settings.is_once or is_reader_gone():
            return


async def _draw(settings: TopSettings, connection: Connection) -> None:
    last: Sequence[ActionLoad] = ()
    with LiveScreen(sys.stdout) as screen:
        async for found, trouble in _looks(settings, connection):
            last = last if trouble else found
            width, has_colour = line_width(sys.stdout), supports_colour(sys.stdout)
            lines = [f"{datetime.now(UTC):%H:%M:%S} UTC  {trouble or _summary(last)}"[:width], "", heading(width)]
            lines += [_row(one, has_colour=has_colour, width=width) for one in last]
            screen.draw(lines, _height())


async def _looks(settings: TopSettings, connection: Connection) -> AsyncIterator[tuple[Sequence[ActionLoad], str]]:
    """Yield what each look finds, or what is wrong with the broker.

    Raises:
        JournalError: the first look failed.
    """
    from opstream.load.look import LoadWatch
    from opstream_journal import JournalError

    has_looked = False
    watch = LoadWatch(connection)
    async with watch.following():
        while True:
            try:
                yield await watch.look(), ""
                has_looked = True
            except JournalError as error:
                if not has_looked:
                    raise
                yield (), printable(f"the broker does not answer, and is asked again: {error}")
            await asyncio.sleep(settings.interval)


def _print_table(found: Sequence[ActionLoad]) -> None:
    has_colour, width = supports_colour(sys.stdout), line_width(sys.stdout)
    click.echo(heading(width))
    for one in found:
        click.echo(_row(one, has_colour=has_colour, width=width), color=has_colour or None)


def _row(one: ActionLoad, *, has_colour: bool, width: int | None) -> str:
    parts = ["paused"] * one.paused + [f"{wait.number} for {wait.reason}" for wait in one.waiting]
    parts += [f"{queue.number} {queue.priority}" for queue in one.queues or () if queue.number]
    if one.retried:
        parts.append(f"{one.retried} retries")
    if one.last_failure is not None:
        age = shown_span((datetime.now(UTC) - one.last_failure.at).total_seconds())
        parts.append(f"failed {age} ago: {one.last_failure.code}: {one.last_failure.message}")
    row = LoadRow(
        action=one.action,
        running=one.running,
        slots=one.slots,
        runners=one.runners,
        waits=one.waits,
        oldest=one.oldest,
        requested=one.requested,
        ended=one.ended,
        failed=one.failed,
        what="; ".join(parts),
    )
    return load_row(row, has_colour=has_colour, width=width)


def _summary(found: Sequence[ActionLoad]) -> str:
    if not found:
        return _NO_ACTIONS
    running, waits = sum(one.running for one in found), sum(one.waits for one in found)
    ended, failed = sum(one.ended for one in found), sum(one.failed for one in found)
    return f"{running} running, {waits} waiting; within a minute {ended} ended, {failed} of them failed"


def _can_redraw() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _height() -> int:
    with contextlib.suppress(OSError, ValueError):
        return max(1, os.get_terminal_size(sys.stdout.fileno()).lines)
    return _DEFAULT_HEIGHT
