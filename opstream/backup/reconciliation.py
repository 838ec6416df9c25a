"""Makes restored streams fit together: they are from different moments, and the journal decides.

The view becomes the fold of the journal. Then each operation that is open gets what moves it on, whatever the other
streams say: its deadline, the time of its next attempt, and the lock that it owned. An attempt that was running has
ended with its runner, and the next one begins at once. One that has ended leaves the lock that an older copy gives it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import uuid_utils

from opstream.terminal.progress_bar import ProgressBar
from opstream_journal import Connection, Journal, SnapshotStore
from opstream_journal.command_handler import CommandHandler
from opstream_journal.stores.resource_locks import ResourceLocks
from opstream_journal.stores.snapshots import RawSnapshot, RawSnapshots
from opstream_journal.stores.timers import schedule_deadline, schedule_wake_up, send_wake_up
from opstream_projector.consistency.entry_check import EntryReader
from opstream_projector.consistency.journal_fold import FoldedOperation, JournalFold
from opstream_projector.consistency.rebuild import LostEntry, ViewRebuilder
from opstream_projector.consistency.retry import run_bounded
from opstream_projector.consistency.view_scan import ViewScan
from opstream_schemas.errors import DecisionRefused, ErrorCode, FoldRefused, InvalidEvent
from opstream_schemas.events import OperationError
from opstream_schemas.integrity.setback import SetbackEvidence
from opstream_schemas.operation.commands import FailAttempt
from opstream_schemas.operation.dispatch_decision import wait_reason
from opstream_schemas.operation.resource_lock import Claim
from opstream_schemas.operation.state import LiveAttempt, Operation

RETRY_REASON: Final = "retry"
"""The reason in a runner's own timer of a retry, so that this one replaces it."""
START_REASON: Final = "restored"

