"""Brings the view up to date for one operation: fold what was delivered, repair gaps from the journal, write guarded.

Caller: `projector.py`, never twice at once for the same operation. Any number of replicas may do the same at the same
time: a write replaces only the revision that it was made from, so the loser looks again, and each loss means that
somebody else made progress. Nothing here acknowledges messages.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec

from opstream_journal import JournalUnavailable, SnapshotEntry
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import RecordedEvent
from opstream_schemas.operation.state import Operation

from .snapshot_cache import SnapshotCache
from .snapshot_fold import RefusedEvent, fold_all, fold_onto, may_have_expired, supersedes, time_to_live

_MAX_TRIES: Final = 20
_FIRST_DELAY: Final = 0.005
_MAX_DELAY: Final = 0.2
_MIN_TTL: Final = 1.0


class SnapshotBackend(Protocol):
    """What is needed of `opstream_journal.View`."""

    async def get(self, operation_id: str) -> SnapshotEntry: ...
    async def get_newest(self, operation_id: str) -> SnapshotEntry: ...
    async def put(self, operation: Operation, revision: int, *, ttl: float | None = None) -> int | None: ...


class EventSource(Protocol):
    """What is needed of `opstream_journal.Journal`."""

    async def events(self, operation_id: str, *, since: Operation | None = None) -> list[RecordedEvent]: ...


class ProjectionResult(msgspec.Struct, frozen=True):
    """What became of the delivered events. All others are in the view, or their snapshot's time is over."""

    refused: tuple[RefusedEvent, ...] = ()
    """Foreign: the complete journal of the operation was read, and they do not continue it."""
    doubtful: tuple[RefusedEvent, ...] = ()
    """They do not continue what could be read, and the rest can't be read (damaged or expired)."""
    operation: Operation | None = None
    """What the view holds now, or would if its time were not over."""


class _BeginningMissing(Exception):
    """The journal has no first event of the operation."""


class _WriteBase(msgspec.Struct, frozen=True):
    """What a write is made from."""

    entry: SnapshotEntry
    is_from_leader: bool
    """Read from the leader, not guessed, remembered or read from any replica."""

    @property
    def is_unknown(self) -> bool:
        """Whether another fold, or nobody sensible, wrote what is there."""
        return self.entry.operation is None and self.entry.revision > 0


