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
from opstream.history.event_reader import Walk, Wanted
from opstream.terminal.console import INTERRUPTED, Failure, is_coloured, printable, room
from opstream.terminal.progress_bar import Progress
from opstream.terminal.table import beside
from opstream.terminal.timeline_text import WIDTH, document, lines
from opstream_journal import Journal, JournalError, Link, connect
from opstream_journal.jetstream.stream_scan import edges
from opstream_schemas.names import check_operation_id
from opstream_schemas.operation.forced_end import Message
from opstream_schemas.subjects import OPERATIONS_STREAM
from opstream_schemas.timeline import Life, life


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream audit`."""

    wanted: Wanted
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
@options.search_options
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
    wanted = options.wanted(datetime.now(UTC), given)
    print_timeline(
        Audit(wanted=wanted, is_json=is_json, is_whole=is_whole, servers=servers, connect_timeout=connect_timeout)
    )


def print_timeline(settings: Audit) -> None:
    """Print the operation's life.

    Raises:
        Failure: there is no such operation; or what lies there is not as it was recorded, which is printed before.
    """
    operation_id = settings.operation_id
    try:
        messages = asyncio.run(_find(settings))
    except JournalError as error:
        raise Failure(printable(str(error))) from error
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if not messages:
        where = "archive" if settings.wanted.is_archive else "journal"
        hint = "" if settings.wanted.is_archive else "; the archive may have it: --from-archive"
        raise Failure(f"the {where} has no operation {operation_id}, or its events have expired{hint}")
    told = life(operation_id, messages, datetime.now(UTC))
    try:
        _print(told, settings)
    except BrokenPipeError:
        # Who has read enough is told by the exit status all the same, and Python at its end has nothing to complain of.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not told.chain.is_intact or told.foreign:
        raise Failure(f"what lies on the subjects of operation {operation_id} is not only what was recorded for it")


async def _find(settings: Audit) -> list[Message]:
    link = await connect(settings.servers, "opstream-audit", connect_timeout=settings.connect_timeout)
    try:
        if settings.wanted.is_archive:
            return await _search(link, settings.wanted)
        await edges(link, OPERATIONS_STREAM)  # says what to do where there is none
        journal = Journal(link, max_msg_size=-1, clock=time.monotonic)
        await journal.start()
        return await journal.messages(settings.operation_id)
    finally:
        await link.close()


async def _search(link: Link, wanted: Wanted) -> list[Message]:
    """Everything of an operation in the archive, whose subjects don't name it."""
    found = []
    with Progress("messages of the archive", is_plain=True) as progress:
        walk = Walk(link, wanted, lambda text: progress.tell(printable(text)))
        async for batch in walk.batches():
            found += [Message(one.message.sequence, one.message.data) for one in batch]
            progress.advance(walk.begin, walk.next_sequence, walk.end)
    return found


def _print(told: Life, settings: Audit) -> None:
    if settings.is_json:
        found = document(told, is_whole=settings.is_whole)
        is_for_a_person = sys.stdout.isatty()
        click.echo((msgspec.json.format(found, indent=2) if is_for_a_person else found).decode())
        return
    is_on = is_coloured(sys.stdout)
    columns = None if settings.is_whole else room(sys.stdout)  # whole documents are there to be copied
    for name, text in lines(told, is_whole=settings.is_whole, is_on=is_on):
        click.echo(beside(f"{name:<{WIDTH}}", text, columns), color=is_on or None)
