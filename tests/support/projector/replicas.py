"""A view and a journal in memory, and replicas that are stepped in any order, for tests of `SnapshotWriter`.

Before each call to the broker the test chooses which replica continues.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from datetime import datetime
from typing import Any

from opstream_journal import JournalUnavailable, SnapshotEntry, SnapshotWrite
from opstream_projector.projection.batch_writer import BatchWriter
from opstream_projector.projection.snapshot_cache import SnapshotCache
from opstream_projector.projection.snapshot_writer import SnapshotWriter
from opstream_schemas.events import RecordedEvent
from opstream_schemas.operation.state import Operation


class InterleavePoint:
    """Awaiting it hands control to `interleave`."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def interleave(coroutines: Sequence[Coroutine[Any, Any, None]], choose: Callable[[int], int]) -> None:
    """Run coroutines that await only `InterleavePoint`, one step at a time; `choose(n)` picks one of n."""
    alive = list(coroutines)
    try:
        while alive:
            chosen = alive[choose(len(alive))]
            try:
                chosen.send(None)
            except StopIteration:
                alive.remove(chosen)
    finally:
        for abandoned in alive:
            abandoned.close()


class MemoryView:
    """A view in memory, with conditional writes. A read from a replica may be one write behind."""

    def __init__(self, *, faults: Iterable[str] = ()) -> None:
        self.entries: dict[str, list[tuple[SnapshotEntry, float | None]]] = {}
        self.revision = 0
        self.reads = 0
        self.batches: list[list[str]] = []
        """The operations of each batch, of refused ones, too."""
        self._faults = iter(faults)
        """What happens to the next writes: `ok`; `lost` (not stored); `unsure` (stored, but not acknowledged)."""
        self.is_behind: Callable[[], bool] = lambda: False

    def stored(self, operation_id: str) -> Operation | None:
        """Return the present snapshot."""
        return self._last(operation_id).operation

    def ttl(self, operation_id: str) -> float | None:
        """Return the TTL of the last write."""
        return self.entries[operation_id][-1][1]

    def written(self, operation_id: str) -> list[Operation | None]:
        """Return all snapshots that were ever stored, oldest first."""
        return [entry.operation for entry, _ in self.entries.get(operation_id, [])]

    async def get(self, operation_id: str) -> SnapshotEntry:
        await InterleavePoint()
        self.reads += 1
        older = self.entries.get(operation_id, [])[:-1]
        if self.is_behind():
            return older[-1][0] if older else SnapshotEntry(0, None)
        return self._last(operation_id)

    async def get_newest(self, operation_id: str) -> SnapshotEntry:
        await InterleavePoint()
        self.reads += 1
        return self._last(operation_id)

    async def put(self, operation: Operation, revision: int, *, ttl: float | None = None) -> int | None:
        await InterleavePoint()
        fault = next(self._faults, "ok")
        if fault == "lost":
            raise JournalUnavailable("no answer", maybe_stored=True)
        if revision != self._last(operation.id).revision:
            return None
        self.plant(operation.id, operation, ttl=ttl)
        if fault == "unsure":
            raise JournalUnavailable("no answer", maybe_stored=True)
        return self.revision

    async def put_batch(self, writes: Sequence[SnapshotWrite]) -> Sequence[int] | None:
        await InterleavePoint()
        self.batches.append([write.operation.id for write in writes])
        fault = next(self._faults, "ok")
        if fault == "lost":
            raise JournalUnavailable("no answer", maybe_stored=True)
        if any(write.revision != self._last(write.operation.id).revision for write in writes):
            return None
        first = self.revision + 1
        for write in writes:
            self.plant(write.operation.id, write.operation, ttl=write.ttl)
        if fault == "unsure":
            raise JournalUnavailable("no answer", maybe_stored=True)
        return range(first, self.revision + 1)

    def plant(self, operation_id: str, operation: Operation | None, *, ttl: float | None = None) -> None:
        """Store unconditionally; None for a snapshot that this version can't read."""
        self.revision += 1
        self.entries.setdefault(operation_id, []).append((SnapshotEntry(self.revision, operation), ttl))

    def _last(self, operation_id: str) -> SnapshotEntry:
        found = self.entries.get(operation_id)
        return found[-1][0] if found else SnapshotEntry(0, None)


class MemoryEntries:
    """Reads many entries of a view in memory."""

    def __init__(self, view: MemoryView) -> None:
        self._view = view

    async def get(self, operation_ids: Sequence[str]) -> dict[str, SnapshotEntry]:
        found = {one: await self._view.get(one) for one in operation_ids}
        return {one: entry for one, entry in found.items() if entry.revision}


class MemoryJournal:
    """A journal in memory: reads are complete up to what has been appended so far."""

    def __init__(self, *histories: Any) -> None:
        self._events: dict[str, list[RecordedEvent]] = {history.id: history.events for history in histories}
        self._reached: dict[str, int] = {}
        self.error: Exception | None = None
        self.reads = 0

    def reach(self, operation_id: str, sequence: int) -> None:
        """Append everything up to `sequence`."""
        self._reached[operation_id] = max(sequence, self._reached.get(operation_id, 0))

    async def events(self, operation_id: str, *, since: Operation | None = None) -> list[RecordedEvent]:
        await InterleavePoint()
        self.reads += 1
        if self.error is not None:
            raise self.error
        after = since.stream_sequence if since else 0
        reached = self._reached.get(operation_id, 0)
        return [event for event in self._events.get(operation_id, []) if after < event.sequence <= reached]


class Replica:
    """The writer of one projector, without its loop."""

    def __init__(
        self,
        view: MemoryView,
        journal: MemoryJournal,
        now: Callable[[], datetime],
        *,
        recent: int = 100,
        least: int = 1_000,
    ) -> None:
        self._journal = journal
        cache = SnapshotCache(max_entries=recent, max_bytes=2**30)
        self.writer = SnapshotWriter(view, journal, cache, now=now, sleep=_sleep)
        self.batches = BatchWriter(view, MemoryEntries(view), cache, now=now, least=least)
        self.refused: list[int] = []
        self.doubtful: list[int] = []

    async def take(self, *batches: Sequence[RecordedEvent]) -> None:
        """Project batches of events, one after the other; a batch that fails is delivered again."""
        todo = [batch for batch in batches if batch]
        while todo:
            batch = todo.pop(0)
            groups = {
                operation_id: sorted((e for e in batch if e.operation_id == operation_id), key=lambda e: e.sequence)
                for operation_id in sorted({event.operation_id for event in batch})
            }
            for operation_id, events in groups.items():
                self._journal.reach(operation_id, events[-1].sequence)
            stored = await self.batches.project(groups)
            for operation_id, events in groups.items():
                if operation_id in stored:
                    continue
                try:
                    result = await self.writer.project(operation_id, events)
                except JournalUnavailable:
                    todo.append(events)
                    continue
                self.refused += [one.event.sequence for one in result.refused]
                self.doubtful += [one.event.sequence for one in result.doubtful]

    def run(self, *batches: Sequence[RecordedEvent]) -> None:
        """Run `take` without another replica."""
        interleave([self.take(*batches)], lambda _: 0)


async def _sleep(_seconds: float) -> None:
    await InterleavePoint()
