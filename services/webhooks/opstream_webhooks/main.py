"""Composition root of the webhooks service: settings in, a running process out. Called by the `opstream` command."""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime
from typing import Final

import uvloop

from opstream_journal import Connection
from opstream_journal.runtime.service import ServiceLoop, run_service, run_until_signal
from opstream_journal.stores.webhook_deliveries import DeliveryStore

from .address_guard import resolve_by_system
from .config import ReloadableConfig
from .delivery_worker import DeliveryWorker
from .fanout import Fanout
from .http_sender import HttpSender
from .receiver_limits import ReceiverLimits
from .settings import Settings

ATTEMPT_SECONDS: Final = 15.0
"""Seconds that an attempt may take as a whole; what receivers expect (Standard Webhooks, 15 to 30 s)."""


def run(settings: Settings) -> None:
    """Deliver outcomes until SIGTERM or SIGINT; SIGHUP has endpoints and secrets read again.

    Raises:
        InvalidConfig: endpoints or secrets can't be used.
        JournalError: the broker can't be reached, lacks something or differs, the health port is taken, or a
            consumer was deleted.
    """
    for noisy in ("httpx", "httpcore"):
        # They log whole URLs, with what people have in the query.
        logging.getLogger(noisy).setLevel(logging.WARNING)
    hooks = ReloadableConfig(settings.source)
    uvloop.run(run_until_signal(_deliver(settings, hooks), on_hangup=hooks.reload))


async def _deliver(settings: Settings, hooks: ReloadableConfig) -> None:
    async def compose(link: Connection, _max_msg_size: int) -> list[ServiceLoop]:
        hooks.log()
        deliveries = DeliveryStore(link)
        jitter = random.random
        sender = HttpSender(resolve_by_system, settings.allowed_networks, seconds=ATTEMPT_SECONDS)
        gate = ReceiverLimits(time.monotonic, jitter)
        return [
            Fanout(link, deliveries, hooks, now=_utc_now, monotonic=time.monotonic),
            DeliveryWorker(
                link, deliveries, hooks, sender, gate, now=_utc_now, monotonic=time.monotonic, jitter=jitter
            ),
        ]

    await run_service(
        "opstream-webhooks",
        compose,
        servers=settings.servers,
        connect_timeout=settings.connect_timeout,
        health_port=settings.health_port,
    )


def _utc_now() -> datetime:
    return datetime.now(UTC)
