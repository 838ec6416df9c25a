"""Scans the whole journal and then the whole view, and passes what is to be compared to a visitor, in batches.

The system works meanwhile: the journal is scanned up to its end at the start; later events are the projector's job.
Memory is bounded (docs/adr/0017): the fold keeps a bounded number of states, a few batches are compared at once, and of
each entry that is right only its revision is kept, as one bit, for a window of revisions. Entries whose bit is not set
are looked up while the view is scanned.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from opstream_journal import Connection
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds
from opstream_journal.jetstream.stream_info import StreamBounds
from opstream_journal.stores.journal_witnesses import read_evidence
from opstream_journal.stores.snapshots import VIEW_STREAM, RawSnapshot, RawSnapshots, operation_id_of
from opstream_projector.projection.snapshot_cache import memory_size
from opstream_projector.projection.snapshot_fold import supersedes
from opstream_schemas import subjects
from opstream_schemas.integrity.setback import HoleFinder, JournalRange, SequenceRange, SetbackEvidence
from opstream_schemas.operation.state import Operation

from .entry_check import EntryReading, is_expired, is_same
from .journal_fold import FoldedOperation, JournalFold
from .retry import first_error, retry_while_unavailable

BATCH_SIZE: Final = 256
"""Operations or entries in a batch at most."""

_BATCH_BYTES: Final = 8 * 1024 * 1024
"""Approximate bytes in a batch at most: a single result may have 256 KiB."""
_MAX_CONCURRENT_BATCHES: Final = 4
_MAX_BITMAP_BYTES: Final = 16 * 1024 * 1024
_MAX_EXAMPLES: Final = 20

_T = TypeVar("_T")


class ScanProgress(Protocol):
    """Displays the progress of a scan."""

    def begin(self, what: str, total: int) -> None:
        """A scan of `total` items named `what` begins."""

    def show(self, done: int) -> None:
        """So many items are done."""

    def end(self) -> None:
        """All items are done."""


class ComparisonBatch(Generic[_T]):
    """Items that are compared together, bounded by their number and their bytes."""

    def __init__(self) -> None:
        self._items: list[_T] = []
        self._bytes = 0

    def add(self, item: _T, size: int) -> bool:
        """Add an item of about `size` bytes. Return True if the batch is full now."""
        self._items.append(item)
        self._bytes += size
        return len(self._items) >= BATCH_SIZE or self._bytes >= _BATCH_BYTES

    def drain(self) -> list[_T]:
        """Remove and return all items."""
        items, self._items, self._bytes = self._items, [], 0
        return items


class SeenRevisions:
    """A bitmap of entry revisions: it covers those from `first` on, as many as fit into `size` bytes."""

    def __init__(self, first: int, size: int = _MAX_BITMAP_BYTES) -> None:
        self._first = first
        self._size = size
        self._bits = bytearray()

    def add(self, revision: int) -> None:
        """Add a revision. One outside the window is ignored."""
        index, bit = divmod(revision - self._first, 8)
        if not 0 <= index < self._size:
            return
        if index >= len(self._bits):
            self._bits.extend(bytes(min(max(index + 1, 2 * len(self._bits)), self._size) - len(self._bits)))
        self._bits[index] |= 1 << bit

    def __contains__(self, revision: int) -> bool:
        index, bit = divmod(revision - self._first, 8)
        return 0 <= index < len(self._bits) and bool(self._bits[index] >> bit & 1)


class OperationExamples:
    """Operations with a problem. The first ones are named, with a reason, and counted once; later ones are counted."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: dict[str, str] = {}

    def add(self, operation_id: str, why: str) -> None:
        """Count an operation."""
        if operation_id in self.examples:
            return
        self.count += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples[operation_id] = why


class ScanVisitor(Protocol):
    """Compares entries with the journal, and acts on differences."""

    async def visit_operations(self, batch: Sequence[FoldedOperation], scan: ViewScan) -> None:
        """Compare operations, each at most once in a batch, with their entries. Add right entries to `seen_revisions`.

        Raises:
            JournalError: the broker was away for too long, or refused.
        """

    async def visit_entries(self, snapshots: Sequence[RawSnapshot], scan: ViewScan) -> None:
        """Examine entries that are not in `seen_revisions` and do not end with their operation's last event.

        Raises:
            JournalError: the broker was away for too long, or refused.
        """


