"""Composition root of the projector: settings in, a running process out. Called by the `opstream` command."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from datetime import UTC, datetime

import uvloop

from opstream_journal import Journal, View, connect, insist
from opstream_journal.health import HealthServer, listen
from opstream_journal.link import end_task
from opstream_journal.provision import check

from .projector import Projector
from .settings import Settings

logger = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Keep the view up to date until SIGTERM or SIGINT.

    Raises:
        JournalError: the broker can't be reached, lacks something or differs, the health port is taken, or the
            consumer was deleted.
    """
    uvloop.run(_run_until_signal(settings))


async def _run_until_signal(settings: Settings) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    work = asyncio.create_task(_project(settings), name="projector")
    stop = asyncio.create_task(asked.wait(), name="signal")
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if asked.is_set():
        logger.info("stopping")
        await end_task(work)
    if not work.cancelled():
        await work


async def _project(settings: Settings) -> None:
    sock = listen("0.0.0.0", settings.health_port, "--health-port") if settings.health_port else None  # noqa: S104 - probes come from other hosts
    projector: Projector | None = None
    health = HealthServer(sock, lambda: projector is not None and projector.is_ready) if sock else None
    if health is not None:
        health.start()
    try:
        link = await connect(settings.servers, "opstream-projector", connect_timeout=settings.connect_timeout)
        try:
            max_msg_size = await insist(link, lambda: check(link), settings.connect_timeout)
            journal = Journal(link, max_msg_size=max_msg_size, clock=time.monotonic)
            await journal.start()
            projector = Projector(link, journal, View(link), now=_utc_now, monotonic=time.monotonic)
            logger.info("projecting")
            await projector.run()
        finally:
            await link.close()
    finally:
        if health is not None:
            await health.stop()


def _utc_now() -> datetime:
    return datetime.now(UTC)
