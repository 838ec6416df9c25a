"""Rewrites every entry of the view that differs from the fold of the journal, in place, while the system works.

Caller: the command. Each write is guarded by the revision of what it replaces, as the projector's are, so what a
projector has written meanwhile stays. What the walk folded to the end is written as it is; whatever is doubtful is read
from the leaders first. After-effects (deadlines, holds) are not its business. See docs/adr/0017.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from opstream_journal import EventTooLarge, JournalUnavailable, SnapshotStore, SnapshotWrite
from opstream_journal.stores.snapshots import RawSnapshot
from opstream_projector.projection.snapshot_fold import may_have_expired, supersedes, time_to_live
from opstream_schemas.operation.state import Operation
from opstream_schemas.text import format_count

from .entry_check import EntryReader, is_ahead, is_wrong
from .journal_fold import FoldedOperation
from .retry import run_bounded
from .view_scan import OperationExamples, ViewScan, accept_entry

_SafeWrite = tuple[Operation, RawSnapshot | None]
"""A state that may be written as it is, and the entry that it replaces."""

_WRITERS: Final = 128
_MAX_TRIES: Final = 20
_RETRY_DELAY: Final = 0.05
_SHORTEST_TTL: Final = 1.0


class ViewRebuilder:
    """Compares and rewrites; a `ScanVisitor`.

    Args:
        view: where snapshots go.
        looker: looks at what is doubtful.
        now: the time, with zone.
    """

    def __init__(self, view: SnapshotStore, looker: EntryReader, *, now: Callable[[], datetime]) -> None:
        self._view = view
        self._reader = looker
        self._now = now
        self._writers = asyncio.Semaphore(_WRITERS)
        self.rewritten = 0
        """Entries that differed."""
        self.missing = 0
        """Entries that were not there, and are now."""
        self.removed = 0
        """Entries of operations that the journal does not know."""
        self.unfoldable = OperationExamples()
        self.unstorable = OperationExamples()

    async def visit_operations(self, batch: Sequence[FoldedOperation], sweep: ViewScan) -> None:
        """See `ScanVisitor`."""
        ids = [one.operation_id for one in batch]
        snapshots = await sweep.retry(lambda: sweep.snapshots.get(ids))
        now = self._now()
        todo: list[Callable[[], Awaitable[None]]] = []
        safe: list[_SafeWrite] = []
        for folded in batch:
            snapshot, operation = snapshots.get(folded.operation_id), folded.operation
            if snapshot is not None and snapshot.revision in sweep.seen_revisions:
                continue
            if operation is None:
                todo.append(functools.partial(self._repair, folded.operation_id, sweep))
            elif accept_entry(folded, operation, snapshot, now, sweep):
                continue
            elif folded.is_last and self._is_safe_to_write(operation, snapshot, now):
                safe.append((operation, snapshot))
            else:
                todo.append(functools.partial(self._repair, folded.operation_id, sweep))
        if not await self._write_together(safe, sweep):
            todo += [functools.partial(self._replace, *one, sweep) for one in safe]
        await run_bounded(todo, self._writers)

    async def visit_entries(self, snapshots: Sequence[RawSnapshot], sweep: ViewScan) -> None:
        """See `ScanVisitor`."""
        todo = [functools.partial(self._repair, one.operation_id, sweep) for one in snapshots]
        await run_bounded(todo, self._writers)

    def _is_safe_to_write(self, operation: Operation, snapshot: RawSnapshot | None, now: datetime) -> bool:
        """Whether the fold may be written as the walk has it: it only takes the place of something older."""
        if snapshot is None:
            # Behind the walk's end it may have ended and left the view: as open it would stay for long.
            return operation.is_terminal or not may_have_expired(operation, now)
        return supersedes(operation, snapshot.operation)

    async def _write_together(self, safe: Sequence[_SafeWrite], sweep: ViewScan) -> bool:
        """Write all at once; False if somebody has written one of them meanwhile, or each has to go by itself."""
        writes = [self._write(operation, snapshot) for operation, snapshot in safe]
        written = await sweep.retry(lambda: self._view.put_batch(writes)) if len(writes) > 1 else None
        for (_, snapshot), revision in zip(safe, written or (), strict=written is not None):
            self._count(snapshot, revision, sweep)
        return written is not None

    async def _replace(self, operation: Operation, snapshot: RawSnapshot | None, sweep: ViewScan) -> None:
        if not await self._write_one(operation, snapshot, sweep):
            await self._repair(operation.id, sweep)

    async def _repair(self, operation_id: str, sweep: ViewScan) -> None:
        """Make the entry what the leaders' journal says, and never less than somebody else has made it meanwhile.

        Raises:
            JournalUnavailable: the leaders did not answer for long, or the entry keeps changing.
            JournalError: the broker refused.
        """
        is_second = False
        for _ in range(_MAX_TRIES):
            look = await sweep.retry(functools.partial(self._reader.read, operation_id))
            if look.problem:
                self.unfoldable.add(operation_id, look.problem)
            snapshot, operation = look.snapshot, look.operation
            if not is_wrong(look, self._now()):
                if snapshot is not None:
                    sweep.seen_revisions.add(snapshot.revision)
                return
            is_less = snapshot is not None and (operation is None or is_ahead(snapshot, operation))
            if is_less and not is_second:
                # The journal may have been read from a leader that is none any more; a second look is from a new one.
                is_second = True
            elif operation is None:
                await self._remove(snapshot, sweep)
                return
            elif await self._write_one(operation, snapshot, sweep):
                return
            await sweep.link.sleep(_RETRY_DELAY)
        raise JournalUnavailable(f"the entry of operation {operation_id} keeps changing", maybe_stored=False)

    async def _write_one(self, operation: Operation, snapshot: RawSnapshot | None, sweep: ViewScan) -> bool:
        """Write a snapshot in the place of another, or of none; False if somebody else has written meanwhile."""
        try:
            written = await sweep.retry(lambda: self._put(operation, snapshot))
        except EventTooLarge as error:
            self.unstorable.add(operation.id, str(error))
            return True
        if written is None:
            return False
        self._count(snapshot, written, sweep)
        return True

    async def _put(self, operation: Operation, snapshot: RawSnapshot | None) -> int | None:
        write = self._write(operation, snapshot)
        return await self._view.put(operation, write.revision, ttl=write.ttl)

    def _count(self, snapshot: RawSnapshot | None, written: int, sweep: ViewScan) -> None:
        sweep.seen_revisions.add(written)
        if snapshot is None:
            self.missing += 1
        else:
            self.rewritten += 1

    def _write(self, operation: Operation, snapshot: RawSnapshot | None) -> SnapshotWrite:
        # One whose time is over and that is there all the same, as something else, goes as soon as the broker lets it.
        seconds = max(time_to_live(operation, self._now()), _SHORTEST_TTL)
        ttl = None if seconds == math.inf else float(math.ceil(seconds))
        return SnapshotWrite(operation, snapshot.revision if snapshot is not None else 0, ttl)

    async def _remove(self, snapshot: RawSnapshot | None, sweep: ViewScan) -> None:
        if snapshot is not None:
            await sweep.retry(lambda: sweep.snapshots.remove(snapshot.operation_id, snapshot.revision))
            self.removed += 1


class RebuildSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a rebuild did."""

    events: int
    operations: int
    rewritten: int
    missing: int
    removed: int
    seconds: float

    def __str__(self) -> str:
        rate = self.events / self.seconds if self.seconds > 0 else 0.0
        return (
            f"{format_count(self.events, 'event')} of {format_count(self.operations, 'operation')} read, "
            f"{format_count(self.rewritten, 'entry', 'entries')} rewritten, "
            f"{format_count(self.missing, 'missing one')} written, {self.removed:,} removed, in {self.seconds:.1f} s "
            f"({rate:,.0f} events/s)"
        )
