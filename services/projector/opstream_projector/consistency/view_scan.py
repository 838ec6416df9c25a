"""Goes through the whole journal and then the whole view, and hands out what is to be compared, in batches.

Callers: `rebuild.py` and `verify.py`. Both go on while the system works: the journal is walked up to the end that it
had at the beginning, and what comes later is the projectors'. Memory stays flat (docs/adr/0017): the walk keeps so many
states, a few batches are compared at once, and of the entries that were found to be right one bit each is kept, by
their revision, for a window of them. The others are looked up again as the view is gone through.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from opstream_journal import Connection
from opstream_journal.jetstream.ordered_consumer import StreamBounds
from opstream_journal.jetstream.stream_scan import scan_stream, stream_bounds
from opstream_journal.stores.snapshots import VIEW_STREAM, RawSnapshot, RawSnapshots, operation_id_of
from opstream_projector.projection.snapshot_cache import memory_size
from opstream_projector.projection.snapshot_fold import supersedes
from opstream_schemas import subjects
from opstream_schemas.operation.state import Operation

from .entry_check import is_expired, is_same
from .journal_fold import FoldedOperation, JournalFold
from .retry import first_error, retry_while_unavailable

BATCH_SIZE: Final = 256

_BATCH_BYTES: Final = 8 * 1024 * 1024
"""About so much in a batch: a single result may have 256 KiB."""
_MAX_CONCURRENT_BATCHES: Final = 4
"""Batches that are compared at the same time."""

_T = TypeVar("_T")


class ScanProgress(Protocol):
    """Is told how far it is."""

    def begin(self, what: str, total: int) -> None:
        """So many `what` are to be gone through now."""

    def show(self, done: int) -> None:
        """So many of them are done."""

    def end(self) -> None:
        """All of them are."""


class ComparisonBatch(Generic[_T]):
    """What is compared together: no more than so many, nor of more than so many bytes."""

    def __init__(self) -> None:
        self._items: list[_T] = []
        self._bytes = 0

    def add(self, one: _T, size: int) -> bool:
        """Add one of about so many bytes; whether that makes it full."""
        self._items.append(one)
        self._bytes += size
        return len(self._items) >= BATCH_SIZE or self._bytes >= _BATCH_BYTES

    def drain(self) -> list[_T]:
        """What is in it; it is empty then."""
        found, self._items, self._bytes = self._items, [], 0
        return found


class ScanVisitor(Protocol):
    """What compares, and does what follows."""

    async def visit_operations(self, batch: Sequence[FoldedOperation], sweep: ViewScan) -> None:
        """Compare operations, each of which comes once, with their entries; mark each entry that is right."""

    async def visit_entries(self, snapshots: Sequence[RawSnapshot], sweep: ViewScan) -> None:
        """Look into entries that were not marked, and that don't end where the journal's operation does."""


class ViewScan:
    """One way through everything.

    Args:
        link: the connection.
        snapshots: started.
        walk: folds the journal.
        progress: is told how far it is.
    """

    def __init__(self, link: Connection, snapshots: RawSnapshots, walk: JournalFold, progress: ScanProgress) -> None:
        self.link = link
        self.snapshots = snapshots
        self.journal_fold = walk
        self.last_sequence = 0
        """The stream sequence at which the walk ends."""
        self.seen_revisions = SeenRevisions(0)
        self._progress = progress
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT_BATCHES)
        self._tasks = asyncio.TaskGroup()

    async def run(self, judge: ScanVisitor) -> None:
        """Go through the journal, then through the view.

        Raises:
            NotProvisioned: there is no journal, or no view.
            JournalError: the broker was away for too long, or refused.
        """
        try:
            await self._run(judge)
        except ExceptionGroup as group:
            raise first_error(group) from group

    async def _run(self, judge: ScanVisitor) -> None:
        journal = await self.retry(lambda: stream_bounds(self.link, subjects.OPERATIONS_STREAM))
        view = await self.retry(lambda: stream_bounds(self.link, VIEW_STREAM))
        self.last_sequence = journal.last
        self.seen_revisions = SeenRevisions(view.first)
        await self._scan_journal(judge, journal)
        await self._scan_view(judge)

    async def _scan_journal(self, judge: ScanVisitor, journal: StreamBounds) -> None:
        self._progress.begin("events", journal.messages)
        batch: ComparisonBatch[FoldedOperation] = ComparisonBatch()
        async with asyncio.TaskGroup() as self._tasks:

            async def take(found: Iterable[FoldedOperation]) -> None:
                for one in found:
                    if batch.add(one, memory_size(one.operation) if one.operation is not None else 0):
                        await self._start_task(
                            functools.partial(judge.visit_operations, deduplicated(batch.drain()), self)
                        )

            async for messages in scan_stream(
                self.link, subjects.OPERATIONS_STREAM, first=journal.first, last=journal.last
            ):
                await take(self.journal_fold.fold(messages))
                self._progress.show(min(self.journal_fold.messages, journal.messages))
            await take(self.journal_fold.drain())
            await self._start_task(functools.partial(judge.visit_operations, deduplicated(batch.drain()), self))
        self._progress.end()

    async def _scan_view(self, judge: ScanVisitor) -> None:
        view = await self.retry(lambda: stream_bounds(self.link, VIEW_STREAM))
        self._progress.begin("entries", view.messages)
        done = 0
        batch: ComparisonBatch[RawSnapshot] = ComparisonBatch()
        async with asyncio.TaskGroup() as self._tasks:
            async for messages in scan_stream(self.link, VIEW_STREAM, first=view.first, last=view.last):
                done += len(messages)
                for one in messages:
                    if one.sequence in self.seen_revisions:
                        continue
                    if batch.add(RawSnapshot(operation_id_of(one.subject), one.sequence, one.data), len(one.data)):
                        await self._start_task(functools.partial(self._visit_unseen, judge, batch.drain()))
                self._progress.show(min(done, view.messages))
            await self._start_task(functools.partial(self._visit_unseen, judge, batch.drain()))
        self._progress.end()

    async def _visit_unseen(self, judge: ScanVisitor, snapshots: Sequence[RawSnapshot]) -> None:
        """An entry that is as far as the journal was compared, or is too young to be; the others are for the judge."""
        ids = [one.operation_id for one in snapshots]
        lasts = await self.retry(lambda: self.snapshots.last_sequences(ids))
        doubtful = [one for one in snapshots if one.problem or lasts.get(one.operation_id) != one.sequence]
        await judge.visit_entries(doubtful, self)

    async def _start_task(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._slots.acquire()
        self._tasks.create_task(self._run_task(work))

    async def _run_task(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._slots.release()

    async def retry(self, step: Callable[[], Awaitable[_T]]) -> _T:
        """Take a step, again and again while the broker is away.

        Raises:
            JournalUnavailable: it was for too long.
        """
        return await retry_while_unavailable(self.link, step)


def deduplicated(batch: Sequence[FoldedOperation]) -> list[FoldedOperation]:
    """One for each operation. Of one that comes more than once, only the journal can tell which state is its."""
    found: dict[str, FoldedOperation] = {}
    for one in batch:
        known = one.operation_id in found
        found[one.operation_id] = FoldedOperation(one.operation_id, None, is_last=True) if known else one
    return list(found.values())


def accept_entry(
    folded: FoldedOperation, operation: Operation, snapshot: RawSnapshot | None, now: datetime, sweep: ViewScan
) -> bool:
    """Whether the entry is as the walk has folded the operation, or may be and is compared again later in the walk.

    The latter holds where it claims to have seen more, and the walk is still to come there. If it lies, the second part
    of the sweep finds that its last event is not the operation's.
    """
    if snapshot is None:
        return is_expired(operation, now)
    if is_same(snapshot, operation):
        if folded.is_last:
            sweep.seen_revisions.add(snapshot.revision)
        return True
    stored = snapshot.operation
    if folded.is_last or stored is None or stored.stream_sequence > sweep.last_sequence:
        return False
    return supersedes(stored, operation)


_MAX_BITMAP_BYTES: Final = 16 * 1024 * 1024
_MAX_EXAMPLES: Final = 20


class SeenRevisions:
    """Revisions of entries, one bit each: of those from `first` on, as many as fit into `size` bytes."""

    def __init__(self, first: int, size: int = _MAX_BITMAP_BYTES) -> None:
        self._first = first
        self._size = size
        self._bits = bytearray()

    def add(self, revision: int) -> None:
        """Mark one; one beyond the window is forgotten."""
        place, bit = divmod(revision - self._first, 8)
        if not 0 <= place < self._size:
            return
        if place >= len(self._bits):
            self._bits.extend(bytes(min(max(place + 1, 2 * len(self._bits)), self._size) - len(self._bits)))
        self._bits[place] |= 1 << bit

    def __contains__(self, revision: int) -> bool:
        place, bit = divmod(revision - self._first, 8)
        return 0 <= place < len(self._bits) and bool(self._bits[place] >> bit & 1)


class OperationExamples:
    """Operations that are told of: all counted (one that comes again, again), the first ones named, with a reason."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: dict[str, str] = {}

    def add(self, operation_id: str, why: str) -> None:
        """Count one."""
        if operation_id in self.examples:
            return
        self.count += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples[operation_id] = why
