"""Rewrites every entry of the view that differs from the fold of the journal, in place, while the system works.

Each write expects the revision that it replaces, as the projector's writes do, so it never overwrites what a projector
wrote meanwhile. States that the scan folded to the end are written directly; in case of doubt entry and events are read
from the leaders first. A rebuild runs no after-effects: it touches neither deadlines nor locks. See docs/adr/0017.

An entry that knows more than the journal is the only copy of what the journal has lost. It stays as it is, and is
passed on to who keeps it. Only `discard` replaces it, at the revision that was kept (docs/adr/0032).
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from opstream_journal import EventTooLarge, JournalUnavailable, SnapshotStore, SnapshotWrite
from opstream_journal.stores.snapshots import RawSnapshot
from opstream_projector.projection.snapshot_fold import may_have_expired, supersedes, time_to_live
from opstream_schemas.operation.state import Operation
from opstream_schemas.text import format_count

from .entry_check import EntryReader, EntryReading, is_ahead, is_wrong
from .journal_fold import FoldedOperation
from .retry import run_bounded
from .view_scan import OperationExamples, ViewScan, accept_entry, record_loss

_SafeWrite = tuple[Operation, RawSnapshot | None]
"""A state that may be written without another read, and the entry that it replaces."""

_WRITERS: Final = 128
_DISCARDS: Final = 64
_MAX_TRIES: Final = 20
_RETRY_DELAY: Final = 0.05
_MIN_TTL: Final = 1.0


class LostEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An entry of the view that knows more than the journal; one line of the file in which it is kept."""

    operation_id: str
    revision: int
    """Of the entry."""
    loss: str
    """Where the journal lacks its last event."""
    journal_position: int
    """Position up to which the journal still has the operation; 0 if it has nothing of it."""
    snapshot: msgspec.Raw
    """The entry as it is stored."""