_AT_ONCE: Final = 64
_BUDGET: Final = 30.0
"""Seconds for the record of one lost attempt."""
_SOURCE: Final = "opstream/restore"
_REPLICAS_TIMEOUT: Final = 60.0
"""Seconds in which all servers of a cluster should have copied the journal."""
_REPLICAS_DELAY: Final = 0.5
"""Seconds until it is read again."""


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
    """Works on a broker on which no service works; a `ScanVisitor` around that of a rebuild.

    Args:
        connection: the connection.
        bar: shows the progress.
    """

    def __init__(self, connection: Connection, bar: ProgressBar) -> None:
        self._connection = connection
        self._bar = bar
        self._journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)
        self._locks = ResourceLocks(connection, self._journal)
        self._snapshots = RawSnapshots(connection)
        self._reader = EntryReader(connection, self._journal, self._snapshots, now=_utc_now)
        self._rebuilder = ViewRebuilder(SnapshotStore(connection), self._reader, now=_utc_now, keep=_leave)
        self._commands = CommandHandler(
            journal=self._journal,
            source=_SOURCE,
            now=_utc_now,
            monotonic=time.monotonic,
            new_id=lambda: str(uuid_utils.uuid7()),
        )
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._opened = 0
        self._returned = 0
        self._owned: frozenset[str] = frozenset()
        """The locks that have an owner in the backup."""

    async def run(self) -> Reconciled:
        """Rebuild the view, and move all open operations on.

        Raises:
            JournalError: the broker did not answer for long, or refused.
        """
        await self._journal.start()
        await self._locks.start()
        await self._snapshots.start()
        self._owned = await self._locks.owned()
        until = time.monotonic() + _REPLICAS_TIMEOUT
        scan = await self._scan()
        while scan.evidence.replica_holes and time.monotonic() < until:
            # A server of the cluster says that it has the journal, and still answers without its messages.
            self._bar.print_line("a server still copies the journal: reading it again")
            await self._connection.sleep(_REPLICAS_DELAY)
            scan = await self._scan()
        await self._snapshots.stop()
        return Reconciled(
            operations=scan.journal_fold.operations,
            rewritten=self._rebuilder.rewritten + self._rebuilder.missing,
            opened=self._opened,
            locks=self._returned,
            evidence=scan.evidence,
        )

    async def _scan(self) -> ViewScan:
        self._opened = self._returned = 0
        scan = ViewScan(self._connection, self._snapshots, JournalFold(), self._bar)
        await scan.run(self)
        return scan

    async def visit_operations(self, batch: Sequence[FoldedOperation], scan: ViewScan) -> None:
        """See `ScanVisitor`. An operation that is old may have no entry; it is moved on all the same."""
        await self._rebuilder.visit_operations(batch, scan)
        todo = [
            functools.partial(self._move_folded, folded, scan)
            for folded in batch
            if folded.operation is None or not folded.operation.is_terminal or folded.operation.hold in self._owned
        ]
        await run_bounded(todo, self._limit)

    async def visit_entries(self, snapshots: Sequence[RawSnapshot], scan: ViewScan) -> None:
        """See `ScanVisitor`."""
        await self._rebuilder.visit_entries(snapshots, scan)

    async def _move_folded(self, folded: FoldedOperation, scan: ViewScan) -> None:
        operation = folded.operation
        if operation is None or not folded.is_last:  # the fold of a very large journal forgets some states
            operation = (await scan.retry(lambda: self._reader.read(folded.operation_id))).operation
        if operation is None:
            return
        known = operation
        if not known.is_terminal:
            await scan.retry(lambda: self._move(known))
        elif known.hold in self._owned:
            # Locks were copied before the journal. What released this one since is acknowledged, so it comes no more.
            await scan.retry(lambda: self._locks.release(known))

    async def _move(self, operation: Operation) -> None:
        """Schedule what an operation waits for. A timer that is there is replaced; one too many does no harm."""
        connection, kind = self._connection, operation.kind
        if operation.has_let_go:
            await self._locks.let_go(operation)
        elif operation.hold and operation.attempt:
            await self._restore_lock(operation)
        if operation.live is not None:
            operation = await self._end_attempt(operation, operation.live)
            if operation.is_terminal:
                return
        await schedule_deadline(connection, kind, operation.id, operation.deadline)
        waiting = operation.waiting
        if waiting is not None:
            why = RETRY_REASON if operation.wait is None else wait_reason(operation)
            at = waiting.retry_at
            if operation.wait is not None and operation.wait.ready_at is not None:
                at = operation.wait.ready_at
            await schedule_wake_up(connection, kind, operation.id, why, at=at, armed_by=waiting.sequence)
        elif operation.live is None:
            requested = operation.stream_sequence if operation.position == 1 else 0
            await send_wake_up(connection, kind, operation.id, START_REASON, armed_by=requested)
        self._opened += 1

    async def _end_attempt(self, operation: Operation, live: LiveAttempt) -> Operation:
        """Record that the live attempt has ended with its runner, uncounted. Return the operation as it is then.

        Its message may be acknowledged already, so nothing else would end it for minutes; if the message comes all the
        same, the runner finds an attempt that has ended.
        """
        error = OperationError(code=ErrorCode.RUNNER_LOST, message="its runner was lost; restored from a backup")
        command = FailAttempt(token=live.token, error=error, retry_at=_utc_now(), counted=False)
        try:
            ended = await self._commands.handle(operation.id, command, budget=_BUDGET)
        except (DecisionRefused, FoldRefused, InvalidEvent):
            ended = (await self._reader.read(operation.id)).operation  # an earlier try has done it
        return operation if ended is None else ended

    async def _restore_lock(self, operation: Operation) -> None:
        messages = await self._journal.messages(operation.id)
        claim = Claim(
            operation_id=operation.id,
            sequence=messages[0].sequence,
            kind=str(operation.kind),
            let_go=operation.let_go,
        )
        self._returned += await self._locks.restore_owner(operation.hold, claim)


def _leave(_entry: LostEntry) -> None:
    """Leave an entry that knows more than the journal, as each rebuild does that is not forced."""


def _utc_now() -> datetime:
    return datetime.now(UTC)