class ViewScan:
    """One scan of the journal and the view.

    Args:
        connection: the connection.
        snapshots: started.
        journal_fold: folds the journal.
        progress: displays the progress.
    """

    def __init__(
        self, connection: Connection, snapshots: RawSnapshots, journal_fold: JournalFold, progress: ScanProgress
    ) -> None:
        self.connection = connection
        self.snapshots = snapshots
        self.journal_fold = journal_fold
        self.last_sequence = 0
        """The stream sequence at which the scan of the journal ends."""
        self.seen_revisions = SeenRevisions(0)
        """Revisions of the entries that need no further check."""
        self.evidence = SetbackEvidence(JournalRange(first=1, last=0, max_age=0.0))
        """What proves that the journal went back (docs/adr/0032)."""
        self._progress = progress
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT_BATCHES)
        self._tasks = asyncio.TaskGroup()

    async def run(self, visitor: ScanVisitor) -> None:
        """Scan the journal, then the view.

        Raises:
            NotProvisioned: there is no journal, or no view.
            JournalError: the broker was away for too long, or refused.
        """
        try:
            await self._run(visitor)
        except ExceptionGroup as group:
            raise first_error(group) from group

    async def retry(self, step: Callable[[], Awaitable[_T]]) -> _T:
        """Call a step until the broker answers. The step must be repeatable.

        Raises:
            JournalUnavailable: the broker was away for too long.
        """
        return await retry_while_unavailable(self.connection, step)

    async def _run(self, visitor: ScanVisitor) -> None:
        journal = await self.retry(lambda: stream_bounds(self.connection, subjects.OPERATIONS_STREAM))
        view = await self.retry(lambda: stream_bounds(self.connection, VIEW_STREAM))
        self.evidence = await self.retry(lambda: read_evidence(self.connection))
        self.last_sequence = journal.last
        self.seen_revisions = SeenRevisions(view.first)
        await self._scan_journal(visitor, journal)
        await self._scan_view(visitor)

    async def _scan_journal(self, visitor: ScanVisitor, journal: StreamBounds) -> None:
        self._progress.begin("events", journal.messages)
        batch: ComparisonBatch[FoldedOperation] = ComparisonBatch()

        async def visit() -> None:
            await self._start_task(functools.partial(visitor.visit_operations, deduplicated(batch.drain()), self))

        async def add(found: Iterable[FoldedOperation]) -> None:
            for folded in found:
                if batch.add(folded, memory_size(folded.operation) if folded.operation is not None else 0):
                    await visit()

        first, last = journal.first, journal.last
        finder = HoleFinder(first, last)
        async with asyncio.TaskGroup() as self._tasks:
            async for messages in scan_stream(self.connection, subjects.OPERATIONS_STREAM, first=first, last=last):
                finder.add([message.sequence for message in messages])
                await add(self.journal_fold.fold(messages))
                self._progress.show(min(self.journal_fold.messages, journal.messages))
            await add(self.journal_fold.drain())
            await visit()
        self._progress.end()
        now = await self.retry(lambda: stream_bounds(self.connection, subjects.OPERATIONS_STREAM))
        await self._record_holes(finder.finish(now.first))

    async def _record_holes(self, holes: Sequence[SequenceRange]) -> None:
        """Record the holes of the journal, and apart those that only one replica has: another one served the read."""
        for hole in holes:
            message = await self.retry(
                functools.partial(rpc.get_at, self.connection, subjects.OPERATIONS_STREAM, hole.first)
            )
            (self.evidence.holes if message is None else self.evidence.replica_holes).append(hole)

    async def _scan_view(self, visitor: ScanVisitor) -> None:
        view = await self.retry(lambda: stream_bounds(self.connection, VIEW_STREAM))
        self._progress.begin("entries", view.messages)
        done = 0
        batch: ComparisonBatch[RawSnapshot] = ComparisonBatch()

        async def visit() -> None:
            await self._start_task(functools.partial(self._visit_unseen, visitor, batch.drain()))

        async with asyncio.TaskGroup() as self._tasks:
            async for messages in scan_stream(self.connection, VIEW_STREAM, first=view.first, last=view.last):
                done += len(messages)
                for message in messages:
                    if message.sequence in self.seen_revisions:
                        continue
                    entry = RawSnapshot(operation_id_of(message.subject), message.sequence, message.data)
                    if batch.add(entry, len(message.data)):
                        await visit()
                self._progress.show(min(done, view.messages))
            await visit()
        self._progress.end()

    async def _visit_unseen(self, visitor: ScanVisitor, snapshots: Sequence[RawSnapshot]) -> None:
        """Pass on the entries that are not at their operation's last event.

        An entry at the last event either was compared with the journal already, or is newer than the scan.
        """
        ids = [snapshot.operation_id for snapshot in snapshots]
        last_sequences = await self.retry(lambda: self.snapshots.last_sequences(ids))
        doubtful = [
            snapshot
            for snapshot in snapshots
            if snapshot.problem or last_sequences.get(snapshot.operation_id) != snapshot.sequence
        ]
        await visitor.visit_entries(doubtful, self)

    async def _start_task(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._slots.acquire()
        self._tasks.create_task(self._run_task(work))

    async def _run_task(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._slots.release()


def deduplicated(batch: Sequence[FoldedOperation]) -> list[FoldedOperation]:
    """Return each operation once. A repeated one loses its state: only the journal tells which state is right."""
    found: dict[str, FoldedOperation] = {}
    for folded in batch:
        is_repeated = folded.operation_id in found
        found[folded.operation_id] = FoldedOperation(folded.operation_id, None, is_last=True) if is_repeated else folded
    return list(found.values())


def accept_entry(
    folded: FoldedOperation, operation: Operation, snapshot: RawSnapshot | None, now: datetime, scan: ViewScan
) -> bool:
    """Return True if the entry is right, or will be compared again. Mark a right one in `scan.seen_revisions`.

    It is compared again if it claims to be newer than the fold and the scan of the journal has not come that far. If
    the claim is false, the scan of the view finds that the entry is not at its operation's last event.
    """
    if snapshot is None:
        return is_expired(operation, now)
    if is_same(snapshot, operation):
        if folded.is_last:
            scan.seen_revisions.add(snapshot.revision)
        return True
    stored = snapshot.operation
    if folded.is_last or stored is None or stored.stream_sequence > scan.last_sequence:
        return False
    return supersedes(stored, operation)


def record_loss(reading: EntryReading, scan: ViewScan) -> None:
    """Add an entry that knows more than the journal to the evidence of the scan; do nothing with others."""
    core = reading.snapshot.core if reading.snapshot is not None else None
    if core is not None and reading.loss is not None:
        scan.evidence.add_entry(
            core.id,
            core.stream_sequence,
            reading.loss,
            is_ended=core.is_ended,
            is_contradicted=reading.is_contradicted,
        )
