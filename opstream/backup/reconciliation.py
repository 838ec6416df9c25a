"""Makes restored streams fit together: they are from different moments, and the journal decides.

The view becomes the fold of the journal. Then each operation that is open gets what moves it on, whatever the other
streams say: its deadline, the time of its next attempt, and the lock that it owned.
"""

from __future__ import annotations

import asyncio
import functools
import time
from datetime import UTC, datetime
from typing import Final

import msgspec

from opstream.terminal.progress_bar import ProgressBar
from opstream_journal import Connection, Journal, SnapshotStore
from opstream_journal.jetstream.stream_scan import stream_bounds
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.snapshots import VIEW_STREAM, RawSnapshots, SnapshotReader
from opstream_journal.stores.timers import schedule_deadline, schedule_wake_up, send_wake_up
from opstream_projector.consistency.entry_check import EntryReader
from opstream_projector.consistency.journal_fold import JournalFold
from opstream_projector.consistency.rebuild import LostEntry, ViewRebuilder
from opstream_projector.consistency.retry import first_error, run_bounded
from opstream_projector.consistency.view_scan import ViewScan
from opstream_schemas.integrity.setback import SetbackEvidence
from opstream_schemas.operation.resource_lock import Claim
from opstream_schemas.operation.state import Operation

RETRY_REASON: Final = "retry"
"""The reason in a runner's own timer of a retry, so that this one replaces it."""
START_REASON: Final = "restored"

_PAGE: Final = 500
_AT_ONCE: Final = 64


class Reconciled(msgspec.Struct, kw_only=True):
    """What was done."""

    operations: int = 0
    rewritten: int = 0
    """Entries of the view that were not the fold of the journal, or were missing."""
    opened: int = 0
    """Open operations, each of which has its timers again."""
    locks: int = 0
    """Locks that were given to the operation that owned them."""
    evidence: SetbackEvidence


class Reconciler:
    """Works on a broker on which no service works.

    Args:
        connection: the connection.
        bar: shows the progress.
    """

    def __init__(self, connection: Connection, bar: ProgressBar) -> None:
        self._connection = connection
        self._bar = bar
        self._journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)
        self._locks = ResourceLocks(connection, self._journal)
        self._limit = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> Reconciled:
        """Rebuild the view, and move all open operations on.

        Raises:
            JournalError: the broker did not answer for long, or refused.
        """
        await self._journal.start()
        await self._locks.start()
        done = await self._rebuild()
        try:
            await self._move_on(done)
        except ExceptionGroup as group:
            raise first_error(group) from group
        return done

    async def _rebuild(self) -> Reconciled:
        snapshots = RawSnapshots(self._connection)
        await snapshots.start()
        try:
            reader = EntryReader(self._connection, self._journal, snapshots, now=_utc_now)
            rebuilder = ViewRebuilder(SnapshotStore(self._connection), reader, now=_utc_now, keep=_leave)
            scan = ViewScan(self._connection, snapshots, JournalFold(), self._bar)
            await scan.run(rebuilder)
        finally:
            await snapshots.stop()
        return Reconciled(
            operations=scan.journal_fold.operations,
            rewritten=rebuilder.rewritten + rebuilder.missing,
            evidence=scan.evidence,
        )

    async def _move_on(self, done: Reconciled) -> None:
        reader = SnapshotReader(self._connection)
        await reader.start()
        bounds = await stream_bounds(self._connection, VIEW_STREAM)
        self._bar.begin("entries", bounds.messages)
        seen, revision = 0, 1
        while revision <= bounds.last and (page := await reader.page(revision, _PAGE)):
            revision = page[-1].revision + 1
            seen += len(page)
            opened = [one.operation for one in page if one.operation is not None and not one.operation.is_terminal]
            await run_bounded([functools.partial(self._move, one, done) for one in opened], self._limit)
            self._bar.show(seen)
        self._bar.end()
        await reader.stop()

    async def _move(self, operation: Operation, done: Reconciled) -> None:
        """Schedule what an operation waits for. A timer that is there is replaced; one too many does no harm."""
        done.opened += 1
        connection, kind = self._connection, operation.kind
        if operation.hold and operation.attempt:
            await self._restore_lock(operation, done)
        await schedule_deadline(connection, kind, operation.id, operation.deadline)
        waiting = operation.waiting
        if waiting is not None:
            await schedule_wake_up(
                connection, kind, operation.id, RETRY_REASON, at=waiting.retry_at, armed_by=waiting.sequence
            )
        elif operation.live is None:
            requested = operation.stream_sequence if operation.position == 1 else 0
            await send_wake_up(connection, kind, operation.id, START_REASON, armed_by=requested)

    async def _restore_lock(self, operation: Operation, done: Reconciled) -> None:
        messages = await self._journal.messages(operation.id)
        claim = Claim(operation_id=operation.id, sequence=messages[0].sequence, kind=str(operation.kind))
        done.locks += await self._locks.restore_owner(operation.hold, claim)


def _leave(_entry: LostEntry) -> None:
    """Leave an entry that knows more than the journal, as each rebuild does that is not forced."""


def _utc_now() -> datetime:
    return datetime.now(UTC)
