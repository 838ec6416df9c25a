"""Composition root of the webhooks service: from settings to a running process."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from datetime import UTC, datetime
from functools import partial
from typing import Final

import uvloop

from opstream_journal import Connection
from opstream_journal.metrics.page import Metrics
from opstream_journal.runtime.service import ServiceLoop, run_service, run_until_set, run_until_signal
from opstream_journal.stores.webhook_deliveries import DeliveryStore
from opstream_schemas.broker_access.permissions import Role

from .address_guard import resolve_by_system
from .config import ReloadableConfig
from .delivery_meter import DeliveryMeter
from .delivery_worker import DeliveryWorker
from .fanout import Fanout
from .http_sender import HttpSender
from .receiver_limits import ReceiverLimits
from .redelivery import RedeliveryDesk
from .settings import Settings

ATTEMPT_SECONDS: Final = 15.0
"""Seconds that a whole attempt may take. Receivers expect 15 to 30 s (Standard Webhooks)."""


def run(settings: Settings) -> None:
    """Deliver outcomes until SIGTERM or SIGINT. SIGHUP reloads endpoints and secrets.

    Raises:
        InvalidConfig: endpoints or secrets can't be used.
        JournalError: the broker can't be reached, something on it is missing or configured differently, the health port
            is in use, or a consumer was deleted.
    """
    config = ReloadableConfig(settings.source)
    uvloop.run(run_until_signal(partial(serve, settings, config), on_hangup=config.reload))


async def serve(settings: Settings, config: ReloadableConfig, stopping: asyncio.Event) -> None:
    """Deliver outcomes, in the running loop and until the event is set; as `run`."""
    # It logs complete URLs, and a query may contain a secret.
    logging.getLogger("httpcore").setLevel(logging.WARNING)

    metrics = Metrics()

    async def compose(connection: Connection, _max_msg_size: int) -> list[ServiceLoop]:
        config.log()
        deliveries = DeliveryStore(connection)
        meter = DeliveryMeter(connection, lambda: config.current.hooks)
        if settings.health_port:
            await meter.start()
            metrics.add(*meter.instruments)
            metrics.refresh_with(meter.read, *meter.gauges)
        fanout = Fanout(connection, deliveries, config, now=_utc_now, monotonic=time.monotonic)
        worker = DeliveryWorker(
            connection,
            deliveries,
            config,
            HttpSender(resolve_by_system, settings.allowed_networks, seconds=ATTEMPT_SECONDS),
            ReceiverLimits(time.monotonic, random.random),
            meter=meter,
            now=_utc_now,
            monotonic=time.monotonic,
            jitter=random.random,
            tracing=settings.tracing,
        )
        return [fanout, worker, RedeliveryDesk(connection, deliveries, now=_utc_now)]

    work = run_service(
        "opstream-webhooks",
        compose,
        role=Role.WEBHOOKS,
        servers=settings.servers,
        credentials=settings.credentials,
        connect_timeout=settings.connect_timeout,
        health_host=settings.health_host,
        health_port=settings.health_port,
        metrics=metrics,
    )
    await run_until_set(stopping, work)


def _utc_now() -> datetime:
    return datetime.now(UTC)
