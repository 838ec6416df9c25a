"""Compares every entry of the view with the fold of the journal, while the system works, and changes nothing.

Caller: the command. What differs is read again from the leaders before it is told. An entry that is only behind is the
projector's to bring up to date; it is told once the projector says that it is done, or has had time enough.
See docs/adr/0017.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from opstream_journal.stores.snapshots import RawSnapshot, projected_sequence
from opstream_projector.deadlines import RecentIds
from opstream_projector.projection.snapshot_fold import supersedes

from .entry_check import EntryDifference, EntryReader, EntryReading, describe_difference, is_wrong
from .journal_fold import FoldedOperation
from .retry import run_bounded
from .view_scan import OperationExamples, ViewScan, accept_entry

GRACE: Final = 40.0
"""Seconds for which the projector may be behind: longer than its consumer's ack_wait (30 s), since what a killed
replica held comes to another one only then. Once that was too little, it is not waited for again."""

_MAX_READS: Final = 32
_MISSING_IDS: Final = 10_000
_FIRST_DELAY: Final = 0.1
_MAX_DELAY: Final = 1.0


class ViewVerifier:
    """Compares and tells; a `ScanVisitor`.

    Args:
        looker: looks at what seems to differ.
        tell: is given each difference.
        tell_lag: is told how many operations of a batch are behind, again and again while it waits for the projector.
        now: the time, with zone.
        grace: see `GRACE_SECONDS`.
    """

    def __init__(
        self,
        looker: EntryReader,
        *,
        tell: Callable[[EntryDifference], None],
        tell_lag: Callable[[int], None],
        now: Callable[[], datetime],
        grace: float = GRACE,
    ) -> None:
        self._reader = looker
        self._report = tell
        self._report_lag = tell_lag
        self._now = now
        self._grace = grace
        self._read_slots = asyncio.Semaphore(_MAX_READS)
        self._missing = RecentIds(_MISSING_IDS)
        self.differences = 0
        self.lagging = 0
        """Differences that were only the projector's lag, which lasted."""
        self.unfoldable = OperationExamples()

    async def visit_operations(self, batch: Sequence[FoldedOperation], sweep: ViewScan) -> None:
        """See `ScanVisitor`."""
        ids = [one.operation_id for one in batch]
        snapshots = await sweep.retry(lambda: sweep.snapshots.get(ids))
        now = self._now()
        suspects: list[str] = []
        for folded in batch:
            snapshot, operation = snapshots.get(folded.operation_id), folded.operation
            if snapshot is not None and snapshot.revision in sweep.seen_revisions:
                continue
            if operation is None or not accept_entry(folded, operation, snapshot, now, sweep):
                suspects.append(folded.operation_id)
        await self._confirm(suspects, sweep)

    async def visit_entries(self, snapshots: Sequence[RawSnapshot], sweep: ViewScan) -> None:
        """See `ScanVisitor`."""
        await self._confirm([one.operation_id for one in snapshots], sweep)

    async def _confirm(self, suspects: Sequence[str], sweep: ViewScan) -> None:
        await self._await_projector(await self._wrong_entries(suspects, sweep), sweep)

    async def _await_projector(self, looks: dict[str, EntryReading], sweep: ViewScan) -> None:
        """Look again and again, as long as the projector has time, and tell what stays wrong."""
        clock = asyncio.get_running_loop().time
        until, rest = clock() + self._grace, _FIRST_DELAY
        while looks:
            await sweep.link.sleep(rest)
            # In this order: what the projector says to be done is to be seen then.
            floor = await sweep.retry(lambda: projected_sequence(sweep.link))
            looks = await self._wrong_entries(looks, sweep)
            behind = {one: look for one, look in looks.items() if _is_lagging(look, floor)}
            if behind and clock() >= until:
                self._grace = 0.0
            is_over = not self._grace
            for operation_id, look in looks.items():
                if operation_id not in behind or is_over:
                    self._count(operation_id, look, sweep, is_behind=operation_id in behind)
            if is_over:
                return
            if behind:
                self._report_lag(len(behind))
            looks, rest = behind, min(rest * 2, _MAX_DELAY)

    async def _wrong_entries(self, operation_ids: Iterable[str], sweep: ViewScan) -> dict[str, EntryReading]:
        """Those of them whose entries are not what they should be, by the leaders."""
        found: dict[str, EntryReading] = {}

        async def look(operation_id: str) -> None:
            look = await sweep.retry(lambda: self._reader.read(operation_id))
            if look.problem:
                self.unfoldable.add(operation_id, look.problem)
            if is_wrong(look, self._now()):
                found[operation_id] = look
            elif look.snapshot is not None:
                sweep.seen_revisions.add(look.snapshot.revision)

        await run_bounded([functools.partial(look, one) for one in dict.fromkeys(operation_ids)], self._read_slots)
        return found

    def _count(self, operation_id: str, look: EntryReading, sweep: ViewScan, *, is_behind: bool) -> None:
        if look.snapshot is not None:
            sweep.seen_revisions.add(look.snapshot.revision)  # once is enough
        elif operation_id in self._missing:
            return
        else:
            self._missing.add(operation_id)
        self.differences += 1
        self.lagging += is_behind
        self._report(EntryDifference(operation_id, describe_difference(look.snapshot, look.operation)))


def _is_lagging(look: EntryReading, floor: int) -> bool:
    """Whether the entry only lacks what the projector has not come to yet: it has written all up to `floor`."""
    operation, stored = look.operation, look.snapshot.operation if look.snapshot is not None else None
    if operation is None or operation.stream_sequence <= floor or (look.snapshot is not None and stored is None):
        return False
    return supersedes(operation, stored)
