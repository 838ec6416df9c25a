"""Parents and children: a parent is woken when a child ends, and children are canceled when their parent has ended.

Neither side can miss the other. A parent's wait is in the journal and in the view before this looks whether the child
has ended; a child's end is in the journal before this looks in the view whether its parent waits. The same holds for
the parent's end, and a child that is requested at that moment (docs/adr/0074).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

from opstream_journal import Connection, Journal, SnapshotStore
from opstream_journal.command_handler import CommandHandler
from opstream_journal.errors import JournalError
from opstream_journal.runtime.crash_points import CrashPoint, crash_point
from opstream_journal.stores.timers import schedule_wake_up, send_wake_up
from opstream_schemas import subjects
from opstream_schemas.children.plan import wakes_parent
from opstream_schemas.errors import DecisionRefused, FoldRefused, InvalidEvent
from opstream_schemas.events import Canceled, Failed, ParentRef, Succeeded
from opstream_schemas.operation.commands import RequestCancel
from opstream_schemas.operation.dispatch_decision import WAIT_REASON
from opstream_schemas.operation.state import Operation, Status

logger = logging.getLogger(__name__)

_OUTCOMES: Final = frozenset({Succeeded.name, Failed.name, Canceled.name})
_CANCEL_BUDGET: Final = 5.0
_AT_ONCE: Final = 32
"""Children of one parent that are looked at, or canceled, at once."""


class FamilyKeeper:
    """An `AfterEffect`. Operations without parent and children cost nothing.

    Args:
        connection: sends wake-ups.
        journal: read from the leader.
        snapshots: the view.
        handler: cancels.
    """

    def __init__(
        self, connection: Connection, journal: Journal, snapshots: SnapshotStore, handler: CommandHandler
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._snapshots = snapshots
        self._handler = handler

    async def apply(self, operation: Operation) -> None:
        """See `AfterEffect`.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        if operation.parent is not None:
            if operation.is_terminal:
                await self._wake_parent(operation, operation.parent)
            elif await self._has_ended(operation.parent.id):
                await self._cancel(operation.id, operation.parent)
        if not operation.children:
            return
        if operation.is_terminal:
            await self._cancel_children(operation)
        elif (watched := _watched_child(operation)) and await self._has_ended(watched):
            await self._wake(operation)

    async def _wake_parent(self, child: Operation, ref: ParentRef) -> None:
        # From the leader: another projector may have written just now that the parent waits.
        parent = (await self._snapshots.get_newest(ref.id)).operation
        if parent is None or parent.waiting is None or parent.wait is None or parent.wait.child is None:
            return
        wait = parent.wait.child
        if (parent.wait.name, parent.wait.key) != (ref.name, ref.key):
            return
        if wakes_parent(wait, child.id, has_succeeded=child.status is Status.SUCCEEDED):
            await self._wake(parent)
        elif wait.any_from is not None:
            # The same timer for each child that ends before: one wake-up for all of them.
            at = max(wait.any_from, self._handler.now())
            await schedule_wake_up(
                self._connection, parent.kind, parent.id, WAIT_REASON, at=at, armed_by=parent.waiting.sequence
            )

    async def _wake(self, parent: Operation) -> None:
        if parent.waiting is not None:
            await send_wake_up(self._connection, parent.kind, parent.id, WAIT_REASON, armed_by=parent.waiting.sequence)
            crash_point(CrashPoint.PROJECTOR_PARENT_WOKEN)

    async def _cancel_children(self, parent: Operation) -> None:
        """Cancel what is open. Several at once: a parent may have thousands."""
        ref = ParentRef(id=parent.id, own_id=parent.own_id, name="")
        ids = (one for group in parent.children for one in group.child_ids(parent.id))
        failed: list[JournalError] = []

        async def work(ids: Iterator[str]) -> None:
            for child in ids:
                try:
                    if await self._is_open(child):
                        await self._cancel(child, ref)
                except JournalError as error:
                    failed.append(error)
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work(ids))
        if failed:
            raise failed[0]

    async def _cancel(self, child: str, ref: ParentRef) -> None:
        command = RequestCancel(reason=f"its parent {ref.own_id or ref.id} has ended")
        try:
            await self._handler.handle(child, command, budget=_CANCEL_BUDGET)
        except DecisionRefused:
            return  # it has ended
        except (FoldRefused, InvalidEvent) as error:
            logger.warning("operation %s can't be canceled with its parent: %s", child, error)
            return
        crash_point(CrashPoint.PROJECTOR_CHILD_CANCELED)

    async def _has_ended(self, operation_id: str) -> bool:
        return await self._last_event(operation_id) in _OUTCOMES

    async def _is_open(self, operation_id: str) -> bool:
        last = await self._last_event(operation_id)
        return bool(last) and last not in _OUTCOMES

    async def _last_event(self, operation_id: str) -> str:
        """Return the name of an operation's last event, as the leader has it; empty for none."""
        last = await self._journal.last_message(operation_id)
        return "" if last is None else subjects.parse_event_subject(last.subject).event


def _watched_child(operation: Operation) -> str:
    """Return the child whose end an operation waits for; empty for none."""
    wait = operation.wait
    return "" if wait is None or wait.child is None else wait.child.id
