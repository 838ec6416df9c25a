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

from opstream_journal import Link
from opstream_journal.jetstream.ordered_consumer import Edges
from opstream_journal.jetstream.stream_scan import edges, scan
from opstream_journal.stores.snapshots import VIEW_STREAM, Snapshot, Snapshots, operation_of
from opstream_projector.projection.snapshot_cache import size_of
from opstream_projector.projection.snapshot_fold import supersedes
from opstream_schemas import subjects
from opstream_schemas.operation.fold import Operation

from .entry_check import is_over, is_same
from .journal_fold import Folded, Walk
from .retry import first_error, patiently

BATCH: Final = 256

_BATCH_BYTES: Final = 8 * 1024 * 1024
"""About so much in a batch: a single result may have 256 KiB."""
_AT_ONCE: Final = 4
"""Batches that are compared at the same time."""

_T = TypeVar("_T")


class Progress(Protocol):
    """Is told how far it is."""

    def begin(self, what: str, total: int) -> None:
        """So many `what` are to be gone through now."""

    def show(self, done: int) -> None:
        """So many of them are done."""

    def end(self) -> None:
        """All of them are."""


class Batch(Generic[_T]):
    """What is compared together: no more than so many, nor of more than so many bytes."""

    def __init__(self) -> None:
        self._found: list[_T] = []
        self._bytes = 0

    def add(self, one: _T, size: int) -> bool:
        """Add one of about so many bytes; whether that makes it full."""
        self._found.append(one)
        self._bytes += size
        return len(self._found) >= BATCH or self._bytes >= _BATCH_BYTES

    def take(self) -> list[_T]:
        """What is in it; it is empty then."""
        found, self._found, self._bytes = self._found, [], 0
        return found


class Judge(Protocol):
    """What compares, and does what follows."""

    async def compare(self, batch: Sequence[Folded], sweep: Sweep) -> None:
        """Compare operations, each of which comes once, with their entries; mark each entry that is right."""

    async def check(self, snapshots: Sequence[Snapshot], sweep: Sweep) -> None:
        """Look into entries that were not marked, and that don't end where the journal's operation does."""


class Sweep:
    """One way through everything.

    Args:
        link: the connection.
        snapshots: started.
        walk: folds the journal.
        progress: is told how far it is.
    """

    def __init__(self, link: Link, snapshots: Snapshots, walk: Walk, progress: Progress) -> None:
        self.link = link
        self.snapshots = snapshots
        self.walk = walk
        self.last = 0
        """The stream sequence at which the walk ends."""
        self.marks = Marks(0)
        self._progress = progress
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tasks = asyncio.TaskGroup()

    async def run(self, judge: Judge) -> None:
        """Go through the journal, then through the view.

        Raises:
            NotProvisioned: there is no journal, or no view.
            JournalError: the broker was away for too long, or refused.
        """
        try:
            await self._run(judge)
        except ExceptionGroup as group:
            raise first_error(group) from group

    async def _run(self, judge: Judge) -> None:
        journal = await self.patiently(lambda: edges(self.link, subjects.OPERATIONS_STREAM))
        view = await self.patiently(lambda: edges(self.link, VIEW_STREAM))
        self.last = journal.last
        self.marks = Marks(view.first)
        await self._through_journal(judge, journal)
        await self._through_view(judge)

    async def _through_journal(self, judge: Judge, journal: Edges) -> None:
        self._progress.begin("events", journal.messages)
        batch: Batch[Folded] = Batch()
        async with asyncio.TaskGroup() as self._tasks:

            async def take(found: Iterable[Folded]) -> None:
                for one in found:
                    if batch.add(one, size_of(one.operation) if one.operation is not None else 0):
                        await self._start(functools.partial(judge.compare, once_each(batch.take()), self))

            async for messages in scan(self.link, subjects.OPERATIONS_STREAM, first=journal.first, last=journal.last):
                await take(self.walk.fold(messages))
                self._progress.show(min(self.walk.passed, journal.messages))
            await take(self.walk.rest())
            await self._start(functools.partial(judge.compare, once_each(batch.take()), self))
        self._progress.end()

    async def _through_view(self, judge: Judge) -> None:
        view = await self.patiently(lambda: edges(self.link, VIEW_STREAM))
        self._progress.begin("entries", view.messages)
        done = 0
        batch: Batch[Snapshot] = Batch()
        async with asyncio.TaskGroup() as self._tasks:
            async for messages in scan(self.link, VIEW_STREAM, first=view.first, last=view.last):
                done += len(messages)
                for one in messages:
                    if one.sequence in self.marks:
                        continue
                    if batch.add(Snapshot(operation_of(one.subject), one.sequence, one.data), len(one.data)):
                        await self._start(functools.partial(self._check, judge, batch.take()))
                self._progress.show(min(done, view.messages))
            await self._start(functools.partial(self._check, judge, batch.take()))
        self._progress.end()

    async def _check(self, judge: Judge, snapshots: Sequence[Snapshot]) -> None:
        """An entry that is as far as the journal was compared, or is too young to be; the others are for the judge."""
        ids = [one.operation_id for one in snapshots]
        lasts = await self.patiently(lambda: self.snapshots.last_sequences(ids))
        doubtful = [one for one in snapshots if one.problem or lasts.get(one.operation_id) != one.sequence]
        await judge.check(doubtful, self)

    async def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._slots.acquire()
        self._tasks.create_task(self._do(work))

    async def _do(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._slots.release()

    async def patiently(self, step: Callable[[], Awaitable[_T]]) -> _T:
        """Take a step, again and again while the broker is away.

        Raises:
            JournalUnavailable: it was for too long.
        """
        return await patiently(self.link, step)


def once_each(batch: Sequence[Folded]) -> list[Folded]:
    """One for each operation. Of one that comes more than once, only the journal can tell which state is its."""
    found: dict[str, Folded] = {}
    for one in batch:
        known = one.operation_id in found
        found[one.operation_id] = Folded(one.operation_id, None, is_last=True) if known else one
    return list(found.values())


def is_right(folded: Folded, operation: Operation, snapshot: Snapshot | None, now: datetime, sweep: Sweep) -> bool:
    """Whether the entry is as the walk has folded the operation, or may be and is compared again later in the walk.

    The latter holds where it claims to have seen more, and the walk is still to come there. If it lies, the second part
    of the sweep finds that its last event is not the operation's.
    """
    if snapshot is None:
        return is_over(operation, now)
    if is_same(snapshot, operation):
        if folded.is_last:
            sweep.marks.add(snapshot.revision)
        return True
    stored = snapshot.operation
    if folded.is_last or stored is None or stored.stream_sequence > sweep.last:
        return False
    return supersedes(stored, operation)


_MARKS: Final = 16 * 1024 * 1024
_NAMED: Final = 20


class Marks:
    """Revisions of entries, one bit each: of those from `first` on, as many as fit into `size` bytes."""

    def __init__(self, first: int, size: int = _MARKS) -> None:
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


class Named:
    """Operations that are told of: all counted (one that comes again, again), the first ones named, with a reason."""

    def __init__(self) -> None:
        self.count = 0
        self.first: dict[str, str] = {}

    def add(self, operation_id: str, why: str) -> None:
        """Count one."""
        if operation_id in self.first:
            return
        self.count += 1
        if len(self.first) < _NAMED:
            self.first[operation_id] = why
