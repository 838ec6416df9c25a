"""One attempt of a bulk operation: it walks through the selected operations, acts, and records what became of them.

What an event records is done, and the next attempt goes on behind it. What was done and not recorded is done again,
which changes nothing: a follow-up has one id, and what is canceled stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, TypeVar

import msgspec

from opstream_api.errors import ApiError
from opstream_api.lists.operation_list import OperationList
from opstream_index.lists.items import ListRow
from opstream_index.lists.reader import ListPage
from opstream_index.operation_row import instant_of
from opstream_journal import UNTIL_STORED, Journal, JournalError
from opstream_journal.command_handler import CommandHandler, Proposal
from opstream_journal.jetstream.connection import end_task
from opstream_journal.jetstream.pull_consumer import DeliveredMessage
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_schemas.bulk.kinds import BulkAct
from opstream_schemas.bulk.records import MAX_RECORDED, MAX_REFUSALS, BulkInput, BulkItem, BulkProgress, BulkResult
from opstream_schemas.errors import DecisionRefused, ErrorCode, FoldRefused, InvalidEvent
from opstream_schemas.events import OperationError, Progressed, RecordedEvent, Requested
from opstream_schemas.operation.commands import Command, ConfirmCancel, Fail, ReportProgress, Succeed
from opstream_schemas.operation.fold import evolve, fold
from opstream_schemas.operation.state import Operation

from .bulk_caller import AccessLost, BulkCallers, bulk_scope
from .bulk_items import BulkItems
from .bulk_request import selected
from .selected_rows import SelectedRows

logger = logging.getLogger(__name__)

T = TypeVar("T")

RECORD_SECONDS: Final = 1.0
"""Seconds between two events about progress, unless there are `MAX_RECORDED` items before."""
HEARTBEATS_PER_LEASE: Final = 3

_SHORTEST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries of what can't be done now."""
COUNT_SECONDS: Final = 60.0
"""Seconds for which what is selected is counted; what was not counted by then is done all the same."""
_PROGRESS_BUDGET: Final = 5.0
_PASSING: Final = frozenset(
    {
        ErrorCode.JOURNAL_UNAVAILABLE,
        ErrorCode.JOURNAL_FULL,
        ErrorCode.TOO_MANY_REQUESTS,
        ErrorCode.INDEX_UNAVAILABLE,
    }
)
"""Codes of what may be done later."""
_decode_input: Final = msgspec.json.Decoder(BulkInput).decode
_encode: Final = msgspec.json.Encoder().encode


class BulkTools(msgspec.Struct, frozen=True, kw_only=True):
    """What each attempt of a process needs."""

    journal: Journal
    commands: CommandHandler
    lists: OperationList
    items: BulkItems
    callers: BulkCallers
    turns: asyncio.Semaphore
    """Bounds what is done at a moment. What waits, for its next item or for a limit, has none."""
    clock: Callable[[], float]
    """Returns monotonic seconds."""


