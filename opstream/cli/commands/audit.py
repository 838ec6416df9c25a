"""`opstream audit`: finds one operation's events and tells its life."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from opstream.cli.options import common as service_options
from opstream.cli.options import history as options
from opstream.cli.options.option import checked
from opstream.history.event_reader import EventReader, HistoryQuery
from opstream.terminal.console import EXIT_INTERRUPTED, CommandError, line_width, printable, supports_colour
from opstream.terminal.progress_bar import StreamProgress
from opstream.terminal.table import text_beside
from opstream.terminal.timeline_text import NAME_WIDTH, timeline_json, timeline_lines
from opstream_journal import Connection, Journal, JournalError, connect
from opstream_journal.jetstream.stream_scan import stream_bounds
from opstream_schemas.names import check_operation_id
from opstream_schemas.operation.forced_end import OperationMessage
from opstream_schemas.subjects import OPERATIONS_STREAM
from opstream_schemas.timeline import Timeline, build_timeline


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream audit`."""

    wanted: HistoryQuery
    """Where to look; its selection names the operation."""
    is_json: bool
    is_whole: bool
    """Whether to print input and result whole."""
    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""

    @property
    def operation_id(self) -> str:
        """Whose life."""
        return self.wanted.selection.operation_id


@click.command(short_help="Tell the life of one operation.")
@click.argument("operation", metavar="ID", callback=checked(check_operation_id), type=str)
@options.timeline_options
@options.with_data_option
@options.audit_json_option
@service_options.nats_option
@service_options.connect_timeout_option
def audit(*, is_json: bool, is_whole: bool, servers: tuple[str, ...], connect_timeout: float, **given: Any) -> None:  # noqa: ANN401
    """Tell the life of the operation ID: who asked, each attempt and its runner, and how long each phase took.

    From the broker's journal, or with --from-archive from the archive, which has to be looked through from --since on
    (before the operation began). The exit status is 1 if there is no such operation, or if its events are not those
    that were recorded.

    \b
    Example:
      opstream audit 019abc12-3456-7890-abcd-ef0123456789 --json | jq .seconds
    """
    if not given["is_archive"] and (given["since"] or given["until"] or given["action"] != ("*", "*")):
        raise click.UsageError(
            "--since, --until and --action are for the archive: add --from-archive, or leave them out"
        )
    given |= {"resource": "", "types": (), "first": None}
    wanted = options.history_query(datetime.now(UTC), given)
    print_timeline(
        AuditSettings(
            wanted=wanted, is_json=is_json, is_whole=is_whole, servers=servers, connect_timeout=connect_timeout
        )
    )


def print_timeline(settings: AuditSettings) -> None:
    """Print the operation's life.

    Raises:
        Failure: there is no such operation; or what lies there is not as it was recorded, which is printed before.
    """
    operation_id = settings.operation_id
    try:
        messages = asyncio.run(_read_messages(settings))
    except JournalError as error:
        raise CommandError(printable(str(error))) from error
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    if not messages:
        where = "archive" if settings.wanted.is_archive else "journal"
        hint = "" if settings.wanted.is_archive else "; the archive may have it: --from-archive"
        raise CommandError(f"the {where} has no operation {operation_id}, or its events have expired{hint}")
    told = build_timeline(operation_id, messages, datetime.now(UTC))
    try:
        _print(told, settings)
    except BrokenPipeError:
        # Who has read enough is told by the exit status all the same, and Python at its end has nothing to complain of.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not told.chain.is_intact or told.foreign:
        raise CommandError(
            f"what lies on the subjects of operation {operation_id} is not only what was recorded for it"
        )


async def _read_messages(settings: AuditSettings) -> list[OperationMessage]:
    link = await connect(settings.servers, "opstream-audit", connect_timeout=settings.connect_timeout)
    try:
        if settings.wanted.is_archive:
            return await _read_archive(link, settings.wanted)
        await stream_bounds(link, OPERATIONS_STREAM)  # says what to do where there is none
        journal = Journal(link, max_msg_size=-1, clock=time.monotonic)
        await journal.start()
        return await journal.messages(settings.operation_id)
    finally:
        await link.close()


async def _read_archive(link: Connection, wanted: HistoryQuery) -> list[OperationMessage]:
    """Everything of an operation in the archive, whose subjects don't name it."""
    found = []
    with StreamProgress("messages of the archive", is_plain=True) as progress:
        walk = EventReader(link, wanted, lambda text: progress.print_line(printable(text)))
        async for batch in walk.batches():
            found += [OperationMessage(one.message.sequence, one.message.data) for one in batch]
            progress.advance(walk.first_sequence, walk.next_sequence, walk.last_sequence)
    return found


def _print(told: Timeline, settings: AuditSettings) -> None:
    if settings.is_json:
        found = timeline_json(told, is_whole=settings.is_whole)
        is_for_a_person = sys.stdout.isatty()
        click.echo((msgspec.json.format(found, indent=2) if is_for_a_person else found).decode())
        return
    is_on = supports_colour(sys.stdout)
    columns = None if settings.is_whole else line_width(sys.stdout)  # whole documents are there to be copied
    for name, text in timeline_lines(told, is_whole=settings.is_whole, is_on=is_on):
        click.echo(text_beside(f"{name:<{NAME_WIDTH}}", text, columns), color=is_on or None)