class SnapshotWriter:
    """Writes snapshots.

    Args:
        view: where they are stored.
        journal: where gaps are repaired from.
        recent: remembers what was written.
        now: the time, with zone.
        rest: waits some seconds.
    """

    def __init__(
        self,
        view: SnapshotBackend,
        journal: EventSource,
        recent: SnapshotCache,
        *,
        now: Callable[[], datetime],
        rest: Callable[[float], Awaitable[None]],
    ) -> None:
        self._view = view
        self._journal = journal
        self._cache = recent
        self._now = now
        self._rest = rest

    async def project(self, operation_id: str, events: Sequence[RecordedEvent]) -> ProjectionResult:
        """Make the snapshot at least as new as each of the events, which are in stream order.

        Raises:
            JournalUnavailable: the broker did not answer or others keep writing; try again later.
            JournalError: the broker refused.
        """
        base = await self._base(operation_id, events)
        wait = _FIRST_DELAY
        for _ in range(_MAX_TRIES):
            outcome, target = await self._fold(operation_id, base, events)
            stored = base.entry.operation
            if target is None or not supersedes(target, stored):
                if stored is not None:
                    self._update_cache(stored, base.entry.revision)
                return msgspec.structs.replace(outcome, operation=stored or target)
            revision = await self._write(base, target)
            if revision is not None:
                self._update_cache(target, revision)
                return msgspec.structs.replace(outcome, operation=target)
            newest = await self._view.get_newest(operation_id)
            if newest.revision == base.entry.revision:
                # The winner is still on its way to the replicas (R3, err_code 10164): nothing to see before it is.
                await self._rest(wait)
                wait = min(wait * 2, _MAX_DELAY)
            base = _WriteBase(_own_entry(newest, operation_id), is_from_leader=True)
        self._cache.discard(operation_id)
        raise JournalUnavailable(f"the snapshot of operation {operation_id} keeps changing", maybe_stored=False)

    def _update_cache(self, operation: Operation, revision: int) -> None:
        if operation.is_terminal:
            self._cache.discard(operation.id)  # nothing follows
        else:
            self._cache.put(operation, revision)

    async def _base(self, operation_id: str, events: Sequence[RecordedEvent]) -> _WriteBase:
        known = self._cache.get(operation_id)
        if known is not None:
            return _WriteBase(known, is_from_leader=False)
        if events[0].position == 1:
            # There is nothing yet, most likely; the guard of the write tells.
            return _WriteBase(SnapshotEntry(0, None), is_from_leader=False)
        return _WriteBase(_own_entry(await self._view.get(operation_id), operation_id), is_from_leader=False)

    async def _fold(
        self, operation_id: str, base: _WriteBase, events: Sequence[RecordedEvent]
    ) -> tuple[ProjectionResult, Operation | None]:
        stored = base.entry.operation
        given = fold_onto(stored, events)
        is_sure = not base.is_unknown and not self._may_be_expired(base, given.operation)
        if is_sure and not given.refused:
            return ProjectionResult(), given.operation
        try:
            return await self._repair(operation_id, stored, events)
        except (InvalidEvent, _BeginningMissing) as error:
            # What continues the snapshot is right all the same, if the snapshot itself is.
            doubted = [refusal.event for refusal in given.refused] if is_sure else events
            doubtful = tuple(RefusedEvent(event, str(error)) for event in doubted)
            return ProjectionResult(doubtful=doubtful), given.operation if is_sure else stored

    async def _repair(
        self, operation_id: str, stored: Operation | None, events: Sequence[RecordedEvent]
    ) -> tuple[ProjectionResult, Operation | None]:
        """Fold what the journal holds: onto the snapshot if that is possible, otherwise anew.

        Raises:
            InvalidEvent: it holds something that is no event.
            _BeginningExpired: its beginning is gone.
        """
        if stored is not None:
            following = await self._journal.events(operation_id, since=stored)
            folding = fold_onto(stored, following)
            if not folding.refused:
                _require_read_up_to(following[-1].sequence if following else stored.stream_sequence, events)
                return ProjectionResult(), folding.operation
        everything = await self._journal.events(operation_id)
        if not everything:
            raise _BeginningMissing("the journal does not hold the operation's beginning any more")
        _require_read_up_to(everything[-1].sequence, events)
        folding = fold_all(everything)
        delivered = {event.sequence for event in events}
        refused = tuple(refusal for refusal in folding.refused if refusal.event.sequence in delivered)
        return ProjectionResult(refused=refused), folding.operation

    def _may_be_expired(self, base: _WriteBase, operation: Operation | None) -> bool:
        return base.entry.revision == 0 and operation is not None and may_have_expired(operation, self._now())

    async def _write(self, base: _WriteBase, target: Operation) -> int | None:
        """The revision under which the operation is settled; None where somebody else wrote first."""
        entry = base.entry
        seconds = time_to_live(target, self._now())
        if seconds <= 0:
            if not base.is_from_leader:
                entry = _own_entry(await self._view.get_newest(target.id), target.id)
            if entry.revision == 0 or (entry.operation is not None and entry.operation.is_terminal):
                return entry.revision
            # An open snapshot would stay for long; its successor goes as soon as the broker can let it go.
            seconds = _MIN_TTL
        # Whole seconds, rounded up: the contract promises a least time.
        ttl = None if seconds == math.inf else float(math.ceil(seconds))
        return await self._view.put(target, entry.revision, ttl=ttl)


def _own_entry(entry: SnapshotEntry, operation_id: str) -> SnapshotEntry:
    if entry.operation is not None and entry.operation.id != operation_id:
        return SnapshotEntry(entry.revision, None)
    return entry


def _require_read_up_to(sequence: int, events: Sequence[RecordedEvent]) -> None:
    """A read that does not hold what was delivered came from a leader that is none any more."""
    if events[-1].sequence > sequence:
        raise JournalUnavailable(
            f"the journal of operation {events[-1].operation_id} was read up to sequence {sequence} only, "
            f"{events[-1].sequence} was delivered",
            maybe_stored=False,
        )
