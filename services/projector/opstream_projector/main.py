"""Composition root of the projector: settings in, a running process out. Called by the `opstream` command."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Final

import uuid_utils
import uvloop

from opstream_journal import Journal, Link, View
from opstream_journal.command_handler import Carrier
from opstream_journal.runtime.service import Part, run_parts, until_signal
from opstream_journal.stores.resource_locks import Holds

from .after_effects import Releases
from .deadline_scanner import Trail
from .deadlines import DeadlineArmer, Overdue
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
    work = run_parts(
        "opstream-projector",
        _compose,
        servers=settings.servers,
        connect_timeout=settings.connect_timeout,
        health_port=settings.health_port,
    )
    uvloop.run(until_signal(work))


async def _compose(link: Link, max_msg_size: int) -> list[Part]:
    journal = Journal(link, max_msg_size=max_msg_size, clock=time.monotonic)
    await journal.start()
    holds = Holds(link, journal)
    await holds.start()
    armer = DeadlineArmer(link)
    carrier = Carrier(journal=journal, source=_SOURCE, now=_utc_now, monotonic=time.monotonic, new_id=_new_id)
    logger.info("projecting")
    return [
        Projector(link, journal, View(link), now=_utc_now, monotonic=time.monotonic, effects=[armer, Releases(holds)]),
        Trail(link, journal, armer.ended, now=_utc_now, monotonic=time.monotonic),
        Overdue(link, carrier),
    ]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid_utils.uuid7())
