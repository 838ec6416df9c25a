"""Removes payloads whose operations are gone: their retention is over, or the journal has never known them.

A payload's name says which operation it belongs to, so nothing else is asked: the view and the journal decide
(docs/adr/0075). What they can't say keeps a payload.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from opstream_journal import Connection, Journal, JournalError
from opstream_journal.metrics.instruments import Counts, Instrument
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.stores.setback_watch import CONDITION as JOURNAL_SETBACK
from opstream_journal.stores.snapshots import SnapshotReader
from opstream_payloads import PayloadError, PayloadStore, StoredPayload
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.text import format_count

logger = logging.getLogger(__name__)

WALK_INTERVAL: Final = 3_600.0
"""Seconds between two walks."""
PAYLOAD_GRACE: Final = timedelta(days=1)
"""How old a payload must be: it is stored before the event that names it, and an upload before its submit."""
CLOCK_MARGIN: Final = timedelta(hours=1)
"""How long a payload outlives the status of its operation, whose end is by another process's clock."""
_EXPIRED: Final = "expired"
_UNSUBMITTED: Final = "unsubmitted"
SHARE: Final = 1 / 10
"""The share of its time that a walk works; it sleeps the rest."""


class PayloadSweeper:
    """One replica. Every projector sweeps, and none knows of the others: to remove what is gone does no harm.

    Args:
        connection: the connection, which is up.
        journal: started.
        store: of the payloads, started.
        conditions: tell whether the journal has lost events.
        now: returns the time, with time zone.
        monotonic: returns seconds.
        interval: see `WALK_INTERVAL`.
        share: see `SHARE`.
    """

    def __init__(
        self,
        connection: Connection,
        journal: Journal,
        store: PayloadStore,
        conditions: Conditions,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        interval: float = WALK_INTERVAL,
        share: float = SHARE,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._store = store
        self._conditions = conditions
        self._now = now
        self._monotonic = monotonic
        self._interval = interval
        self._share = share
        self._snapshots = SnapshotReader(connection)
        self._removed = Counts(
            "opstream_payloads_removed",
            "Payloads that were removed: their operation's retention was over (expired), or the journal never had it "
            "(unsubmitted). Sum over processes.",
            "reason",
        )
        for reason in (_EXPIRED, _UNSUBMITTED):
            self._removed.of(reason)

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """What the page of metrics shows."""
        return (self._removed,)

    @property
    def is_ready(self) -> bool:
        """Return True: without the sweep, everything else still works."""
        return True

    async def run(self) -> None:
        """Walk until cancelled. What can't be read or removed is tried again in the next walk."""
        await self._snapshots.start()
        try:
            while True:
                await self._connection.sleep(self._interval)
                try:
                    removed = await self.walk()
                except (JournalError, PayloadError) as error:
                    logger.info("payloads of operations that are gone can't be looked for now: %s", error)
                else:
                    if removed:
                        logger.info("%s of operations that are gone removed", format_count(removed, "payload"))
        finally:
            if self._connection.is_connected:
                await self._snapshots.stop()

    async def walk(self) -> int:
        """Walk through the store once. Return the number of payloads that were removed.

        While the journal has lost events, as after a disk was lost, nothing is removed: it may come back from a backup.

        Raises:
            JournalError: the broker did not answer, or refused.
            PayloadError: the store did not answer.
        """
        if any(one.name == JOURNAL_SETBACK for one in self._conditions.current):
            logger.warning("no payload is removed while the journal lacks events that it had (%s)", JOURNAL_SETBACK)
            return 0
        removed = 0
        moment = self._now() - PAYLOAD_GRACE
        async for page in self._store.older_than(moment):
            began = self._monotonic()
            gone = await self._gone(page)
            if gone:
                await self._store.delete([one.key for one in gone])
                removed += len(gone)
                for one in gone:
                    self._removed.of(gone[one]).value += 1
            await self._connection.sleep((self._monotonic() - began) * (1 / self._share - 1))
        await self._store.remove_unfinished(moment)
        return removed

    async def _gone(self, page: Sequence[StoredPayload]) -> dict[StoredPayload, str]:
        """Return those whose operations are gone, each with the reason."""
        operations = sorted({one.key.operation_id for one in page})
        seen = await self._snapshots.get(operations)
        reasons = {one: await self._why_gone(one) for one in operations if one not in seen}
        return {one: reason for one in page if (reason := reasons.get(one.key.operation_id))}

    async def _why_gone(self, operation_id: str) -> str:
        """Return why no status of an operation can be read any more, or ever could; empty if it is not gone."""
        last = await self._journal.last_message(operation_id)
        if last is None:
            return _UNSUBMITTED
        try:
            operation = fold_for_reader(None, await self._journal.events_up_to(last))
        except (FoldRefused, InvalidEvent) as error:
            logger.info("operation %s can't be read, so its payloads stay: %s", operation_id, error)
            return ""
        if operation is None:
            return _EXPIRED  # its first events have expired, which outlive every retention
        if operation.finished_at is None:
            return ""
        kept = timedelta(seconds=operation.effective_retention) + CLOCK_MARGIN
        return _EXPIRED if self._now() - operation.finished_at > kept else ""
