"""Writes the snapshots of many operations together, as atomic batches: a batch waits for the disk once.

It takes only what is sure at once: the events continue what the view most likely holds, and nothing has expired. A
batch is stored whole or not at all, so one snapshot that another replica wrote first refuses all of it. Then the
entries are read, in one request, and the batch is tried once more. Whatever is left after that, or is in doubt because
no answer came, is for `snapshot_writer`, which decides each operation for itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from opstream_journal import JournalError, SnapshotEntry, SnapshotWrite
from opstream_schemas.events import RecordedEvent
from opstream_schemas.operation.state import Operation

from .snapshot_cache import SnapshotCache, memory_size
from .snapshot_fold import broker_ttl, fold_onto, may_have_expired, supersedes, time_to_live

logger = logging.getLogger(__name__)

MIN_BATCH: Final = 16
"""Snapshots from which on a batch costs the broker less than as many single writes (docs/adr/0041)."""
MAX_BATCH: Final = 500
"""Snapshots in one batch at most; the broker accepts 1,000 messages."""

_MAX_BATCH_BYTES: Final = 2 * 1024 * 1024
_MAX_SNAPSHOT_BYTES: Final = 64 * 1024
"""A larger snapshot is written alone: the broker keeps a batch in memory, and could refuse it for one that is large."""

EventsById = Mapping[str, Sequence[RecordedEvent]]
"""New events by operation id, each list in stream order."""


class BatchBackend(Protocol):
    """The part of `opstream_journal.SnapshotStore` that is used here."""

    async def put_batch(self, writes: Sequence[SnapshotWrite]) -> Sequence[int] | None: ...


class EntrySource(Protocol):
    """The part of `opstream_journal.stores.snapshots.SnapshotReader` that is used here."""

    async def get(self, operation_ids: Sequence[str]) -> Mapping[str, SnapshotEntry]: ...


class BatchWriter:
    """Updates many snapshots at once.

    Args:
        snapshots: the view, for writing.
        entries: the view, for reading many entries at once.
        cache: of the snapshots written last.
        now: the time, with zone.
        least: see `MIN_BATCH`.
    """

    def __init__(
        self,
        snapshots: BatchBackend,
        entries: EntrySource,
        cache: SnapshotCache,
        *,
        now: Callable[[], datetime],
        least: int = MIN_BATCH,
    ) -> None:
        self._least = least
        self._snapshots = snapshots
        self._entries = entries
        self._cache = cache
        self._now = now

    async def project(self, groups: EventsById) -> dict[str, Operation]:
        """Write snapshots that contain the given events, as far as that is possible at once.

        Returns:
            The states that are stored, by operation id. Those of the other operations may be stored, too, if the broker
            did not answer.
        """
        stored: dict[str, Operation] = {}
        if len(groups) < self._least:
            return stored
        try:
            for batch in _cut(await self._plan(groups)):
                await self._write(batch, groups, stored)
        except JournalError as error:
            logger.debug("snapshots are written one by one: %s", error)
        return stored

    async def _plan(self, groups: EventsById) -> list[SnapshotWrite]:
        bases: dict[str, SnapshotEntry] = {}
        unknown: list[str] = []
        for operation_id, events in groups.items():
            known = self._cache.get(operation_id)
            if known is not None:
                bases[operation_id] = known
            elif events[0].position == 1:
                bases[operation_id] = SnapshotEntry(0, None)  # most likely
            else:
                unknown.append(operation_id)
        if unknown:
            bases.update(await self._entries.get(unknown))
        return self._plan_onto(bases, groups)

    def _plan_onto(self, bases: Mapping[str, SnapshotEntry], groups: EventsById) -> list[SnapshotWrite]:
        now = self._now()
        planned = (plan_write(operation_id, base, groups[operation_id], now) for operation_id, base in bases.items())
        return [write for write in planned if write is not None]

    async def _write(self, batch: Sequence[SnapshotWrite], groups: EventsById, stored: dict[str, Operation]) -> None:
        if len(batch) < self._least:
            return
        revisions = await self._snapshots.put_batch(batch)
        if revisions is None:
            ids = [write.operation.id for write in batch]
            found = await self._entries.get(ids)
            batch = self._plan_onto({one: found.get(one, SnapshotEntry(0, None)) for one in ids}, groups)
            revisions = await self._snapshots.put_batch(batch) if len(batch) >= self._least else None
        if revisions is None:
            return
        for write, revision in zip(batch, revisions, strict=True):
            self._cache.update(write.operation, revision)
            stored[write.operation.id] = write.operation


def plan_write(
    operation_id: str, base: SnapshotEntry, events: Sequence[RecordedEvent], now: datetime
) -> SnapshotWrite | None:
    """Return the write that brings an entry up to date, or None if it is not sure at once that it is right.

    Args:
        operation_id: of the operation.
        base: the entry that the view most likely holds.
        events: new events of the operation, in stream order.
        now: the time, with zone.
    """
    stored = base.operation
    if (stored is None and base.revision) or (stored is not None and stored.id != operation_id):
        return None  # of another version, or of another operation
    result = fold_onto(stored, events)
    operation = result.operation
    if result.refused or operation is None or not supersedes(operation, stored):
        return None
    if not base.revision and may_have_expired(operation, now):
        return None
    seconds = time_to_live(operation, now)
    if seconds <= 0 or memory_size(operation) > _MAX_SNAPSHOT_BYTES:
        return None
    return SnapshotWrite(operation, base.revision, broker_ttl(seconds))


def _cut(writes: Sequence[SnapshotWrite]) -> Iterator[list[SnapshotWrite]]:
    """Cut into batches within the limits of number and bytes."""
    batch: list[SnapshotWrite] = []
    size = 0
    for write in writes:
        own = memory_size(write.operation)
        if batch and (len(batch) == MAX_BATCH or size + own > _MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(write)
        size += own
    if batch:
        yield batch
