"""`opstream deliveries`: shows the records of attempts to deliver outcomes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options import webhooks as webhook_options
from opstream.cli.options.option import option
from opstream.terminal.console import CommandError, coloured, line_width, printable, shown_json, supports_colour
from opstream.terminal.event_row import as_utc
from opstream.terminal.table import fits_beside, text_beside, text_on_second_line
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials
from opstream_schemas.webhook_delivery import DeliveryAttempt, DeliveryOutcome, decode_delivery_attempt

if TYPE_CHECKING:
    from opstream_journal.jetstream.scans.scanned_message import ScannedMessage

_WIDE_HEADING: Final = f"{'began (UTC)':<19}  {'operation':<36}  {'endpoint':<16}  {'try':>3}  {'outcome':<9}"
_NARROW_HEADING: Final = f"{'began (UTC)':<19}  {'endpoint':<16}  {'try':>3}  {'outcome':<9}"
_NARROW_HEADING_BELOW: Final = f"{'operation':<36}"
COLOURS: Final = {
    DeliveryOutcome.DELIVERED: "green",
    DeliveryOutcome.RETRYING: "yellow",
    DeliveryOutcome.GAVE_UP: "red",
}


class DeliveriesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream deliveries`."""

    operation_id: str | None
    """None for all operations."""
    is_failed: bool
    is_json: bool
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


@click.command
@webhook_options.id_argument
@option(
    "--failed",
    "is_failed",
    variable="FAILED",
    is_flag=True,
    help="Only attempts that failed, also if another attempt followed.",
)
@option("--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal.")
@common_options.nats_option
@common_options.connect_timeout_option
def deliveries(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Show every attempt to deliver an outcome, oldest first; with ID, those of one operation.

    A table on a terminal, otherwise one JSON object per line. Records are kept for 30 days.

    \b
    Example:
      opstream deliveries --failed | jq -r .operationId
    """
    print_attempts(DeliveriesSettings(**given))


def print_attempts(settings: DeliveriesSettings) -> None:
    """Print the records: a table on a terminal, otherwise one JSON object per line.

    Raises:
        CommandError: there is no such operation; or as `broker_session`.
    """
    asyncio.run(_show(settings))


async def _show(settings: DeliveriesSettings) -> None:
    from opstream.cli.broker_session import broker_session, unknown_operations
    from opstream_journal.jetstream.scans.stream_scan import scan_stream

    is_table = sys.stdout.isatty() and not settings.is_json
    has_records = False
    async with broker_session(
        settings.servers, "deliveries", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        records = scan_stream(connection, subjects.DELIVERIES_STREAM, filters=_filters(settings))
        async with contextlib.aclosing(records) as batches:
            async for batch in batches:
                if is_table and not has_records:
                    click.echo(_heading(line_width(sys.stdout)))
                has_records = True
                for record in batch:
                    _print(record, is_table=is_table)
        if settings.operation_id and not has_records and await unknown_operations(connection, [settings.operation_id]):
            raise CommandError(f"there is no operation {settings.operation_id}, or its events have expired")
    if not has_records:
        click.echo(f"opstream: {_nothing_found(settings)} in the last 30 days", err=True)


def _nothing_found(settings: DeliveriesSettings) -> str:
    where = f" of operation {settings.operation_id}" if settings.operation_id else ""
    return f"no attempt to deliver an outcome{where} {'failed' if settings.is_failed else 'was made'}"


def _filters(settings: DeliveriesSettings) -> list[str]:
    operation_id = settings.operation_id or "*"
    if settings.is_failed:
        failed = (DeliveryOutcome.RETRYING, DeliveryOutcome.GAVE_UP)
        return [subjects.delivery_records_filter(operation_id, outcome=outcome) for outcome in failed]
    return [subjects.delivery_records_filter(operation_id)] if settings.operation_id else []


def _print(record: ScannedMessage, *, is_table: bool) -> None:
    try:
        attempt = decode_delivery_attempt(record.data)
    except InvalidEvent as error:
        click.echo(f"record {record.sequence} is skipped: {printable(str(error))}", err=True)
        return
    if is_table:
        has_colour = supports_colour(sys.stdout)
        row = table_row(attempt, has_colour=has_colour, width=line_width(sys.stdout))
        click.echo(row, color=has_colour or None)
    else:
        click.echo(shown_json(msgspec.json.encode(attempt)))


def _heading(width: int | None) -> str:
    if fits_beside(_WIDE_HEADING, width):
        return f"{_WIDE_HEADING}  what"
    return text_on_second_line(_NARROW_HEADING, _NARROW_HEADING_BELOW, "what", width)


def table_row(attempt: DeliveryAttempt, *, has_colour: bool, width: int | None) -> str:
    """One attempt of the table. On a narrow terminal the operation and the description have a line of their own.

    Args:
        attempt: what the row shows.
        has_colour: whether to colour it.
        width: columns of the terminal; None for no limit.
    """
    outcome = coloured(f"{attempt.outcome:<9}", COLOURS[attempt.outcome], has_colour=has_colour)
    began = f"{as_utc(attempt.at):%Y-%m-%d %H:%M:%S}"
    again = f"; next at {as_utc(attempt.next_at):%Y-%m-%d %H:%M:%S}" if attempt.next_at else ""
    response = attempt.error or f"answered {attempt.status}"
    rest = f"{printable(attempt.endpoint):<16}  {attempt.attempt:>3}  {outcome}"
    what = f"{printable(response)} after {attempt.duration:.3g} s{again}"
    operation = f"{printable(attempt.operation_id):<36}"
    if fits_beside(_WIDE_HEADING, width):
        return text_beside(f"{began}  {operation}  {rest}", what, width)
    return text_on_second_line(f"{began}  {rest}", operation, what, width)
