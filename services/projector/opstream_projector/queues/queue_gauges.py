"""Reads the queues of all actions for `/metrics`, when a scrape asks for them.

`QueueLook` says what it costs; `Metrics` keeps it from being asked more often than a thirtieth of its time allows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from opstream_journal import ActionCatalog, Connection, JournalError
from opstream_journal.metrics.action_labels import ActionLabels
from opstream_journal.metrics.instruments import Gauges, Instrument, Readings
from opstream_journal.metrics.wait_gauges import Waits, wait_gauges
from opstream_journal.queues.consumer_backlogs import ConsumerBacklog
from opstream_journal.queues.queue_look import QueueLook
from opstream_journal.queues.queue_tally import QueueTally
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec
from opstream_schemas.names import Kind

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_DELAY: Final = 5.0
_LEARN_INTERVAL: Final = 1.0
"""Seconds between two reads of the catalog for an action that it does not have: a flood of them costs no more."""
_PAUSE: Final = 3_600.0
_NO_BACKLOG: Final = ConsumerBacklog()


class _Lag:
    """How far the projector is behind."""

    def __init__(self, events: int, seconds: float) -> None:
        self.events = events
        self.seconds = seconds


class QueueGauges:
    """The gauges, and the look that they show. While it runs, it knows which actions there are.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._catalog = ActionCatalog(connection)
        self._is_catalog_known = False
        self._learning: asyncio.Task[None] | None = None
        self._may_learn_at = 0.0
        self._look = QueueLook(connection)
        self.labels = ActionLabels(lambda: self._catalog.specs)
        self._tally: QueueTally | None = None
        self._lag: _Lag | None = None

    @property
    def instruments(self) -> list[Instrument]:
        """What the page shows."""
        return [
            *wait_gauges(lambda: self.waits),
            Gauges(
                "opstream_queued",
                "Messages in the queues of actions with priorities. That of normal priority counts requests of the "
                "others, too, until a runner has passed them. Take the maximum over processes.",
                *("action", "priority"),
                read=lambda: [] if self._tally is None else list(self._tally.queued.items()),
            ),
            Gauges(
                "opstream_projector_lag_events",
                "Events of the journal that no projector has brought into the view. Every projector shows all of them: "
                "take the maximum.",
                read=lambda: _shown(self._lag, lambda lag: lag.events),
            ),
            Gauges(
                "opstream_projector_lag_seconds",
                "Age of the first event that no projector has brought into the view; 0 without one. Take the maximum.",
                read=lambda: _shown(self._lag, lambda lag: lag.seconds),
            ),
            Gauges(
                "opstream_timers_overdue",
                "Timers that the broker should have fired 5 seconds ago or more, and deadlines that have fired and no "
                "projector has handled. Take the maximum.",
                read=lambda: _shown(self._tally, lambda tally: tally.overdue),
            ),
            Gauges(
                "opstream_timer_lateness_seconds",
                "By how much the latest timer is late that has not fired; 0 without one. Take the maximum.",
                read=lambda: _shown(self._tally, lambda tally: tally.lateness),
            ),
        ]

    @property
    def specs(self) -> Mapping[Kind, ActionSpec]:
        """The actions of the catalog."""
        return self._catalog.specs

    @property
    def waits(self) -> Waits:
        """What waits, at the last look."""
        return {} if self._tally is None else self._tally.waits

    @property
    def is_ready(self) -> bool:
        """Return True: without the gauges, everything else still works."""
        return True

    async def start(self) -> None:
        """Learn of the actions, if the broker tells them at once; otherwise `run` does."""
        await self._look.start()
        await self._read_catalog()

    async def run(self) -> None:
        """Keep what is known of the actions up to date until cancelled."""
        try:
            while True:
                await self._connection.sleep(_PAUSE if self._is_catalog_known else _RETRY_DELAY)
                await self._read_catalog()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Unsubscribe from everything."""
        if self._connection.is_connected:
            await self._look.stop()
        await self._catalog.stop()

    async def learn(self, kind: Kind) -> None:
        """Read the catalog if it does not have an action: one that was just announced has its own series at once."""
        if kind in self._catalog.specs or not self._is_catalog_known:
            return
        loop = asyncio.get_running_loop()
        if self._learning is None:
            if loop.time() < self._may_learn_at:
                return
            self._learning = asyncio.create_task(self._refresh_catalog(), name="catalog for metrics")
        await asyncio.shield(self._learning)

    async def _refresh_catalog(self) -> None:
        try:
            await self._catalog.refresh()
        except JournalError as error:
            logger.debug("the actions can't be read again now: %s", error)
        finally:
            self._may_learn_at = asyncio.get_running_loop().time() + _LEARN_INTERVAL
            self._learning = None

    async def _read_catalog(self) -> None:
        if self._is_catalog_known:
            return
        try:
            await self._catalog.start()
        except JournalError as error:
            logger.info("the actions are not known yet, so all are counted as one: %s", error)
        else:
            self._is_catalog_known = True

    async def refresh_catalog(self) -> None:
        """Read the catalog now.

        Raises:
            JournalError: the broker did not answer, or the bucket is missing.
        """
        await self._catalog.refresh()

    async def read(self) -> None:
        """Look at the queues. After an error the gauges show what they showed before.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        found = await self._look.read(self.labels, list(self._catalog.specs.values()))
        found.tally.overdue += found.backlogs.get(subjects.PROJECTOR_DUE_CONSUMER, _NO_BACKLOG).open
        lag = await self._read_lag(found.backlogs.get(subjects.PROJECTOR_CONSUMER, _NO_BACKLOG))
        self._tally, self._lag = found.tally, lag

    async def _read_lag(self, backlog: ConsumerBacklog) -> _Lag:
        if not backlog.open:
            return _Lag(0, 0.0)
        seconds = await self._look.messages.age_of_first(subjects.OPERATIONS_STREAM, ">", backlog.first_open)
        return _Lag(backlog.open, seconds)


def _shown(found: T | None, number: Callable[[T], float]) -> Readings:
    return [] if found is None else [((), number(found))]
