"""`opstream redeliver`: schedules failed deliveries again, for now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options import webhooks as webhook_options
from opstream.terminal.console import CommandError, printable
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials
from opstream_schemas.webhook_delivery import DeliveryAttempt, DeliveryOutcome, decode_delivery_attempt

if TYPE_CHECKING:
    from opstream_journal import Connection
    from opstream_journal.stores.webhook_deliveries import DeliveryStore


class RedeliverSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream redeliver`."""

    operation_ids: tuple[str, ...]
    """Empty for all operations."""
    endpoint: str | None
    """None for all endpoints."""
    now: datetime
    """With zone."""
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


@click.command
@webhook_options.ids_argument
@webhook_options.endpoint_option
@common_options.nats_option
@common_options.connect_timeout_option
def redeliver(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Try failed deliveries again now, with all tries that a new delivery has: those of the operations ID, or without
    any ID all of --endpoint.

    A delivery has failed if it was given up, or if its last try failed and the next one is due later; not if it
    succeeded in the end. Receivers recognize repetitions by the 'webhook-id', which stays the same. 'opstream webhooks'
    must run: it makes the deliveries. The exit status is 1 if there is no operation of an ID.

    \b
    Example:
      opstream redeliver --endpoint billing
    """
    if not given["operation_ids"] and not given["endpoint"]:
        raise click.UsageError("say what to send again: ids of operations, or --endpoint NAME for all of an endpoint")
    redeliver_failed(RedeliverSettings(now=datetime.now(UTC), **given))


def redeliver_failed(settings: RedeliverSettings) -> None:
    """Schedule the failed deliveries again, and print each.

    Raises:
        CommandError: a delivery can't be sent again; or as `broker_session`.
    """
    asyncio.run(_redeliver(settings))


async def _redeliver(settings: RedeliverSettings) -> None:
    from opstream.cli.broker_session import broker_session, unknown_operations
    from opstream_journal.stores.webhook_deliveries import DeliveryStore

    sent = failed = 0
    seen: set[str] = set()
    async with broker_session(
        settings.servers, "redeliver", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        deliveries = DeliveryStore(connection)
        async for attempt in _undelivered_attempts(connection, deliveries, settings):
            seen.add(attempt.operation_id)
            try:
                await deliveries.send_again(attempt, settings.now)
            except InvalidEvent as error:
                failed += 1
                click.echo(f"{attempt.operation_id} {attempt.endpoint}: {printable(str(error))}", err=True)
            else:
                sent += 1
                click.echo(f"{attempt.operation_id} {attempt.endpoint}: sent again")
        unknown = await unknown_operations(connection, set(settings.operation_ids) - seen)
    if failed:
        raise CommandError(f"{failed} of {sent + failed} can't be sent again: see above")
    if unknown:
        raise CommandError(
            f"there is no operation {', '.join(unknown)}, or its events have expired: 'opstream deliveries --failed' "
            "shows what was not delivered"
        )
    if not sent:
        click.echo("no failed delivery is recorded there that was not delivered since", err=True)


async def _undelivered_attempts(
    connection: Connection, deliveries: DeliveryStore, settings: RedeliverSettings
) -> AsyncIterator[DeliveryAttempt]:
    """A failed attempt of each delivery that never succeeded."""
    from opstream_journal.jetstream.scans.stream_scan import scan_stream

    filters = [
        subjects.delivery_records_filter(operation_id, settings.endpoint or "*", outcome)
        for operation_id in dict.fromkeys(settings.operation_ids or ("*",))
        for outcome in (DeliveryOutcome.RETRYING, DeliveryOutcome.GAVE_UP)
    ]
    seen: set[tuple[str, str]] = set()
    async with contextlib.aclosing(scan_stream(connection, subjects.DELIVERIES_STREAM, filters=filters)) as batches:
        async for batch in batches:
            for record in batch:
                try:
                    attempt = decode_delivery_attempt(record.data)
                except InvalidEvent as error:
                    click.echo(f"record {record.sequence} is skipped: {printable(str(error))}", err=True)
                    continue
                key = attempt.operation_id, attempt.endpoint
                if key not in seen and not await deliveries.is_delivered(attempt):
                    yield attempt
                seen.add(key)
