"""Keeps the index as the view is: stores each batch, marks how far it is, and catches up with what it has missed.

The index never holds up the view. While its database is away, batches go on without it; the mark stays where it was,
and once the database is back, everything behind the mark is read from the view again. The mark is a revision of the
view: this process has written no entry up to it that the index lacks. It is stored in the same database as the rows, so
a lost or older database brings its own, older mark along. Each process has its own; what one owed when it died, another
one takes over (docs/adr/0058).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

import msgspec

from opstream_index.errors import IndexFault, IndexUnavailable, IndexUnusable
from opstream_index.operation_row import instant_of, row_of
from opstream_index.store import Debt, IndexOrigin, IndexWriter
from opstream_journal import Connection, Journal, JournalUnavailable
from opstream_journal.errors import StreamReplaced
from opstream_journal.jetstream.scans.stream_scan import stream_identity
from opstream_journal.metrics.instruments import Count, Counts, Gauges, Instrument
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.stores.snapshots import VIEW_STREAM, SnapshotReader
from opstream_projector.projection.projector import BUSY_LINGERS, LINGER
from opstream_schemas import subjects
from opstream_schemas.operation.state import Operation

from .catch_up import PAGE, CatchUp
from .index_thread import IndexThread

logger = logging.getLogger(__name__)

MARK_INTERVAL: Final = 1.0
"""Seconds between two marks: also what the lag is off at most."""
STORE_TIMEOUT: Final = 5.0
"""Seconds that a batch waits for the database; then it goes on without."""
CONDITION: Final = "IndexAway"

_WAIT: Final = timedelta(seconds=LINGER * BUSY_LINGERS)
"""How long an event may wait for its batch: so much of the last time may not be in the index."""
_RETRY_DELAYS: Final = (0.2, 5.0)
_CLOSE_TIMEOUT: Final = 2.0
_LEADER_LAG: Final = 5.0
"""Seconds for which a new leader may be behind what the one before it had."""
_EXPIRE_ROWS: Final = 2_000
_ROUND: Final = 30
"""Marks between two looks for writers that have died."""
_FORGET_ROUNDS: Final = 10

T = TypeVar("T")


class ProjectorState(Protocol):
    """The part of `Projector` that is used here."""

    @property
    def is_ready(self) -> bool: ...

    held_since: datetime | None


class IndexKeeper:
    """The index of one projector process.

    Args:
        connection: the connection, which is up.
        journal: started.
        writer: of the database.
        name: of this process among the writers; another one each time.
        shown: where the index is, for the log.
        last_revision: returns the highest revision of the view that this process has written.
        conditions: gets to know when the database is away.
        now: the time, with zone.
        interval: see `MARK_INTERVAL`.
    """

    def __init__(
        self,
        connection: Connection,
        journal: Journal,
        writer: IndexWriter,
        *,
        name: str,
        shown: str,
        last_revision: Callable[[], int],
        conditions: Conditions,
        now: Callable[[], datetime],
        interval: float = MARK_INTERVAL,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._writer = writer
        self._name = name
        self._shown = shown
        self._last_revision = last_revision
        self.projector: ProjectorState | None = None
        """Says what this process holds; None for nothing, ever."""
        self._conditions = conditions
        self._now = now
        self._interval = interval
        self._thread = IndexThread()
        self._debt: Debt | None = None
        """What this process owes; None before the database was opened for the first time."""
        self._is_open = False
        self._is_level = False
        """True if the index lacks nothing that this process knows of."""
        self._newest: datetime | None = None
        """When the newest event of the last batch was stored, until the next mark."""
        self._paid: Debt | None = None
        """A debt that is paid, whose writers are not forgotten yet: they may live."""
        self._rows: Count | None = None

    @property
    def is_ready(self) -> bool:
        """Return True: the view does not wait for the index."""
        return True

    @property
    def instruments(self) -> list[Instrument]:
        """What the page of metrics shows."""
        rows = Counts("opstream_index_rows", "Rows that this projector has written to the index. Sum over projectors.")
        self._rows = rows.of()
        return [
            rows,
            Gauges(
                "opstream_index_lag_seconds",
                "How far the index is behind what this projector was to write; none before it was complete once. Take "
                "the maximum.",
                read=lambda: [((), self.lag)] if self._debt is not None and self._debt.complete_until else [],
            ),
            Gauges(
                "opstream_index_complete",
                "1 if the index has all operations within their retention, 0 while it is being made. Take the minimum.",
                read=lambda: [((), float(self._debt is not None and self._debt.is_complete))],
            ),
        ]

    @property
    def lag(self) -> float:
        """Return the seconds that the index is behind, as far as this process knows; 0 before it was complete once."""
        until = self._debt.complete_until if self._debt is not None else 0
        return max(0.0, (instant_of(self._now()) - until) / 1e6) if until else 0.0

    async def store(self, operations: Sequence[Operation], newest: datetime) -> None:
        """See `OperationIndex.store`."""
        if not self._is_open:
            return
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                await self._write(operations)
        except TimeoutError:
            self._leave(IndexUnavailable(f"the index {self._shown} did not answer within {STORE_TIMEOUT:g} s"))
        except IndexUnavailable as error:
            self._leave(error)
        else:
            crash_point(CrashPoint.PROJECTOR_INDEXED)
            self._newest = newest
            if self._is_level and self._debt is not None:
                revision = max(self._debt.revision, self._last_revision())
                self._debt = msgspec.structs.replace(self._debt, revision=revision)

    async def run(self) -> None:
        """Keep the index until cancelled.

        Raises:
            IndexUnusable: the database can't hold an index.
            JournalError: something on the broker is missing, or it refused.
        """
        delay = _RETRY_DELAYS[0]
        try:
            while True:
                try:
                    await self._open()
                    delay = _RETRY_DELAYS[0]
                    await self._keep()
                except IndexUnusable as error:
                    if self._debt is None:  # at its start a process says so and ends; later the view goes on
                        raise
                    self._leave(error)
                except IndexUnavailable as error:
                    self._leave(error)
                except (JournalUnavailable, StreamReplaced) as error:
                    self._is_level = False
                    logger.debug("the view can't be read for the index: %s", error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _RETRY_DELAYS[1])
        finally:
            self._is_open = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._call(self._writer.close)
            self._thread.stop()

    async def _open(self) -> None:
        origin = await self._call(functools.partial(self._writer.open, self._name))
        source = await self._check_origin(origin)
        self._debt = await self._call(functools.partial(self._writer.begin, source))
        # From here on batches are written; those before are in the part of the view that is read now.
        self._is_open = True
        self._conditions.resolve(CONDITION)
        await self._mark()
        await self._pay(self._debt)
        if self._is_open:  # no batch has failed meanwhile
            self._is_level = True
            self._newest = None
            self._debt = msgspec.structs.replace(self._debt, is_complete=True)

    async def _check_origin(self, origin: IndexOrigin) -> str:
        """Return what identifies journal and view. Drop what is in the index if it was made from something else."""
        until = asyncio.get_running_loop().time() + _LEADER_LAG
        while True:
            view = await stream_identity(self._connection, VIEW_STREAM)
            journal = await stream_identity(self._connection, subjects.OPERATIONS_STREAM)
            source = f"{journal.created} {view.created}"
            is_ahead = origin.is_ahead_of(view.last, journal.last)
            if origin.is_of(source) and not is_ahead:
                return source
            if not origin.is_of(source) or asyncio.get_running_loop().time() >= until:
                break
            await asyncio.sleep(_RETRY_DELAYS[0])  # a new leader may not know all yet
        logger.warning("the index %s was made from another or a later journal: it is made again", self._shown)
        await self._call(self._writer.make_again)
        return source

    async def _keep(self) -> None:
        """Mark, and do what is due now and then, until a batch could not be written."""
        rounds = 0
        while self._is_open:
            await self._mark()
            if rounds % _ROUND == _ROUND - 1:
                owed = await self._call(functools.partial(self._writer.stale, instant_of(self._now())))
                if owed is not None:
                    # One that was taken for dead and lives enters itself again.
                    logger.info("catching up with what %d other writers of the index left behind", len(owed.writers))
                    await self._pay(owed)
            now = instant_of(self._now())
            if self._paid is not None:
                await self._call(functools.partial(self._writer.forget, self._paid, now))
                if rounds % _ROUND == _FORGET_ROUNDS:
                    self._paid = None
            while await self._call(functools.partial(self._writer.expire, now, _EXPIRE_ROWS)) == _EXPIRE_ROWS:
                pass
            rounds += 1
            await asyncio.sleep(self._interval)

    async def _pay(self, owed: Debt) -> None:
        """Bring the index to the present end of the view, from a revision on, and forget the writers that owed it."""
        is_own = not self._is_level
        if is_own and not owed.is_complete:
            logger.info("making the index %s from the view, from revision %d on", self._shown, owed.revision + 1)
        catch_up = CatchUp(self._connection, self._journal)

        async def store(operations: Sequence[Operation], revision: int) -> None:
            await self._write(operations)
            if is_own and self._debt is not None:
                self._debt = msgspec.structs.replace(self._debt, revision=revision)
            await self._mark()

        last = await catch_up.read_view(owed.revision + 1, store)
        await self._compare_open(catch_up)
        if is_own and self._debt is not None:
            self._debt = msgspec.structs.replace(self._debt, revision=max(self._debt.revision, last))
        if is_own and not owed.is_complete:
            logger.info("the index %s is complete: %d operations", self._shown, catch_up.operations)
        self._paid = owed

    async def _compare_open(self, catch_up: CatchUp) -> None:
        entries = SnapshotReader(self._connection)
        await entries.start()
        try:
            place = -(2**63)
            while rows := await self._call(functools.partial(self._writer.open_operations, place, PAGE)):
                place = rows[-1][0]
                newer, gone = await catch_up.compare_open(rows, entries)
                await self._write(newer)
                if gone:
                    await self._call(functools.partial(self._writer.remove, gone))
        finally:
            if self._connection.is_connected:
                await entries.stop()

    async def _mark(self) -> None:
        """Record how far the index is."""
        debt = self._debt
        if debt is None:
            return
        now = self._now()
        projector = self.projector
        if self._is_level and (projector is None or projector.is_ready):
            # After a batch, more may wait that are as old as its newest event. Without one, nothing waits for long.
            until = (projector.held_since if projector is not None else None) or self._newest or now - _WAIT
            debt = msgspec.structs.replace(debt, complete_until=max(debt.complete_until, instant_of(until)))
            self._newest = None
        self._debt = debt
        await self._call(functools.partial(self._writer.mark, debt, instant_of(now)))

    async def _write(self, operations: Sequence[Operation]) -> None:
        if operations:
            await self._call(lambda: self._writer.write([row_of(operation) for operation in operations]))
            if self._rows is not None:
                self._rows.value += len(operations)

    def _leave(self, error: IndexFault) -> None:
        self._is_open = self._is_level = False
        self._conditions.report(
            CONDITION, str(error), "look at the database of --index; what it misses is caught up with afterwards"
        )

    async def _call(self, work: Callable[[], T]) -> T:
        return await self._thread.call(work)
