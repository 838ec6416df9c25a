"""Commands on an operation: load it, decide, append the event; after a version conflict again.

`CommandHandler.record` holds the one rule for version conflicts (docs/adr/0028). Every writer that decides by a state
before it appends uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import msgspec

from opstream_schemas.events import Event, RecordedEvent
from opstream_schemas.names import Kind
from opstream_schemas.operation.commands import Command, decide
from opstream_schemas.operation.fold import evolve, fold, next_event
from opstream_schemas.operation.state import Operation
from opstream_schemas.seals.operation_key import OperationKey
from opstream_schemas.seals.sealed_events import seal_event

from .errors import ConflictWithoutNews, JournalUnavailable, VersionConflict
from .journal import ExpectedVersion, Journal

_MAX_WITHOUT_NEWS: Final = 5
_PAUSE: Final = 0.2
"""Seconds between two appends at the same version. All pauses together outlast a change of the stream's leader."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """An event to append, and the version of the state that it was decided by."""

    kind: Kind
    event: Event
    expected: ExpectedVersion


class CommandHandler(msgspec.Struct, frozen=True, kw_only=True):
    """Decides commands and appends their events. Clocks and ids are fields, so that tests can replace them."""

    journal: Journal
    source: str
    """CloudEvents source of the events."""
    now: Callable[[], datetime]
    """The current time, with time zone."""
    monotonic: Callable[[], float]
    """Seconds of a clock that never goes back."""
    new_id: Callable[[], str]
    """Makes an id for an event."""

    async def handle(
        self,
        operation_id: str,
        command: Command,
        *,
        budget: float,
        on_appended: Callable[[Operation], None] | None = None,
    ) -> Operation | None:
        """Load an operation, decide a command, and append its event.

        Args:
            operation_id: the operation.
            command: the command. Where the operation is already as it demands, nothing is appended.
            budget: seconds to keep trying; at least one try is made.
            on_appended: called with the operation after the event, if one was appended.

        Returns:
            The operation after the command; None if there is no such operation, or not any more.

        Raises:
            DecisionRefused: the operation's state does not allow it (`OperationFinished` for a terminal one).
            FoldRefused, InvalidEvent: the operation holds something that can't be folded.
            JournalUnavailable: not stored within the budget.
            JournalError: the broker refused.
        """
        operation: Operation | None = None

        async def propose() -> Proposal | None:
            nonlocal operation
            operation = fold(None, await self.journal.events(operation_id))
            return None if operation is None else self.propose(operation, command)

        stored = await self.record(propose, budget=budget)
        if operation is None or stored is None:
            return operation
        operation = evolve(operation, stored)
        if on_appended is not None:
            on_appended(operation)
        return operation

    def propose(self, operation: Operation, command: Command, *, key: OperationKey | None = None) -> Proposal | None:
        """Decide a command by a state; None if there is nothing to append.

        Args:
            operation: the state.
            command: the command.
            key: of a confidential operation, seals what the event says. None for any other, and for an event that says
                nothing of a client's or an action's.

        Raises:
            DecisionRefused: the state does not allow it.
        """
        data = decide(operation, command)
        if data is None:
            return None
        if key is not None:
            data = seal_event(data, key)
        event = next_event(operation, data, id=self.new_id(), source=self.source, time=self.now())
        return Proposal(kind=operation.kind, event=event, expected=ExpectedVersion(operation.stream_sequence))

    async def record(self, propose: Callable[[], Awaitable[Proposal | None]], *, budget: float) -> RecordedEvent | None:
        """Append the event that `propose` decides on; after a version conflict, call it again.

        With news, which is another version than the refused one, the next append follows at once. Without news it
        follows after a pause, five times at most.

        Args:
            propose: decides, under a new event id each time; None if there is nothing to append. The first call may
                decide by a state that the caller holds. Later calls must read first.
            budget: seconds to keep trying; at least one try is made.

        Returns:
            The stored event; None if there was nothing to append.

        Raises:
            ConflictWithoutNews: five conflicts in a row, and no read showed another version.
            JournalUnavailable: not stored within the budget.
            JournalError: the broker refused.
        """
        until = self.monotonic() + budget
        conflict: VersionConflict | None = None
        refused: ExpectedVersion | None = None
        without_news = 0
        while (proposal := await propose()) is not None:
            if proposal.expected != refused:
                without_news = 0
            else:
                without_news += 1
                if without_news == _MAX_WITHOUT_NEWS:
                    raise ConflictWithoutNews(f"{conflict}, yet nothing newer can be read") from conflict
                await asyncio.sleep(_PAUSE)
            try:
                return await self.journal.append(
                    proposal.kind, proposal.event, proposal.expected, budget=until - self.monotonic()
                )
            except VersionConflict as error:
                if self.monotonic() >= until:
                    raise JournalUnavailable(f"{error}, again and again", maybe_stored=False) from error
                conflict, refused = error, proposal.expected
        return None
