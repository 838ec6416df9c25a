"""Brings the snapshot of one operation up to date: fold the delivered events, read missing ones, write conditionally.

Within a process, an operation is updated by one call at a time. Replicas may update the same operation at the same
time: a write replaces only the revision that it is based on. The loser of a race reads again; each lost race means that
another replica made progress. Nothing here acknowledges messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec

from opstream_journal import JournalUnavailable, SnapshotEntry
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import RecordedEvent
from opstream_schemas.operation.state import Operation

from .snapshot_cache import SnapshotCache
from .snapshot_fold import RefusedEvent, broker_ttl, fold_all, fold_onto, may_have_expired, supersedes, time_to_live

_MAX_TRIES: Final = 20
_FIRST_DELAY: Final = 0.005
_MAX_DELAY: Final = 0.2
_MIN_TTL: Final = 1.0


class SnapshotBackend(Protocol):
    """The part of `opstream_journal.SnapshotStore` that is used here."""

    async def get(self, operation_id: str) -> SnapshotEntry: ...
    async def get_newest(self, operation_id: str) -> SnapshotEntry: ...
    async def put(self, operation: Operation, revision: int, *, ttl: float | None = None) -> int | None: ...


class EventSource(Protocol):
    """The part of `opstream_journal.Journal` that is used here."""

    async def events(self, operation_id: str, *, since: Operation | None = None) -> list[RecordedEvent]: ...


class ProjectionResult(msgspec.Struct, frozen=True):
    """Which delivered events are not in the snapshot. All others are, or the snapshot has expired."""

    refused: tuple[RefusedEvent, ...] = ()
    """Foreign events: the operation's complete journal was read, and they do not continue it."""
    doubtful: tuple[RefusedEvent, ...] = ()
    """Events that do not continue what could be read; the rest can't be read (damaged or expired)."""
    operation: Operation | None = None
    """What the view holds now, or would hold if it had not expired."""


class _BeginningMissing(Exception):
    """The journal no longer has the first event of the operation."""


class _WriteBase(msgspec.Struct, frozen=True):
    """The entry that a write is based on."""

    entry: SnapshotEntry
    is_from_leader: bool
    """True if it was read from the leader; otherwise it was assumed, cached or read from any replica."""

    @property
    def is_unknown(self) -> bool:
        """Return True if there is an entry that this version can't read or must not trust."""
        return self.entry.operation is None and self.entry.revision > 0


