"""`opstream parked`: shows what subscribers have parked, has it tried again, or removes it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import click
import msgspec

from opstream.cli.options import common as options
from opstream.cli.options.option import option
from opstream.terminal.console import CommandError, line_width, printable
from opstream.terminal.table import text_below
from opstream_journal import Connection, JournalError, JournalUnavailable, connect
from opstream_journal.jetstream.rpc import call
from opstream_journal.stores import dead_letters as parking
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import check_durable_name
from opstream_schemas.subjects import dead_letter_retry_subject

_MAX_SEQUENCE: Final = 2**63 - 1
_TRY_TIMEOUT: Final = 60.0
"""Seconds that one try may take."""
_HEADING: Final = f"{'durable':<24}  {'sequence':>10}  {'reason':<16}  {'deliveries':>10}"


class ParkedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream parked`."""

    durable: str | None
    """None for all."""
    sequences: tuple[int, ...]
    """Empty for all of the durable."""
    is_retry: bool
    is_forgetting: bool
    is_json: bool
    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""


class _DeadLetterLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
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
    help="Have a running subscriber try them again, one after the other; what succeeds is parked no more.",
)
forget_option = option(
    "--forget",
    "is_forgetting",
    variable="FORGET",
    is_flag=True,
    help="Remove them for good. In the journal the events stay.",
)
json_option = option(
    "--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal."
)


@click.command(short_help="Show events that subscribers could not handle.")
@click.argument("durable", metavar="[DURABLE]", required=False, callback=_check_durable)
@click.argument(
    "sequences", metavar="[SEQUENCE]...", nargs=-1, type=click.IntRange(1, _MAX_SEQUENCE), callback=_without_duplicates
)
@retry_option
@forget_option
@json_option
@options.nats_option
@options.connect_timeout_option
def parked(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Show the events that subscribers could not handle: all, those of DURABLE, or just some of its SEQUENCEs.

    A table on a terminal, otherwise one JSON object per line. With --retry they are tried again, and the exit status
    is 1 if one stays parked. It is 1, too, if nothing is parked under one of the SEQUENCEs.

    \b
    Example:
      opstream parked
      opstream parked mailer 1234 --retry
      opstream parked mailer 1235 1240 --forget
    """
    if given["is_retry"] and given["is_forgetting"]:
        raise click.UsageError("--retry and --forget are two ways to be rid of an event: choose one")
    if (given["is_retry"] or given["is_forgetting"]) and not given["durable"]:
        name = "--retry" if given["is_retry"] else "--forget"
        raise click.UsageError(f"{name} needs the durable, e.g. 'opstream parked mailer {name}'")
    run_parked(ParkedSettings(**given))


def run_parked(settings: ParkedSettings) -> None:
    """Print what is parked, or what came of trying it again or of removing it.

    Raises:
        Failure: something stays parked, is not there, or the broker did not answer.
    """
    try:
        asyncio.run(_run(settings))
    except JournalError as error:
        raise CommandError(str(error)) from error


async def _run(settings: ParkedSettings) -> None:
    link = await connect(settings.servers, "opstream-parked", connect_timeout=settings.connect_timeout)
    try:
        wanted = await _select(link, settings)
        if settings.is_retry:
            await _retry(link, wanted)
        elif settings.is_forgetting:
            await _forget(link, wanted)
        else:
            await _show(link, wanted, is_table=sys.stdout.isatty() and not settings.is_json)
    finally:
        await link.close()


async def _select(link: Connection, settings: ParkedSettings) -> list[tuple[str, int]]:
    is_there = await parking.exists(link)
    found = await parking.keys(link, settings.durable) if is_there else []
    # Before anything is done: a list with a slip of the pen in it is not what was meant.
    if missing := sorted(set(settings.sequences) - {sequence for _, sequence in found}):
        numbers = ", ".join(map(str, missing))
        raise CommandError(f"nothing of {settings.durable} is parked under {numbers}: 'opstream parked' shows what is")
    if not is_there:
        _print_note("nothing was ever parked on this broker: its first subscriber makes the stream PARKED")
    elif not found:
        _print_note(f"nothing is parked{f' of {settings.durable}' if settings.durable else ''}")
    return [(str(settings.durable), sequence) for sequence in settings.sequences] or found


async def _show(link: Connection, wanted: list[tuple[str, int]], *, is_table: bool) -> None:
    is_begun = False
    for durable, sequence in wanted:
        found = await parking.find(link, durable, sequence)
        if found is None:
            continue  # somebody was quicker
        line = msgspec.convert(found, _DeadLetterLine, from_attributes=True)
        if not is_table:
            click.echo(msgspec.json.encode(line))
            continue
        if not is_begun:
            click.echo(text_below(_HEADING, "subject: detail", line_width(sys.stdout)))
        is_begun = True
        click.echo(_row(line))


def _row(line: _DeadLetterLine) -> str:
    head = f"{line.durable:<24}  {line.sequence:>10}  {line.reason:<16}  {line.deliveries:>10}"
    return text_below(printable(head), printable(f"{line.subject}: {line.detail}"), line_width(sys.stdout))


def _print_note(text: str) -> None:
    click.echo(f"opstream: {text}", err=True)


async def _forget(link: Connection, wanted: list[tuple[str, int]]) -> None:
    for durable, sequence in wanted:
        found = await parking.find(link, durable, sequence)
        if found is not None:
            await parking.remove(link, found)
            click.echo(printable(f"{durable} {sequence}: forgotten: {found.reason}  {found.subject}"))


async def _retry(link: Connection, wanted: list[tuple[str, int]]) -> None:
    done = 0
    for durable, sequence in wanted:
        answer = await _retry_one(link, durable, sequence)
        click.echo(printable(f"{durable} {sequence}: {answer}"))
        done += answer == "done"
    if done < len(wanted):
        raise CommandError(f"{len(wanted) - done} of {len(wanted)} were not handled")


async def _retry_one(link: Connection, durable: str, sequence: int) -> str:
    try:
        answer = await call(link, dead_letter_retry_subject(durable), str(sequence).encode(), timeout=_TRY_TIMEOUT)
    except JournalUnavailable as error:
        if error.maybe_stored or not link.is_connected:
            raise
        raise CommandError(f"no subscriber {durable!r} is running: start it, then try again") from error
    return answer.data.decode(errors="replace")
