"""Composition root of the webhooks service: settings in, a running process out. Called by the `opstream` command."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from datetime import UTC, datetime
from typing import Final, Protocol

import uvloop

from opstream_journal import Link, connect, insist
from opstream_journal.health import HealthServer, listen
from opstream_journal.provision import check
from opstream_journal.together import stop, together
from opstream_journal.webhooks import Deliveries

from .config import InvalidConfig
from .courier import Courier
from .fanout import Fanout
from .gate import Gate
from .live import LiveHooks
from .resolving import resolve_by_system
from .sending import Sender
from .settings import Settings

__all__ = ["InvalidConfig", "Part", "run"]

ATTEMPT_SECONDS: Final = 15.0
"""Seconds that an attempt may take as a whole; what receivers expect (Standard Webhooks, 15 to 30 s)."""

logger = logging.getLogger(__name__)


class Part(Protocol):
    """One of the loops that make the process; it is of use only while all of them run."""

    @property
    def is_ready(self) -> bool:
        """Whether it does its job now."""
        ...

    async def run(self) -> None:
        """Work until cancelled."""
        ...


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
    hooks = LiveHooks(settings.source)
    uvloop.run(_run_until_signal(settings, hooks))


async def _run_until_signal(settings: Settings, hooks: LiveHooks) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    loop.add_signal_handler(signal.SIGHUP, hooks.reload)
    work = asyncio.create_task(_deliver(settings, hooks), name="webhooks")
    signaled = asyncio.create_task(asked.wait(), name="signal")
    await asyncio.wait({work, signaled}, return_when=asyncio.FIRST_COMPLETED)
    signaled.cancel()
    if asked.is_set():
        logger.info("stopping")
        await stop(work)
    if not work.cancelled():
        await work


async def _deliver(settings: Settings, hooks: LiveHooks) -> None:
    sock = listen("0.0.0.0", settings.health_port, "--health-port") if settings.health_port else None  # noqa: S104 - probes come from other hosts
    parts: list[Part] = []
    health = HealthServer(sock, lambda: bool(parts) and all(part.is_ready for part in parts)) if sock else None
    if health is not None:
        health.start()
    try:
        link = await connect(settings.servers, "opstream-webhooks", connect_timeout=settings.connect_timeout)
        try:
            await insist(link, lambda: check(link), settings.connect_timeout)
            hooks.tell()
            parts += compose(link, settings, hooks)
            await together(*(part.run() for part in parts))
        finally:
            await link.close()
    finally:
        if health is not None:
            await health.stop()


def compose(link: Link, settings: Settings, hooks: LiveHooks) -> list[Part]:
    """The parts of a process on a connection."""
    deliveries = Deliveries(link)
    jitter = random.random
    sender = Sender(resolve_by_system, settings.allowed_networks, seconds=ATTEMPT_SECONDS)
    gate = Gate(time.monotonic, jitter)
    return [
        Fanout(link, deliveries, hooks, now=_utc_now, monotonic=time.monotonic),
        Courier(link, deliveries, hooks, sender, gate, now=_utc_now, monotonic=time.monotonic, jitter=jitter),
    ]


def _utc_now() -> datetime:
    return datetime.now(UTC)
