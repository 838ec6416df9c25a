"""`opstream parked`: shows the dead letters of subscribers, has them handled again, or removes them."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options.option import option
from opstream.terminal.console import CommandError, line_width, printable, shown_json
from opstream.terminal.table import text_below
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import check_durable_name
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream_journal import Connection

_MAX_SEQUENCE: Final = 2**63 - 1
_TRY_TIMEOUT: Final = 60.0
"""Seconds in which a subscriber has to handle one event."""
_HEADING: Final = f"{'durable':<24}  {'sequence':>10}  {'reason':<16}  {'deliveries':>10}"


class ParkedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream parked`."""

    durable: str | None
    """None for all."""
    sequences: tuple[int, ...]
    """Empty for all dead letters of the durable."""
    is_retry: bool
    is_forgetting: bool
    is_json: bool
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


class _DeadLetterLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A dead letter as it is printed."""

    durable: str
    sequence: int
    reason: str
    detail: str
    deliveries: int
    subject: str


def _check_durable(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        return value if value is None else check_durable_name(value)
    except InvalidName as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _without_duplicates(_ctx: click.Context, _param: click.Parameter, value: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(value))


retry_option = option(
    "--retry",
    "is_retry",
    variable="RETRY",
    is_flag=True,
    help="Have a running subscriber handle them again, one after the other; those that succeed are removed.",
)
forget_option = option(
    "--forget",
    "is_forgetting",
    variable="FORGET",
    is_flag=True,
    help="Remove them permanently. The journal keeps the events.",
)
json_option = option(
    "--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal."
)


@click.command
@click.argument("durable", metavar="[DURABLE]", required=False, callback=_check_durable)
@click.argument(
    "sequences", metavar="[SEQUENCE]...", nargs=-1, type=click.IntRange(1, _MAX_SEQUENCE), callback=_without_duplicates
)
@retry_option
@forget_option
@json_option
@common_options.nats_option
@common_options.connect_timeout_option
def parked(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Show the events that subscribers could not handle: all, those of DURABLE, or just some of its SEQUENCEs.

    A table on a terminal, otherwise one JSON object per line. With --retry they are handled again, and the exit status
    is 1 if one stays parked. It is also 1 if nothing is parked under one of the SEQUENCEs.

    \b
    Example:
      opstream parked
      opstream parked mailer 1234 --retry
      opstream parked mailer 1235 1240 --forget
    """
    if given["is_retry"] and given["is_forgetting"]:
        raise click.UsageError("--retry and --forget exclude each other: choose one")
    if (given["is_retry"] or given["is_forgetting"]) and not given["durable"]:
        name = "--retry" if given["is_retry"] else "--forget"
        raise click.UsageError(f"{name} needs the durable, e.g. 'opstream parked mailer {name}'")
    process_dead_letters(ParkedSettings(**given))


def process_dead_letters(settings: ParkedSettings) -> None:
    """Print the selected dead letters, or the result of handling them again or of removing them.

    Raises:
        CommandError: a dead letter was not handled or does not exist; or as `broker_session`.
    """
    asyncio.run(_process(settings))


async def _process(settings: ParkedSettings) -> None:
    from opstream.cli.broker_session import broker_session
    from opstream_schemas.broker_access.permissions import Role

    role = Role.ADMIN if settings.is_retry or settings.is_forgetting else Role.AUDITOR
    async with broker_session(
        settings.servers, "parked", settings.connect_timeout, credentials=settings.credentials, role=role
    ) as connection:
        keys = await _select(connection, settings)
        if settings.is_retry:
            await _retry(connection, keys)
        elif settings.is_forgetting:
            await _forget(connection, keys)
        else:
            await _show(connection, keys, is_table=sys.stdout.isatty() and not settings.is_json)


async def _select(connection: Connection, settings: ParkedSettings) -> list[tuple[str, int]]:
    """The durable and sequence of each dead letter that the options name."""
    from opstream_journal.stores import dead_letters

    is_there = await dead_letters.exists(connection)
    keys = await dead_letters.keys(connection, settings.durable) if is_there else []
    # Checked before anything is done: if one of the sequences is wrong, the others may be wrong, too.
    if missing := sorted(set(settings.sequences) - {sequence for _, sequence in keys}):
        numbers = ", ".join(map(str, missing))
        raise CommandError(f"nothing of {settings.durable} is parked under {numbers}: 'opstream parked' shows what is")
    if not is_there:
        _print_note("nothing was ever parked on this broker: its first subscriber makes the stream PARKED")
    elif not keys:
        _print_note(f"nothing is parked{f' of {settings.durable}' if settings.durable else ''}")
    return [(str(settings.durable), sequence) for sequence in settings.sequences] or keys


async def _show(connection: Connection, keys: list[tuple[str, int]], *, is_table: bool) -> None:
    from opstream_journal.stores import dead_letters

    has_heading = False
    for durable, sequence in keys:
        letter = await dead_letters.find(connection, durable, sequence)
        if letter is None:
            continue  # removed since it was listed
        line = msgspec.convert(letter, _DeadLetterLine, from_attributes=True)
        if not is_table:
            click.echo(shown_json(msgspec.json.encode(line)))
            continue
        if not has_heading:
            click.echo(text_below(_HEADING, "subject: detail", line_width(sys.stdout)))
        has_heading = True
        click.echo(_row(line))


def _row(line: _DeadLetterLine) -> str:
    head = f"{line.durable:<24}  {line.sequence:>10}  {line.reason:<16}  {line.deliveries:>10}"
    return text_below(printable(head), printable(f"{line.subject}: {line.detail}"), line_width(sys.stdout))


def _print_note(text: str) -> None:
    click.echo(f"opstream: {text}", err=True)


async def _forget(connection: Connection, keys: list[tuple[str, int]]) -> None:
    from opstream_journal.stores import dead_letters

    for durable, sequence in keys:
        letter = await dead_letters.find(connection, durable, sequence)
        if letter is not None:
            await dead_letters.remove(connection, letter)
            click.echo(printable(f"{durable} {sequence}: forgotten: {letter.reason}  {letter.subject}"))


async def _retry(connection: Connection, keys: list[tuple[str, int]]) -> None:
    handled = 0
    for durable, sequence in keys:
        response = await _retry_one(connection, durable, sequence)
        click.echo(printable(f"{durable} {sequence}: {response}"))
        handled += response == "done"
    if handled < len(keys):
        raise CommandError(f"{len(keys) - handled} of {len(keys)} were not handled")


async def _retry_one(connection: Connection, durable: str, sequence: int) -> str:
    """Ask a running subscriber to handle the event, and return its response."""
    from opstream_journal.stores import dead_letters

    response = await dead_letters.ask_retry(connection, durable, sequence, timeout=_TRY_TIMEOUT)
    if response is None:
        raise CommandError(f"no subscriber {durable!r} is running: start it, then try again")
    return response
