"""What `opstream deliveries` does: reads the records of attempts from the broker and shows them. Called by
`webhooking`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import UTC
from typing import Final

import click
import msgspec

from opstream_journal import JournalError, connect
from opstream_journal.scan import Scanned, scan
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent, InvalidName
from opstream_schemas.names import check_operation_id
from opstream_schemas.webhooks import DeliveryAttempt, Outcome, decode_attempt

from .console import Failure, is_coloured, painted, printable

HEADING: Final = f"{'BEGAN (UTC)':<19}  {'OPERATION':<36}  {'ENDPOINT':<16} {'TRY':>3}  {'OUTCOME':<9}  DETAIL"
COLOURS: Final = {Outcome.DELIVERED: "green", Outcome.RETRYING: "yellow", Outcome.GAVE_UP: "red"}


class Show(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream deliveries`."""

    operation_id: str | None
    """None: of all operations."""
    is_failed: bool
    is_json: bool
    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""


def show(settings: Show) -> None:
    """Print the records: a table on a terminal, otherwise one JSON object per line.

    Raises:
        Failure: the broker did not give them.
        click.UsageError: the id is none.
    """
    try:
        if settings.operation_id is not None:
            check_operation_id(settings.operation_id)
    except InvalidName as error:
        raise click.UsageError(str(error)) from error
    try:
        asyncio.run(_show(settings))
    except JournalError as error:
        raise Failure(str(error)) from error


async def _show(settings: Show) -> None:
    is_table = sys.stdout.isatty() and not settings.is_json
    link = await connect(settings.servers, "opstream-deliveries", connect_timeout=settings.connect_timeout)
    try:
        is_begun = False
        async with contextlib.aclosing(scan(link, subjects.DELIVERIES_STREAM, filters=_filters(settings))) as batches:
            async for batch in batches:
                if is_table and not is_begun:
                    click.echo(HEADING)
                is_begun = True
                for record in batch:
                    _print(record, is_table=is_table)
    finally:
        await link.close()


def _filters(settings: Show) -> list[str]:
    operation_id = settings.operation_id or "*"
    if settings.is_failed:
        failed = (Outcome.RETRYING, Outcome.GAVE_UP)
        return [subjects.deliveries_filter(operation_id, outcome=outcome) for outcome in failed]
    return [subjects.deliveries_filter(operation_id)] if settings.operation_id else []


def _print(record: Scanned, *, is_table: bool) -> None:
    try:
        attempt = decode_attempt(record.data)
    except InvalidEvent as error:
        click.echo(f"record {record.sequence} is passed over: {printable(str(error))}", err=True)
        return
    if is_table:
        is_on = is_coloured(sys.stdout)
        click.echo(row(attempt, is_on=is_on), color=is_on or None)
    else:
        click.echo(msgspec.json.encode(attempt))


def row(attempt: DeliveryAttempt, *, is_on: bool) -> str:
    """One line of the table."""
    outcome = painted(f"{attempt.outcome:<9}", COLOURS[attempt.outcome], is_on=is_on)
    again = f"; next at {attempt.next_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" if attempt.next_at else ""
    said = attempt.error or f"answered {attempt.status}"
    return (
        f"{attempt.at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}  {attempt.operation_id:<36}  {attempt.endpoint:<16} "
        f"{attempt.attempt:>3}  {outcome}  {printable(said)} after {attempt.duration:.3g} s{again}"
    )