class ViewRebuilder:
    """Rewrites entries that differ; a `ScanVisitor`.

    Args:
        snapshots: the view, for writing.
        reader: reads entries in case of doubt.
        now: the time, with zone.
        keep: called with each entry that knows more than the journal.
    """

    def __init__(
        self,
        snapshots: SnapshotStore,
        reader: EntryReader,
        *,
        now: Callable[[], datetime],
        keep: Callable[[LostEntry], None],
    ) -> None:
        self._snapshots = snapshots
        self._reader = reader
        self._now = now
        self._keep = keep
        self._writers = asyncio.Semaphore(_WRITERS)
        self.rewritten = 0
        """Entries that differed."""
        self.missing = 0
        """Entries that were not there, and are now."""
        self.removed = 0
        """Entries of operations that the journal does not have."""
        self.kept = 0
        """Entries that know more than the journal."""
        self.unfoldable = OperationExamples()
        """Operations with messages that can't be folded."""
        self.unstorable = OperationExamples()
        """Operations whose snapshot is too large."""

    async def visit_operations(self, batch: Sequence[FoldedOperation], scan: ViewScan) -> None:
        """See `ScanVisitor`."""
        ids = [folded.operation_id for folded in batch]
        snapshots = await scan.retry(lambda: scan.snapshots.get(ids))
        now = self._now()
        todo: list[Callable[[], Awaitable[None]]] = []
        safe: list[_SafeWrite] = []
        for folded in batch:
            snapshot, operation = snapshots.get(folded.operation_id), folded.operation
            if snapshot is not None and snapshot.revision in scan.seen_revisions:
                continue
            if operation is None:
                todo.append(functools.partial(self._repair, folded.operation_id, scan))
            elif accept_entry(folded, operation, snapshot, now, scan):
                continue
            elif folded.is_last and self._is_safe_to_write(operation, snapshot, now):
                safe.append((operation, snapshot))
            else:
                todo.append(functools.partial(self._repair, folded.operation_id, scan))
        if not await self._write_together(safe, scan):
            todo += [functools.partial(self._replace, *write, scan) for write in safe]
        await run_bounded(todo, self._writers)

    async def visit_entries(self, snapshots: Sequence[RawSnapshot], scan: ViewScan) -> None:
        """See `ScanVisitor`."""
        todo = [functools.partial(self._repair, snapshot.operation_id, scan) for snapshot in snapshots]
        await run_bounded(todo, self._writers)

    async def discard(self, entries: Iterable[LostEntry], scan: ViewScan) -> None:
        """Replace kept entries by what the journal has, or remove them. One that has changed since then stays.

        Raises:
            JournalUnavailable: the leaders did not answer for long.
            JournalError: the broker refused.
        """
        batch: list[LostEntry] = []
        for entry in entries:
            batch.append(entry)
            if len(batch) == _DISCARDS:
                await run_bounded([functools.partial(self._discard, one, scan) for one in batch], self._writers)
                batch = []
        await run_bounded([functools.partial(self._discard, one, scan) for one in batch], self._writers)

    async def _discard(self, entry: LostEntry, scan: ViewScan) -> None:
        reading = await scan.retry(lambda: self._reader.read(entry.operation_id))
        snapshot, operation = reading.snapshot, reading.operation
        if snapshot is None or snapshot.revision != entry.revision or not reading.is_contradicted:
            return
        if operation is None:
            await self._remove(snapshot, scan)
        elif not await self._write_one(operation, snapshot, scan):
            return
        self.kept -= 1

    def _is_safe_to_write(self, operation: Operation, snapshot: RawSnapshot | None, now: datetime) -> bool:
        """Return True if the folded state may be written without another read: it replaces only something older."""
        if snapshot is None:
            # After the scanned part it may have ended and expired; written as open, it would stay for long.
            return operation.is_terminal or not may_have_expired(operation, now)
        return supersedes(operation, snapshot.operation) and not is_ahead(snapshot, operation)

    async def _write_together(self, safe: Sequence[_SafeWrite], scan: ViewScan) -> bool:
        """Write all in one batch.

        Returns:
            False if nothing was written: there are fewer than two, another process wrote one of them, or the broker
            takes no batch.
        """
        writes = [self._write(operation, snapshot) for operation, snapshot in safe]
        written = await scan.retry(lambda: self._snapshots.put_batch(writes)) if len(writes) > 1 else None
        for (_, snapshot), revision in zip(safe, written or (), strict=written is not None):
            self._count(snapshot, revision, scan)
        return written is not None

    async def _replace(self, operation: Operation, snapshot: RawSnapshot | None, scan: ViewScan) -> None:
        if not await self._write_one(operation, snapshot, scan):
            await self._repair(operation.id, scan)

    async def _repair(self, operation_id: str, scan: ViewScan) -> None:
        """Make the entry what the leaders' journal says, without overwriting anything newer.

        Raises:
            JournalUnavailable: the leaders did not answer for long, or the entry keeps changing.
            JournalError: the broker refused.
        """
        is_second_read = False
        for _ in range(_MAX_TRIES):
            reading = await scan.retry(functools.partial(self._reader.read, operation_id))
            if reading.problem:
                self.unfoldable.add(operation_id, reading.problem)
            snapshot, operation = reading.snapshot, reading.operation
            if not is_wrong(reading, self._now()):
                if snapshot is not None:
                    scan.seen_revisions.add(snapshot.revision)
                return
            would_shrink = snapshot is not None and (operation is None or is_ahead(snapshot, operation))
            if would_shrink and not is_second_read:
                # The journal may have been read from a former leader; a second read is from the new one.
                is_second_read = True
            elif snapshot is not None and reading.is_only_in_view:
                self._keep_lost(reading, snapshot, scan)
                return
            elif operation is None:
                await self._remove(snapshot, scan)
                return
            elif await self._write_one(operation, snapshot, scan):
                return
            await scan.connection.sleep(_RETRY_DELAY)
        raise JournalUnavailable(f"the entry of operation {operation_id} keeps changing", maybe_stored=False)

    def _keep_lost(self, reading: EntryReading, snapshot: RawSnapshot, scan: ViewScan) -> None:
        if snapshot.revision in scan.seen_revisions:
            return
        scan.seen_revisions.add(snapshot.revision)
        record_loss(reading, scan)
        self.kept += 1
        self._keep(
            LostEntry(
                operation_id=snapshot.operation_id,
                revision=snapshot.revision,
                loss=str(reading.loss),
                journal_position=reading.operation.position if reading.operation is not None else 0,
                snapshot=msgspec.Raw(snapshot.data),
            )
        )

    async def _write_one(self, operation: Operation, snapshot: RawSnapshot | None, scan: ViewScan) -> bool:
        """Write a snapshot. Return False if another process wrote the entry meanwhile."""
        try:
            written = await scan.retry(lambda: self._put(operation, snapshot))
        except EventTooLarge as error:
            self.unstorable.add(operation.id, str(error))
            return True
        if written is None:
            return False
        self._count(snapshot, written, scan)
        return True

    async def _put(self, operation: Operation, snapshot: RawSnapshot | None) -> int | None:
        write = self._write(operation, snapshot)
        return await self._snapshots.put(operation, write.revision, ttl=write.ttl)

    def _count(self, snapshot: RawSnapshot | None, written: int, scan: ViewScan) -> None:
        scan.seen_revisions.add(written)
        if snapshot is None:
            self.missing += 1
        else:
            self.rewritten += 1

    def _write(self, operation: Operation, snapshot: RawSnapshot | None) -> SnapshotWrite:
        # An expired operation whose entry is wrong is written with the shortest TTL, so that it goes soon.
        seconds = max(time_to_live(operation, self._now()), _MIN_TTL)
        ttl = None if seconds == math.inf else float(math.ceil(seconds))
        return SnapshotWrite(operation, snapshot.revision if snapshot is not None else 0, ttl)

    async def _remove(self, snapshot: RawSnapshot | None, scan: ViewScan) -> None:
        if snapshot is not None:
            await scan.retry(lambda: scan.snapshots.remove(snapshot.operation_id, snapshot.revision))
            self.removed += 1


class RebuildSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a rebuild did."""

    events: int
    operations: int
    rewritten: int
    missing: int
    removed: int
    kept: int
    """Entries that know more than the journal, and are still in the view."""
    seconds: float

    def __str__(self) -> str:
        rate = self.events / self.seconds if self.seconds > 0 else 0.0
        kept = f" {self.kept:,} kept that the journal has lost," if self.kept else ""
        return (
            f"{format_count(self.events, 'event')} of {format_count(self.operations, 'operation')} read, "
            f"{format_count(self.rewritten, 'entry', 'entries')} rewritten, "
            f"{format_count(self.missing, 'missing one')} written, {self.removed:,} removed,{kept} "
            f"in {self.seconds:.1f} s ({rate:,.0f} events/s)"
        )
