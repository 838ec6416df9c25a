"""What `opstream audit` does: finds one operation's events and tells its life. Called by `auditors`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import UTC, datetime

import click
import msgspec

from opstream.history.event_reader import Walk
from opstream.history.wanted import Wanted
from opstream.terminal.console import INTERRUPTED, Failure, is_coloured, printable, room
from opstream.terminal.progress import Progress
from opstream.terminal.table import beside
from opstream.terminal.timeline_text import WIDTH, document, lines
from opstream_journal import Journal, JournalError, Link, connect
from opstream_journal.jetstream.stream_scan import edges
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


def audit(settings: Audit) -> None:
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
