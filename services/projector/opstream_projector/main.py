"""Composition root of the projector: from settings to a running process."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import uuid_utils
import uvloop

from opstream_journal import Connection, Journal, SnapshotStore, retry_until_ready
from opstream_journal.command_handler import CommandHandler
from opstream_journal.metrics.page import Metrics
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.service import ServiceLoop, run_service, run_until_set, run_until_signal
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.setback_watch import SetbackWatch
from opstream_payloads.drivers import open_payloads
from opstream_schemas.broker_access.permissions import Role

from .after_effects import LockReleaser, Waker
from .deadline_scanner import DeadlineScanner
from .deadlines import DeadlineEnforcer, DeadlineScheduler
from .family import FamilyKeeper
from .payload_sweeper import PayloadSweeper
from .projection.operation_meter import OperationMeter
from .projection.projector import Projector
from .queues.queue_gauges import QueueGauges
from .settings import Settings
from .sweeper import Sweeper

if TYPE_CHECKING:
    from opstream_index.location import IndexLocation

    from .index.index_keeper import IndexKeeper

logger = logging.getLogger(__name__)

_SOURCE: Final = "opstream/projector"


def run(settings: Settings) -> None:
    """Keep the view up to date and enforce deadlines, until SIGTERM or SIGINT.

    Raises:
        JournalError: the broker can't be reached, something on it is missing or configured differently, the health port
            is in use, or the consumer was deleted.
    """
    uvloop.run(run_until_signal(partial(serve, settings)))


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """As `run`, in the running loop and until the event is set."""
    conditions, metrics = Conditions(), Metrics()
    work = run_service(
        "opstream-projector",
        partial(_compose, settings, conditions, metrics),
        role=Role.PROJECTOR,
        servers=settings.servers,
        credentials=settings.credentials,
        connect_timeout=settings.connect_timeout,
        health_host=settings.health_host,
        health_port=settings.health_port,
        conditions=conditions,
        metrics=metrics,
    )
    await run_until_set(stopping, work)


async def _compose(
    settings: Settings, conditions: Conditions, metrics: Metrics, connection: Connection, max_msg_size: int
) -> list[ServiceLoop]:
    journal = Journal(connection, max_msg_size=max_msg_size, clock=time.monotonic)
    await journal.start()
    locks = ResourceLocks(connection, journal)
    await locks.start()
    scheduler = DeadlineScheduler(connection)
    handler = CommandHandler(journal=journal, source=_SOURCE, now=_utc_now, monotonic=time.monotonic, new_id=_new_id)
    metrics.add(*journal.meter.instruments)
    gauges = QueueGauges(connection)
    meter = OperationMeter(gauges.labels, gauges.learn)
    snapshots = SnapshotStore(connection)
    keeper = None
    if settings.index is not None:
        keeper = _index_keeper(settings.index, connection, journal, snapshots, conditions)
        metrics.add(*keeper.instruments)
    projector = Projector(
        connection,
        journal,
        snapshots,
        now=_utc_now,
        monotonic=time.monotonic,
        effects=[
            scheduler,
            LockReleaser(locks),
            Waker(connection),
            FamilyKeeper(connection, journal, snapshots, handler),
        ],
        meter=meter if settings.health_port else None,
        index=keeper,
    )
    measuring: list[ServiceLoop] = []
    if settings.health_port:
        metrics.add(*meter.instruments)
        metrics.refresh_with(gauges.read, *gauges.instruments)
        await gauges.start()
        measuring.append(gauges)
    if keeper is not None:
        keeper.projector = projector
        measuring.append(keeper)
    opened = await retry_until_ready(
        connection,
        lambda: open_payloads(settings.payload_store, connection, _utc_now, _new_id),
        settings.connect_timeout,
    )
    if opened.store is not None:
        sweeper = PayloadSweeper(connection, journal, opened.store, conditions, now=_utc_now, monotonic=time.monotonic)
        metrics.add(*sweeper.instruments)
        measuring.append(sweeper)
    logger.info("projecting")
    return [
        *measuring,
        projector,
        DeadlineScanner(connection, journal, scheduler.ended, now=_utc_now, monotonic=time.monotonic),
        DeadlineEnforcer(connection, handler),
        Sweeper(connection, handler, locks, conditions),
        SetbackWatch(connection, conditions, now=_utc_now),
    ]


def _index_keeper(
    location: IndexLocation, connection: Connection, journal: Journal, snapshots: SnapshotStore, conditions: Conditions
) -> IndexKeeper:
    """Return the keeper of an index. Its modules, and with them those of its database, are loaded only here."""
    from opstream_index.drivers import open_writer

    from .index.index_keeper import IndexKeeper

    return IndexKeeper(
        connection,
        journal,
        open_writer(location),
        name=_new_id(),
        shown=location.shown,
        last_revision=lambda: snapshots.last_revision,
        conditions=conditions,
        now=_utc_now,
    )


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid_utils.uuid7())
