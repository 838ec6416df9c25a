"""Rebuild and verify in the test's own process, on its connection.

done = await rebuilt(link, journal)
assert (done.missing, done.rewritten, done.removed) == (1, 0, 0)
assert (await verified(link, journal)).lines == []
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from opstream.cli.commands.verify import VerifySettings as Settings
from opstream.cli.commands.verify import verify_view
from opstream_journal import NEW_OPERATION, Connection, Journal, SnapshotStore
from opstream_journal.jetstream.scans.scanned_message import ScannedMessage
from opstream_journal.stores.snapshots import VIEW_STREAM, RawSnapshots
from opstream_projector.consistency.entry_check import EntryReader
from opstream_projector.consistency.journal_fold import FoldedOperation, JournalFold
from opstream_projector.consistency.rebuild import LostEntry, ViewRebuilder
from opstream_projector.consistency.verify import ViewVerifier
from opstream_projector.consistency.view_scan import OperationExamples, ViewScan
from opstream_schemas import subjects
from opstream_schemas.events import EventData
from opstream_schemas.integrity.setback import SetbackEvidence
from opstream_schemas.operation.state import Operation
from tests.support.journal.journals import KIND, extend, first, folded
from tests.support.projector.projection import utc_now
from tests.support.schemas.histories import request


class ProgressSteps:
    """A `ScanProgress` that records its calls."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.shown: list[int] = []

    def begin(self, what: str, total: int) -> None:
        """Record the begin of a scan."""
        self.begun.append((what, total))

    def show(self, done: int) -> None:
        """Record progress."""
        self.shown.append(done)

    def end(self) -> None:
        """Do nothing."""


class WatchedFold(JournalFold):
    """A fold that records how many states it kept at most."""

    most = 0

    def fold(self, batch: Sequence[ScannedMessage]) -> list[FoldedOperation]:  # type: ignore[override] # it is a list
        """Fold one message after the other."""
        found = []
        for one in batch:
            found += super().fold([one])
            self.most = max(self.most, self.state_count)
        return found


class RebuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a rebuild did."""

    rewritten: int
    missing: int
    removed: int
    kept: list[LostEntry]
    """Entries that know more than the journal, before those were discarded that should be."""
    evidence: SetbackEvidence
    unfoldable: OperationExamples
    unstorable: OperationExamples
    fold: WatchedFold


class VerifyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found."""

    lines: list[str]
    behind: int
    of_other_version: int
    evidence: SetbackEvidence
    waited_for: list[int]
    """How many operations lagged, each time that it waited for the projector."""
    unfoldable: OperationExamples
    fold: WatchedFold


async def rebuilt(
    link: Connection,
    journal: Journal,
    *,
    max_states: int = 1_000,
    view: SnapshotStore | None = None,
    steps: ProgressSteps | None = None,
    is_forced: bool = False,
) -> RebuildResult:
    """Rebuild the view."""
    fold = WatchedFold(max_states=max_states)
    snapshots = RawSnapshots(link)
    await snapshots.start()
    kept: list[LostEntry] = []
    reader = EntryReader(link, journal, snapshots, now=utc_now)
    visitor = ViewRebuilder(view or SnapshotStore(link), reader, now=utc_now, keep=kept.append)
    scan = ViewScan(link, snapshots, fold, steps or ProgressSteps())
    await scan.run(visitor)
    if is_forced:
        await visitor.discard(kept, scan)
    await snapshots.stop()
    return RebuildResult(
        rewritten=visitor.rewritten,
        missing=visitor.missing,
        removed=visitor.removed,
        kept=kept,
        evidence=scan.evidence,
        unfoldable=visitor.unfoldable,
        unstorable=visitor.unstorable,
        fold=fold,
    )


async def verified(link: Connection, journal: Journal, *, max_states: int = 1_000, grace: float = 0.3) -> VerifyResult:
    """Compare the view with the journal."""
    fold = WatchedFold(max_states=max_states)
    snapshots = RawSnapshots(link)
    await snapshots.start()
    lines: list[str] = []
    lags: list[int] = []
    visitor = ViewVerifier(
        EntryReader(link, journal, snapshots, now=utc_now),
        report=lambda difference: lines.append(str(difference)),
        report_lag=lags.append,
        now=utc_now,
        grace=grace,
    )
    scan = ViewScan(link, snapshots, fold, ProgressSteps())
    await scan.run(visitor)
    await snapshots.stop()
    assert visitor.differences == len(lines)
    return VerifyResult(
        lines=lines,
        behind=visitor.lagging,
        of_other_version=visitor.of_other_version,
        evidence=scan.evidence,
        waited_for=lags,
        unfoldable=visitor.unfoldable,
        fold=fold,
    )


def exit_status(url: str, *, grace: float = 0.2) -> int:
    """Return the exit status of `opstream verify`. Call it in a thread without an event loop."""
    try:
        verify_view(Settings(servers=(url,), connect_timeout=5.0, grace=grace))
    except SystemExit as end:
        return 0 if end.code is None else int(end.code)
    return 0


async def begun(journal: Journal, operation_id: str, *datas: EventData) -> Operation:
    """Store an operation whose deadline is a day away; the usual ones of the tests are long past theirs."""
    event = first(operation_id, data=request(deadline=utc_now() + timedelta(days=1)))
    return await extend(journal, folded(None, await journal.append(KIND, event, NEW_OPERATION, budget=10)), *datas)


async def publish(link: Connection, operation_id: str, event: str, payload: bytes) -> int:
    """Store bytes in the journal as a foreign program would; return their stream sequence."""
    ack = await link.nc.jetstream().publish(subjects.event_subject(operation_id, KIND, event), payload)
    return ack.seq


async def overwrite(link: Connection, operation_id: str, data: bytes) -> None:
    """Overwrite an entry of the view unconditionally."""
    await link.nc.jetstream().publish(subjects.bucket_subject(subjects.VIEW_BUCKET, operation_id), data)


async def lose(link: Connection, *operation_ids: str) -> None:
    """Remove entries from the view; all of them if none is named."""
    for one in operation_ids or [">"]:
        await link.nc.jetstream().purge_stream(VIEW_STREAM, subject=subjects.bucket_subject(subjects.VIEW_BUCKET, one))
