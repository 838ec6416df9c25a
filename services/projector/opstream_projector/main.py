"""Composition root of the projector: settings in, a running process out. Called by the `opstream` command."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from datetime import UTC, datetime
from typing import Final, Protocol

import uuid_utils
import uvloop

from opstream_journal import Journal, Link, View, connect, insist
from opstream_journal.carrying import Carrier
from opstream_journal.health import HealthServer, listen
from opstream_journal.holds import Holds
from opstream_journal.provision import check
from opstream_journal.together import stop, together

from .deadlines import DeadlineArmer, Overdue
from .projector import Projector
from .releases import Releases
from .settings import Settings
from .trail import Trail

logger = logging.getLogger(__name__)

_SOURCE: Final = "opstream/projector"


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
    """Keep the view up to date, and deadlines, until SIGTERM or SIGINT.

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
    signaled = asyncio.create_task(asked.wait(), name="signal")
    await asyncio.wait({work, signaled}, return_when=asyncio.FIRST_COMPLETED)
    signaled.cancel()
    if asked.is_set():
        logger.info("stopping")
        await stop(work)
    if not work.cancelled():
        await work


async def _project(settings: Settings) -> None:
    sock = listen("0.0.0.0", settings.health_port, "--health-port") if settings.health_port else None  # noqa: S104 - probes come from other hosts
    parts: list[Part] = []
    health = HealthServer(sock, lambda: bool(parts) and all(part.is_ready for part in parts)) if sock else None
    if health is not None:
        health.start()
    try:
        link = await connect(settings.servers, "opstream-projector", connect_timeout=settings.connect_timeout)
        try:
            max_msg_size = await insist(link, lambda: check(link), settings.connect_timeout)
            journal = Journal(link, max_msg_size=max_msg_size, clock=time.monotonic)
            await journal.start()
            holds = Holds(link, journal)
            await holds.start()
            parts += _compose(link, journal, holds)
            logger.info("projecting")
            await together(*(part.run() for part in parts))
        finally:
            await link.close()
    finally:
        if health is not None:
            await health.stop()


def _compose(link: Link, journal: Journal, holds: Holds) -> list[Part]:
    armer = DeadlineArmer(link)
    carrier = Carrier(journal=journal, source=_SOURCE, now=_utc_now, monotonic=time.monotonic, new_id=_new_id)
    return [
        Projector(link, journal, View(link), now=_utc_now, monotonic=time.monotonic, effects=[armer, Releases(holds)]),
        Trail(link, journal, armer.ended, now=_utc_now, monotonic=time.monotonic),
        Overdue(link, carrier),
    ]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid_utils.uuid7())
