"""`opstream audit`: prints the timeline of one operation, made from its events; or the access log."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options import history as history_options
from opstream.cli.options.option import Decorator, checked, option
from opstream.cli.options.value_types import resolve_moment
from opstream.terminal.access_log_text import access_heading, access_row
from opstream.terminal.console import EXIT_INTERRUPTED, CommandError, line_width, printable, shown_json, supports_colour
from opstream.terminal.progress_bar import StreamProgress
from opstream.terminal.table import text_beside
from opstream.terminal.timeline_text import NAME_WIDTH, timeline_json, timeline_lines
from opstream_schemas.logs.access_log import encode_access_record
from opstream_schemas.names import check_operation_id
from opstream_schemas.operation.forced_end import OperationMessage
from opstream_schemas.subjects import OPERATIONS_STREAM
from opstream_schemas.timeline import Timeline, build_timeline
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream.history.access_log_reader import AccessQuery
    from opstream.history.event_reader import HistoryQuery
    from opstream_journal import Connection, Journal
    from opstream_schemas.integrity.setback import Loss


_LOSS_STEPS: Final = (
    "'opstream verify' says what else is gone, and the status endpoint what the view still knows (docs/running.md, "
    "When the journal has lost events)"
)


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream audit`."""

    query: HistoryQuery
    """Its filter names the operation; the rest says where to search for it."""
    is_json: bool
    is_whole: bool
    """Print input and result whole."""
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""

    @property
    def operation_id(self) -> str:
        """The operation to audit."""
        return self.query.event_filter.operation_id


class AccessLogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream audit --access`."""

    query: AccessQuery
    is_json: bool
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


def _optional_id(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    return "" if value is None else str(checked(check_operation_id)(ctx, param, value))


_access_option: Final[Decorator[Any]] = option(
    "--access",
    "is_access",
    variable="ACCESS",
    is_flag=True,
    help="Instead of an operation: what was denied over HTTP, and what administrators did (docs/audit.md). A table on "
    "a terminal, otherwise one JSON object per line.",
)
_caller_option: Final[Decorator[Any]] = option(
    "--caller",
    variable="CALLER",
    default="",
    metavar="NAME",
    help="With --access, only the records of this caller: its subject, TENANT/SUBJECT, id of a key, or address.",
)


@click.command
@click.argument("operation", metavar="[ID]", callback=_optional_id, type=str, required=False)
@_access_option
@_caller_option
@history_options.timeline_options
@history_options.with_data_option
@history_options.audit_json_option
@common_options.nats_option
@common_options.connect_timeout_option
def audit(
    *,
    is_access: bool,
    caller: str,
    is_json: bool,
    is_whole: bool,
    servers: tuple[str, ...],
    credentials: BrokerCredentials,
    connect_timeout: float,
    **given: Any,  # noqa: ANN401
) -> None:
    """Print the timeline of the operation ID: who submitted it, each attempt and its runner, how long each phase took.

    It comes from the broker's journal, or with --from-archive from the archive, which is searched from --since on (a
    time before the operation began). The exit status is 1 if there is no such operation, if its events are not those
    that were recorded, or if the journal has lost one of them.

    With --access and without an ID it prints the access log, oldest first: one record for the denials of one caller,
    for one reason, in one minute; and each act of an administrator.

    \b
    Example:
      opstream audit 019abc12-3456-7890-abcd-ef0123456789 --json | jq .seconds
      opstream audit --access --since 1h
    """
    if is_access:
        given |= {"is_whole": is_whole}
        print_access_log(
            AccessLogSettings(
                query=_access_query(given, caller),
                is_json=is_json,
                servers=servers,
                credentials=credentials,
                connect_timeout=connect_timeout,
            )
        )
        return
    if not given["operation"] or caller:
        raise click.UsageError(
            "--caller is for the access log: add --access, or leave it out"
            if caller
            else "it needs the ID of an operation; or --access for what was denied and what administrators did"
        )
    if not given["is_archive"] and (given["since"] or given["until"] or given["action"] != ("*", "*")):
        raise click.UsageError(
            "--since, --until and --action are for the archive: add --from-archive, or leave them out"
        )
    given |= {"resource": "", "types": (), "first": None}
    query = history_options.history_query(datetime.now(UTC), given)
    print_timeline(
        AuditSettings(
            query=query,
            is_json=is_json,
            is_whole=is_whole,
            servers=servers,
            credentials=credentials,
            connect_timeout=connect_timeout,
        )
    )


def print_timeline(settings: AuditSettings) -> None:
    """Print the timeline of the operation.

    Raises:
        CommandError: there is no such operation; or its messages are not those that were recorded, or the journal has
            lost one of them, and the timeline was printed before; or as `broker_session`.
        SystemExit: Ctrl-C was pressed.
    """
    operation_id = settings.operation_id
    try:
        messages, loss = asyncio.run(_read(settings))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    lost = f"the journal has lost events of operation {operation_id} ({loss}); {_LOSS_STEPS}"
    if not messages:
        if loss is not None:
            raise CommandError(lost)
        where = "archive" if settings.query.is_archive else "journal"
        hint = "" if settings.query.is_archive else "; the archive may have it: --from-archive"
        raise CommandError(f"the {where} has no operation {operation_id}, or its events have expired{hint}")
    timeline = build_timeline(operation_id, messages, datetime.now(UTC))
    _print(timeline, settings)
    if not timeline.chain.is_intact or timeline.foreign:
        raise CommandError(f"operation {operation_id} has messages that are not those that were recorded for it")
    if loss is not None:
        raise CommandError(lost)


def _access_query(given: dict[str, Any], caller: str) -> AccessQuery:
    from opstream.history.access_log_reader import AccessQuery

    if given["operation"] or given["is_archive"] or given["action"] != ("*", "*") or given["is_whole"]:
        raise click.UsageError("--access takes neither an ID nor --from-archive, --action or --with-data: leave it out")
    now = datetime.now(UTC)
    since, until = resolve_moment(given["since"], now), resolve_moment(given["until"], now)
    if since is not None and until is not None and since >= until:
        raise click.UsageError(f"--since {since.isoformat()} is not before --until {until.isoformat()}")
    return AccessQuery(since=since, until=until, caller=caller)


def print_access_log(settings: AccessLogSettings) -> None:
    """Print the access log: a table on a terminal, otherwise one JSON object per line.

    Raises:
        CommandError: the broker has no access log; or as `broker_session`.
        SystemExit: Ctrl-C was pressed.
    """
    try:
        asyncio.run(_show_access_log(settings))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


async def _show_access_log(settings: AccessLogSettings) -> None:
    from opstream.cli.broker_session import broker_session
    from opstream.history.access_log_reader import read_access_log

    is_table = sys.stdout.isatty() and not settings.is_json
    width = line_width(sys.stdout)
    has_records = False
    session = broker_session(settings.servers, "audit", settings.connect_timeout, credentials=settings.credentials)
    async with session as connection:
        records = read_access_log(connection, settings.query, _print_notice)
        async with contextlib.aclosing(records):
            async for record in records:
                if is_table and not has_records:
                    click.echo(access_heading(width))
                has_records = True
                click.echo(access_row(record, width) if is_table else shown_json(encode_access_record(record)))
    if not has_records:
        click.echo("opstream: the access log has no such record", err=True)


def _print_notice(text: str) -> None:
    click.echo(printable(text), err=True)


async def _read(settings: AuditSettings) -> tuple[list[OperationMessage], Loss | None]:
    """Read all messages of the operation, and where the journal lacks one that the view knows of."""
    from opstream.cli.broker_session import broker_session
    from opstream_journal import Journal
    from opstream_journal.jetstream.scans.stream_scan import stream_bounds

    async with broker_session(
        settings.servers, "audit", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        if settings.query.is_archive:
            return await _read_archive(connection, settings.query), None
        await stream_bounds(connection, OPERATIONS_STREAM)  # the error without a stream says what to do
        journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)
        await journal.start()
        messages = await journal.messages(settings.operation_id)
        return messages, await _loss(connection, journal, settings.operation_id)


async def _loss(connection: Connection, journal: Journal, operation_id: str) -> Loss | None:
    """Ask the view, if there is one, for what the journal has lost of the operation."""
    from opstream.cli.view_session import utc_now
    from opstream_journal import BrokerRefused
    from opstream_journal.jetstream.rpc import STREAM_NOT_FOUND
    from opstream_journal.stores.snapshots import RawSnapshots
    from opstream_projector.consistency.entry_check import EntryReader

    try:
        reading = await EntryReader(connection, journal, RawSnapshots(connection), now=utc_now).read(operation_id)
    except BrokerRefused as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        return None  # there is no view
    return reading.loss


async def _read_archive(connection: Connection, query: HistoryQuery) -> list[OperationMessage]:
    """All messages of an operation in the archive, whose subjects don't name operations."""
    from opstream.history.event_reader import EventReader

    messages = []
    with StreamProgress("messages of the archive", is_plain=True) as progress:
        reader = EventReader(connection, query, lambda text: progress.print_line(printable(text)))
        async for batch in reader.batches():
            messages += [OperationMessage(event.message.sequence, event.message.data) for event in batch]
            progress.advance(reader.first_sequence, reader.next_sequence, reader.last_sequence)
    return messages


def _print(timeline: Timeline, settings: AuditSettings) -> None:
    if settings.is_json:
        document = timeline_json(timeline, is_whole=settings.is_whole)
        is_terminal = sys.stdout.isatty()
        click.echo(shown_json(msgspec.json.format(document, indent=2) if is_terminal else document))
        return
    has_colour = supports_colour(sys.stdout)
    width = None if settings.is_whole else line_width(sys.stdout)  # whole documents are there to be copied
    for name, text in timeline_lines(timeline, is_whole=settings.is_whole, has_colour=has_colour):
        click.echo(text_beside(f"{name:<{NAME_WIDTH}}", text, width), color=has_colour or None)
