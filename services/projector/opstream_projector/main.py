"""Composition root of the projector: settings in, a running process out. Called by the `opstream` command."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Final

import uuid_utils
import uvloop

from opstream_journal import Connection, Journal, SnapshotStore
from opstream_journal.command_handler import CommandHandler
from opstream_journal.runtime.service import ServiceLoop, run_service, run_until_signal
from opstream_journal.stores.resource_locks import ResourceLocks

from .after_effects import LockReleaser
from .deadline_scanner import DeadlineScanner
from .deadlines import DeadlineEnforcer, DeadlineScheduler
from .projection.projector import Projector
from .settings import Settings

logger = logging.getLogger(__name__)

_SOURCE: Final = "opstream/projector"


def run(settings: Settings) -> None:
    """Keep the view up to date, and deadlines, until SIGTERM or SIGINT.

    Raises:
        JournalError: the broker can't be reached, lacks something or differs, the health port is taken, or the
            consumer was deleted.
    """
    work = run_service(
        "opstream-projector",
        _compose,
        servers=settings.servers,
        connect_timeout=settings.connect_timeout,
        health_port=settings.health_port,
    )
    uvloop.run(run_until_signal(work))


async def _compose(link: Connection, max_msg_size: int) -> list[ServiceLoop]:
    journal = Journal(link, max_msg_size=max_msg_size, clock=time.monotonic)
    await journal.start()
    holds = ResourceLocks(link, journal)
    await holds.start()
    armer = DeadlineScheduler(link)
    carrier = CommandHandler(journal=journal, source=_SOURCE, now=_utc_now, monotonic=time.monotonic, new_id=_new_id)
    logger.info("projecting")
    return [
        Projector(
            link,
            journal,
            SnapshotStore(link),
            now=_utc_now,
            monotonic=time.monotonic,
            effects=[armer, LockReleaser(holds)],
        ),
        DeadlineScanner(link, journal, armer.ended, now=_utc_now, monotonic=time.monotonic),
        DeadlineEnforcer(link, carrier),
    ]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid_utils.uuid7())
