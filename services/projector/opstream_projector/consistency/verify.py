"""Compares every entry of the view with the fold of the journal, while the system works, and changes nothing.

An entry that differs is read again from the leaders before it is reported. An entry that only lags is the projector's
job: it is reported once the projector says that it has written it, or has had enough time. See docs/adr/0017. Entries
that know more than the journal go into the scan's evidence of a setback, too (docs/adr/0032).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from opstream_journal.provisioning.jetstream_admin import ack_floor
from opstream_journal.stores.snapshots import RawSnapshot
from opstream_projector.deadlines import RecentIds
from opstream_projector.projection.snapshot_fold import supersedes
from opstream_schemas.operation.state import Operation
from opstream_schemas.subjects import OPERATIONS_STREAM, PROJECTOR_CONSUMER

from .entry_check import (
    EntryDifference,
    EntryReader,
    EntryReading,
    describe_difference,
    is_of_other_version,
    is_wrong,
)
from .journal_fold import FoldedOperation
from .retry import run_bounded
from .view_scan import OperationExamples, ViewScan, accept_entry, record_loss

GRACE: Final = 40.0
"""Seconds for which the projector may lag: longer than its consumer's ack_wait (30 s), after which the messages of a
killed replica come to another one. Once this time was too short, verification does not wait again."""

_MAX_READS: Final = 32
_MISSING_IDS: Final = 10_000
_FIRST_DELAY: Final = 0.1
_MAX_DELAY: Final = 1.0


class ViewVerifier:
    """Reports entries that differ; a `ScanVisitor`.

    Args:
        reader: reads entries that seem to differ.
        report: called with each difference.
        report_lag: called, while verification waits for the projector, with the number of operations that lag.
        now: the time, with zone.
        grace: see `GRACE`.
    """

    def __init__(
        self,
        reader: EntryReader,
        *,
        report: Callable[[EntryDifference], None],
        report_lag: Callable[[int], None],
        now: Callable[[], datetime],
        grace: float = GRACE,
    ) -> None:
        self._reader = reader
        self._report = report
        self._report_lag = report_lag
        self._now = now
        self._grace = grace
        self._read_slots = asyncio.Semaphore(_MAX_READS)
        self._missing = RecentIds(_MISSING_IDS)
        self.differences = 0
        """All differences."""
        self.lagging = 0
        """Differences that were only a lag of the projector, longer than the grace."""
        self.of_other_version = 0
        """Entries that another version of the fold wrote, from which clients would read the same. No differences."""
        self.unfoldable = OperationExamples()
        """Operations with messages that can't be folded."""

    async def visit_operations(self, batch: Sequence[FoldedOperation], scan: ViewScan) -> None:
        """See `ScanVisitor`."""
        ids = [folded.operation_id for folded in batch]
        snapshots = await scan.retry(lambda: scan.snapshots.get(ids))
        now = self._now()
        suspects: list[str] = []
        for folded in batch:
            snapshot, operation = snapshots.get(folded.operation_id), folded.operation
            if snapshot is not None and snapshot.revision in scan.seen_revisions:
                continue
            if operation is None or not accept_entry(folded, operation, snapshot, now, scan):
                is_last_state = operation is not None and folded.is_last
                if not (is_last_state and self._accept_other_version(snapshot, operation, scan)):
                    suspects.append(folded.operation_id)
        await self._confirm(suspects, scan)

    async def visit_entries(self, snapshots: Sequence[RawSnapshot], scan: ViewScan) -> None:
        """See `ScanVisitor`."""
        await self._confirm([snapshot.operation_id for snapshot in snapshots], scan)

    def _accept_other_version(self, snapshot: RawSnapshot | None, operation: Operation | None, scan: ViewScan) -> bool:
        """Return True if another version of the fold wrote the entry, and it says the same. Count it once."""
        if snapshot is None or operation is None or not is_of_other_version(snapshot, operation):
            return False
        if snapshot.revision not in scan.seen_revisions:
            self.of_other_version += 1
            scan.seen_revisions.add(snapshot.revision)
        return True

    async def _confirm(self, suspects: Sequence[str], scan: ViewScan) -> None:
        await self._await_projector(await self._wrong_entries(suspects, scan), scan)

    async def _await_projector(self, wrong: dict[str, EntryReading], scan: ViewScan) -> None:
        """Read wrong entries repeatedly while the projector has time, and report those that stay wrong."""
        clock = asyncio.get_running_loop().time
        until, delay = clock() + self._grace, _FIRST_DELAY
        while wrong:
            await scan.connection.sleep(delay)
            # The sequence first: an entry that is read later has all that the projector has written up to it.
            last_projected = (
                await scan.retry(lambda: ack_floor(scan.connection, OPERATIONS_STREAM, PROJECTOR_CONSUMER)) or 0
            )
            wrong = await self._wrong_entries(wrong, scan)
            lagging = {one: reading for one, reading in wrong.items() if _is_lagging(reading, last_projected)}
            if lagging and clock() >= until:
                self._grace = 0.0
            is_over = not self._grace
            for operation_id, reading in wrong.items():
                if operation_id not in lagging or is_over:
                    self._count(operation_id, reading, scan, is_lagging=operation_id in lagging)
            if is_over:
                return
            if lagging:
                self._report_lag(len(lagging))
            wrong, delay = lagging, min(delay * 2, _MAX_DELAY)

    async def _wrong_entries(self, operation_ids: Iterable[str], scan: ViewScan) -> dict[str, EntryReading]:
        """Read operations from the leaders, and return those whose entries are wrong."""
        found: dict[str, EntryReading] = {}

        async def read(operation_id: str) -> None:
            reading = await scan.retry(lambda: self._reader.read(operation_id))
            if reading.problem:
                self.unfoldable.add(operation_id, reading.problem)
            if self._accept_other_version(reading.snapshot, reading.operation, scan):
                return
            if is_wrong(reading, self._now()):
                found[operation_id] = reading
            elif reading.snapshot is not None:
                scan.seen_revisions.add(reading.snapshot.revision)

        await run_bounded([functools.partial(read, one) for one in dict.fromkeys(operation_ids)], self._read_slots)
        return found

    def _count(self, operation_id: str, reading: EntryReading, scan: ViewScan, *, is_lagging: bool) -> None:
        if reading.snapshot is not None:
            scan.seen_revisions.add(reading.snapshot.revision)  # report it once
        elif operation_id in self._missing:
            return
        else:
            self._missing.add(operation_id)
        self.differences += 1
        self.lagging += is_lagging
        record_loss(reading, scan)
        self._report(EntryDifference(operation_id, describe_difference(reading)))


def _is_lagging(reading: EntryReading, last_projected: int) -> bool:
    """Return True if the entry lacks only events that the projector has not written yet.

    Args:
        reading: of the entry.
        last_projected: the stream sequence up to which the projector has written everything.
    """
    operation, snapshot = reading.operation, reading.snapshot
    if operation is None or operation.stream_sequence <= last_projected:
        return False
    if snapshot is None or snapshot.operation is not None:
        return supersedes(operation, snapshot.operation if snapshot is not None else None)
    return snapshot.core is not None and snapshot.core.stream_sequence < operation.stream_sequence