class BulkAttempt:
    """A started attempt.

    Args:
        tools: those of the process.
        act: what is done to each operation.
        operation: the state in which this attempt is the live one.
        events: those of the operation, up to that state.
        message: the delivery that caused the attempt.
    """

    def __init__(
        self,
        tools: BulkTools,
        act: BulkAct,
        operation: Operation,
        events: Sequence[RecordedEvent],
        message: DeliveredMessage,
    ) -> None:
        requested = events[0].data
        if operation.live is None or not isinstance(requested, Requested) or requested.input is msgspec.UNSET:
            raise ValueError(f"operation {operation.id} has no live attempt, or no request of a bulk operation")
        self._tools = tools
        self._act = act
        self._operation = operation
        self._requested = requested
        self._input = _decode_input(requested.input)
        self._token = operation.live.token
        self._lease = operation.live.lease
        self._message = message
        self._lock = asyncio.Lock()
        self._stopping = asyncio.Event()
        """Set once it is canceled, or has lost its lease."""
        self._has_lease = True
        self._verified_at = tools.clock()
        recorded = [one.data.bulk for one in events if isinstance(one.data, Progressed) and one.data.bulk is not None]
        self._has_begun = bool(recorded)
        self._progress = recorded[-1] if recorded else BulkProgress(matched=0)
        self._refusals = [item for one in recorded for item in one.items if item.code][:MAX_REFUSALS]
        self._unrecorded: list[BulkItem] = []
        self._recorded_at = tools.clock()
        self._is_limited = False
        """Whether the last event says that a limit of the caller is waited for."""
        self._next_at = 0.0
        """When the next item may begin, in seconds of the clock."""

    async def run(self) -> None:
        """Do what is left, record the end and acknowledge; without a lease record nothing, and send nothing.

        Raises:
            JournalError: the broker refused.
            FoldRefused, InvalidEvent: the operation has something that this version can't fold.
        """
        heartbeat = asyncio.create_task(self._keep_lease(), name=f"lease {self._operation.id}")
        try:
            end = await self._do_items()
            if not self._has_lease:
                return
            await self._record(end, UNTIL_STORED)
        except DecisionRefused as refused:
            logger.info("bulk operation %s goes on elsewhere, or has ended: %s", self._operation.id, refused)
            return
        finally:
            await end_task(heartbeat)
        await self._message.ack_confirmed()

    async def _do_items(self) -> Command:
        """Return the command that ends the operation."""
        try:
            await self._begin()
            async with aclosing(self._rows()) as rows:
                async for row in rows:
                    await self._do_item(row)
            await self._report()
        except AccessLost as lost:
            return self._fail(ErrorCode.UNAUTHENTICATED, str(lost))
        except ApiError as error:  # what may be done later is tried again, so this is for good
            return self._fail(error.code, error.body.error.message)
        if self._stopping.is_set():
            return ConfirmCancel(token=self._token)
        done = self._progress
        return Succeed(
            token=self._token,
            result=_encode(
                BulkResult(matched=done.matched, done=done.done, refused=done.refused, refusals=tuple(self._refusals))
            ),
        )

    def _fail(self, code: str, message: str) -> Fail:
        return Fail(token=self._token, error=OperationError(code=code, message=message))

    async def _begin(self) -> None:
        """Count what is selected, and record it, unless an earlier attempt has."""
        if self._has_begun:
            return
        found = await self._until_done(lambda: self._selected().count(self._tools.clock, COUNT_SECONDS))
        if found is not None:
            self._progress = BulkProgress(matched=found.count)
            await self._record(self._progress_command(()), _PROGRESS_BUDGET)
            self._has_begun = True

    def _selected(self) -> SelectedRows:
        """Return what is selected, by the caller's rights as they are now.

        Raises:
            AccessLost: it has none any more.
            ApiError: `Forbidden`.
        """
        created = instant_of(self._operation.created_at)
        term = selected(self._act, self._input.filter, before=created)
        scope = bulk_scope(self._act, self._tools.callers.principal(self._requested))
        return SelectedRows(self._tools.lists, term, scope, complete_until=created)

    async def _rows(self) -> AsyncGenerator[ListRow, None]:
        """Yield the rows that are left, until it is to stop."""
        after = int(self._progress.after) if self._progress.after else None
        while True:
            page = await self._until_done(partial(self._page, after))
            if page is None:
                return
            for row in page.rows:
                if self._stopping.is_set():
                    return
                yield row
            if page.next is None:
                return
            after = page.next.place

    async def _page(self, after: int | None) -> ListPage:
        return await self._selected().page(after)

    async def _do_item(self, row: ListRow) -> None:
        """Do one operation, unless it is to stop meanwhile."""
        now = self._tools.clock()
        await self._pause(self._next_at - now)
        self._next_at = max(self._next_at, now) + 1 / self._input.per_second
        item = await self._until_done(partial(self._act_on, row))
        if item is None:
            return
        crash_point(CrashPoint.API_ITEM_DONE)
        self._unrecorded.append(item)
        if item.code and len(self._refusals) < MAX_REFUSALS:
            self._refusals.append(item)
        self._progress = msgspec.structs.replace(
            self._progress,
            done=self._progress.done + (not item.code),
            refused=self._progress.refused + bool(item.code),
            after=str(row.place),
        )
        is_time = self._tools.clock() - self._recorded_at >= RECORD_SECONDS
        if is_time or len(self._unrecorded) == MAX_RECORDED:
            await self._report()

    async def _act_on(self, row: ListRow) -> BulkItem:
        principal = self._tools.callers.principal(self._requested)
        caller, reason = self._requested.caller, self._input.reason
        return await self._tools.items.act(self._act, row, caller=caller, principal=principal, reason=reason)

    async def _report(self) -> None:
        """Record what was done since the last event."""
        if self._unrecorded and self._has_lease:
            await self._record(self._progress_command(tuple(self._unrecorded)), UNTIL_STORED)
            self._unrecorded.clear()
            self._is_limited = False
            self._recorded_at = self._tools.clock()

    def _progress_command(self, items: tuple[BulkItem, ...]) -> ReportProgress:
        progress = self._progress
        ended = progress.done + progress.refused
        refused = f", {progress.refused:,} refused" if progress.refused else ""
        return ReportProgress(
            token=self._token,
            percent=min(100.0, 100.0 * ended / progress.matched) if progress.matched else 100.0,
            message=f"{ended:,} of {progress.matched:,}{refused}",
            bulk=msgspec.structs.replace(progress, items=items),
        )

    async def _until_done(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `work` returns; try again, after growing pauses, what can't be done now. None once it is to stop.

        Raises:
            AccessLost: as `work`.
            ApiError: it can't be done later either.
        """
        pause = _SHORTEST_PAUSE
        while not self._stopping.is_set():
            try:
                async with self._tools.turns:
                    return await work()
            except ApiError as error:
                if error.code not in _PASSING:
                    raise
                logger.debug("bulk operation %s waits: %s", self._operation.id, error)
                await self._report()
                await self._say_why(error)
            await self._pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return None

    async def _say_why(self, error: ApiError) -> None:
        """Record once, in the message, that a limit of the caller is waited for; the next progress replaces it."""
        if error.code is ErrorCode.TOO_MANY_REQUESTS and not self._is_limited and self._has_begun:
            self._is_limited = True
            command = self._progress_command(())
            waits = f"{command.message}; waits: {error.body.error.message}"
            await self._record(msgspec.structs.replace(command, message=waits), _PROGRESS_BUDGET)

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()

    async def _record(self, command: Command, budget: float) -> None:
        """Append the command's event.

        Raises:
            DecisionRefused: this attempt is not the live one, or the operation has ended.
            JournalError: it could not be stored.
        """
        is_read_needed = False

        async def propose() -> Proposal | None:
            nonlocal is_read_needed
            if is_read_needed:
                await self._catch_up()
            is_read_needed = True
            return self._tools.commands.propose(self._operation, command)

        async with self._lock:
            stored = await self._tools.commands.record(propose, budget=budget)
            if stored is not None:
                self._operation = evolve(self._operation, stored)
            self._notice()

    async def _catch_up(self) -> None:
        events = await self._tools.journal.events(self._operation.id, since=self._operation)
        self._operation = fold(self._operation, events) or self._operation

    def _notice(self) -> None:
        """Stop if the attempt is not the live one, or the operation was canceled."""
        live = self._operation.live
        if live is None or live.token != self._token:
            self._has_lease = False
        if not self._has_lease or self._operation.cancel is not None:
            self._stopping.set()

    async def _keep_lease(self) -> None:
        """Read the operation three times in a lease, and prolong it while this attempt is the live one."""
        beat = self._lease / HEARTBEATS_PER_LEASE
        while self._has_lease:
            await asyncio.sleep(beat)
            try:
                async with asyncio.timeout(beat), self._lock:
                    await self._catch_up()
                    self._notice()
            except (FoldRefused, InvalidEvent) as error:
                step = "next step: 'opstream audit' shows its events; update opstream if they are newer"
                logger.error("bulk operation %s can't be folded: %s; %s", self._operation.id, error, step)  # noqa: TRY400
                self._give_up_lease()
            except (JournalError, TimeoutError):
                if self._tools.clock() - self._verified_at >= self._lease:
                    self._give_up_lease()
            else:
                self._verified_at = self._tools.clock()
                if self._has_lease:
                    await self._message.in_progress()

    def _give_up_lease(self) -> None:
        self._has_lease = False
        self._stopping.set()
