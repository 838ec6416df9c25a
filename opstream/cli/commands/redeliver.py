"""`opstream redeliver`: schedules failed deliveries again, for now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options import webhooks as webhook_options
from opstream.terminal.console import CommandError, printable
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.names import Kind
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials
from opstream_schemas.webhook_delivery import (
    CALLBACK_ENDPOINT,
    DeliveryAttempt,
    DeliveryOutcome,
    WebhookDelivery,
    decode_delivery_attempt,
)

if TYPE_CHECKING:
    from opstream_journal import Connection
    from opstream_journal.stores.webhook_deliveries import DeliveryStore

_CLOCK_MARGIN: Final = timedelta(days=1)
"""By which the clock of this machine may be ahead of the broker's: the new try is due by both."""


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
                delivery = await _renewed_delivery(deliveries, attempt, settings.now)
                await deliveries.schedule(delivery, settings.now - _CLOCK_MARGIN)
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
    from opstream_journal.jetstream.stream_scan import scan_stream

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


async def _renewed_delivery(deliveries: DeliveryStore, attempt: DeliveryAttempt, now: datetime) -> WebhookDelivery:
    """The delivery of an attempt, with as many tries as a new one.

    Raises:
        InvalidEvent: the journal does not hold the events any more that it needs.
    """
    kind = Kind.parse(attempt.action)
    sequence = await deliveries.outcome_sequence(attempt.operation_id, kind, attempt.event)
    callback, own_id = "", ""
    if attempt.endpoint == CALLBACK_ENDPOINT:
        callback, own_id = await deliveries.callback(attempt.operation_id, kind)
    if sequence is None or (attempt.endpoint == CALLBACK_ENDPOINT and not callback):
        raise InvalidEvent("its events have expired")
    return WebhookDelivery(
        operation_id=attempt.operation_id,
        action=attempt.action,
        event=attempt.event,
        sequence=sequence,
        endpoint=attempt.endpoint,
        callback=callback,
        begun=now,
        own_id=own_id,
    )
