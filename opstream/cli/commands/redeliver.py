"""`opstream redeliver`: has deliveries that failed tried again, now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
import msgspec

from opstream.cli.options import common as options
from opstream.cli.options import webhooks as webhook_options
from opstream.terminal.console import CommandError, printable
from opstream_journal import Connection, JournalError, connect
from opstream_journal.jetstream.stream_scan import scan_stream
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.names import Kind
from opstream_schemas.webhook_delivery import (
    CALLBACK_ENDPOINT,
    DeliveryAttempt,
    DeliveryOutcome,
    WebhookDelivery,
    decode_delivery_attempt,
)

_CLOCK_MARGIN: Final = timedelta(days=1)
"""A moment that is over by the broker's clock as well, however far ahead the one of this machine is."""


class RedeliverSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream redeliver`."""

    operation_ids: tuple[str, ...]
    """Empty: of all operations."""
    endpoint: str | None
    """None: to all endpoints."""
    now: datetime
    """With zone."""
    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""


@click.command(short_help="Send again what was not delivered.")
@webhook_options.ids_argument
@webhook_options.endpoint_option
@options.nats_option
@options.connect_timeout_option
def redeliver(**given: Any) -> None:  # noqa: ANN401
    """Have deliveries that failed tried again now, with all their tries before them: those of the operations ID, or,
    without any, all of --endpoint.

    What was given up counts, and what waits for its next try; not what was delivered in the end. Receivers know
    repetitions by their 'webhook-id', which stays the same. 'opstream webhooks' must run, and makes the deliveries.

    \b
    Example:
      opstream redeliver --endpoint billing
    """
    if not given["operation_ids"] and not given["endpoint"]:
        raise click.UsageError("say what to send again: ids of operations, or --endpoint NAME for all of an endpoint")

    redeliver_failed(RedeliverSettings(now=datetime.now(UTC), **given))


def redeliver_failed(settings: RedeliverSettings) -> None:
    """Send again what was not delivered, and print what.

    Raises:
        Failure: something can't be sent again, or the broker did not answer.
    """
    try:
        asyncio.run(_run(settings))
    except JournalError as error:
        raise CommandError(str(error)) from error


async def _run(settings: RedeliverSettings) -> None:
    link = await connect(settings.servers, "opstream-redeliver", connect_timeout=settings.connect_timeout)
    try:
        deliveries = DeliveryStore(link)
        sent = failed = 0
        async for attempt in _undelivered_attempts(link, deliveries, settings):
            try:
                await deliveries.schedule(
                    await _renewed_delivery(deliveries, attempt, settings.now), settings.now - _CLOCK_MARGIN
                )
            except InvalidEvent as error:
                failed += 1
                click.echo(f"{attempt.operation_id} {attempt.endpoint}: {printable(str(error))}", err=True)
            else:
                sent += 1
                click.echo(f"{attempt.operation_id} {attempt.endpoint}: sent again")
    finally:
        await link.close()
    if failed:
        raise CommandError(f"{failed} of {sent + failed} can't be sent again: see above")
    if not sent:
        click.echo("nothing is recorded there that failed and was not delivered since", err=True)


async def _undelivered_attempts(
    link: Connection, deliveries: DeliveryStore, settings: RedeliverSettings
) -> AsyncIterator[DeliveryAttempt]:
    """A failed attempt of each delivery that never succeeded."""
    filters = [
        subjects.delivery_records_filter(operation_id, settings.endpoint or "*", outcome)
        for operation_id in dict.fromkeys(settings.operation_ids or ("*",))
        for outcome in (DeliveryOutcome.RETRYING, DeliveryOutcome.GAVE_UP)
    ]
    seen: set[tuple[str, str]] = set()
    async with contextlib.aclosing(scan_stream(link, subjects.DELIVERIES_STREAM, filters=filters)) as batches:
        async for batch in batches:
            for record in batch:
                try:
                    attempt = decode_delivery_attempt(record.data)
                except InvalidEvent as error:
                    click.echo(f"record {record.sequence} is passed over: {printable(str(error))}", err=True)
                    continue
                key = attempt.operation_id, attempt.endpoint
                if key not in seen and not await deliveries.is_delivered(attempt):
                    yield attempt
                seen.add(key)


async def _renewed_delivery(deliveries: DeliveryStore, attempt: DeliveryAttempt, now: datetime) -> WebhookDelivery:
    """The delivery of an attempt, with all its tries before it.

    Raises:
        InvalidEvent: the journal does not hold what it needs any more.
    """
    kind = Kind.parse(attempt.action)
    sequence = await deliveries.outcome_sequence(attempt.operation_id, kind, attempt.event)
    callback = (
        await deliveries.callback_url(attempt.operation_id, kind) if attempt.endpoint == CALLBACK_ENDPOINT else ""
    )
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
    )