class SnapshotWriter:
    """Updates snapshots.

    Args:
        snapshots: the view.
        journal: where missing events are read.
        cache: of the snapshots written last.
        now: the time, with zone.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        snapshots: SnapshotBackend,
        journal: EventSource,
        cache: SnapshotCache,
        *,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._snapshots = snapshots
        self._journal = journal
        self._cache = cache
        self._now = now
        self._sleep = sleep

    async def project(self, operation_id: str, events: Sequence[RecordedEvent]) -> ProjectionResult:
        """Make the snapshot at least as new as the given events, which are in stream order.

        Raises:
            JournalUnavailable: the broker did not answer, or other replicas keep writing; try again later.
            JournalError: the broker refused.
        """
        base = await self._first_base(operation_id, events)
        delay = _FIRST_DELAY
        for _ in range(_MAX_TRIES):
            result, target = await self._fold(operation_id, base, events)
            stored = base.entry.operation
            if target is None or not supersedes(target, stored):
                if stored is not None:
                    self._cache.update(stored, base.entry.revision)
                return msgspec.structs.replace(result, operation=stored or target)
            revision = await self._write(base, target)
            if revision is not None:
                self._cache.update(target, revision)
                return msgspec.structs.replace(result, operation=target)
            newest = await self._snapshots.get_newest(operation_id)
            if newest.revision == base.entry.revision:
                # The winning write is not applied on the leader yet (three replicas, err_code 10164): wait until it is.
                await self._sleep(delay)
                delay = min(delay * 2, _MAX_DELAY)
            base = _WriteBase(_own_entry(newest, operation_id), is_from_leader=True)
        self._cache.discard(operation_id)
        raise JournalUnavailable(f"the snapshot of operation {operation_id} keeps changing", maybe_stored=False)

    async def _first_base(self, operation_id: str, events: Sequence[RecordedEvent]) -> _WriteBase:
        """Return what most likely is the present entry, at the least cost."""
        known = self._cache.get(operation_id)
        if known is not None:
            return _WriteBase(known, is_from_leader=False)
        if events[0].position == 1:
            # Most likely there is no entry yet; otherwise the write finds another revision than it expects.
            return _WriteBase(SnapshotEntry(0, None), is_from_leader=False)
        return _WriteBase(_own_entry(await self._snapshots.get(operation_id), operation_id), is_from_leader=False)

    async def _fold(
        self, operation_id: str, base: _WriteBase, events: Sequence[RecordedEvent]
    ) -> tuple[ProjectionResult, Operation | None]:
        stored = base.entry.operation
        result = fold_onto(stored, events)
        is_sure = not base.is_unknown and not self._may_be_expired(base, result.operation)
        if is_sure and not result.refused:
            return ProjectionResult(), result.operation
        try:
            return await self._repair(operation_id, stored, events)
        except (InvalidEvent, _BeginningMissing) as error:
            # Events that continue a trusted snapshot are right, whatever the journal lacks.
            doubted = [refused.event for refused in result.refused] if is_sure else events
            doubtful = tuple(RefusedEvent(event, str(error)) for event in doubted)
            return ProjectionResult(doubtful=doubtful), result.operation if is_sure else stored

    async def _repair(
        self, operation_id: str, stored: Operation | None, events: Sequence[RecordedEvent]
    ) -> tuple[ProjectionResult, Operation | None]:
        """Fold what the journal holds: onto the snapshot if that is possible, otherwise from the first event.

        Raises:
            InvalidEvent: the journal holds something that is not an event.
            _BeginningMissing: the operation's beginning has expired.
        """
        if stored is not None:
            following = await self._journal.events(operation_id, since=stored)
            result = fold_onto(stored, following)
            if not result.refused:
                _require_read_up_to(following[-1].sequence if following else stored.stream_sequence, events)
                return ProjectionResult(), result.operation
        everything = await self._journal.events(operation_id)
        if not everything:
            raise _BeginningMissing("the journal no longer holds the operation's beginning")
        _require_read_up_to(everything[-1].sequence, events)
        result = fold_all(everything)
        delivered = {event.sequence for event in events}
        refused = tuple(one for one in result.refused if one.event.sequence in delivered)
        return ProjectionResult(refused=refused), result.operation

    def _may_be_expired(self, base: _WriteBase, operation: Operation | None) -> bool:
        return base.entry.revision == 0 and operation is not None and may_have_expired(operation, self._now())

    async def _write(self, base: _WriteBase, target: Operation) -> int | None:
        """Write the snapshot, if it needs to be.

        Returns:
            The revision of the entry; None if another replica wrote first.
        """
        entry = base.entry
        seconds = time_to_live(target, self._now())
        if seconds <= 0:
            if not base.is_from_leader:
                entry = _own_entry(await self._snapshots.get_newest(target.id), target.id)
            if entry.revision == 0 or (entry.operation is not None and entry.operation.is_terminal):
                return entry.revision
            # An open snapshot would live for long: replace it by one that expires as soon as the broker allows.
            seconds = _MIN_TTL
        return await self._snapshots.put(target, entry.revision, ttl=broker_ttl(seconds))


def _own_entry(entry: SnapshotEntry, operation_id: str) -> SnapshotEntry:
    if entry.operation is not None and entry.operation.id != operation_id:
        return SnapshotEntry(entry.revision, None)
    return entry


def _require_read_up_to(sequence: int, events: Sequence[RecordedEvent]) -> None:
    """Check that a read holds the delivered events.

    Raises:
        JournalUnavailable: it does not: it came from a former leader.
    """
    if events[-1].sequence > sequence:
        raise JournalUnavailable(
            f"the journal of operation {events[-1].operation_id} was read only up to sequence {sequence}, "
            f"but {events[-1].sequence} was delivered",
            maybe_stored=False,
        )
