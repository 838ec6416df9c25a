"""Appends the events of one attempt and keeps its operation's state.

Different tasks record progress and the outcome, and read at heartbeats. Each decides on the state that the task before
it left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from opstream_journal import JournalUnavailable
from opstream_journal.command_handler import CommandHandler, Proposal
from opstream_journal.errors import ConflictWithoutNews
from opstream_journal.jetstream.rpc import StoredMessage
from opstream_runner.dependencies import RunnerDependencies
from opstream_schemas.errors import FoldRefused
from opstream_schemas.events import RecordedEvent
from opstream_schemas.operation.commands import Command
from opstream_schemas.operation.fold import evolve, fold
from opstream_schemas.operation.state import Operation
from opstream_schemas.seals.operation_key import OperationKey
from opstream_schemas.seals.sealed_events import opened_events
from opstream_schemas.signals.wait_history import WaitEvent, signal_payloads, wait_events

_PAUSE: Final = 0.2


CommandBuilder = Callable[[Operation], Command]
"""Makes the command for the state that it is decided on."""


class EventRecorder:
    """The operation as the attempt knows it. The attempt changes it only through this recorder.

    Args:
        dependencies: journal, clocks, ids.
        operation: the state after the attempt's `started`.
        waits: the events before it that decide about waits.
        key: of a confidential operation; None for any other.
    """

    def __init__(
        self,
        dependencies: RunnerDependencies,
        operation: Operation,
        waits: tuple[WaitEvent, ...] = (),
        key: OperationKey | None = None,
    ) -> None:
        self.operation = operation
        self.key = key
        self._waits = waits
        self._journal = dependencies.journal
        self._monotonic = dependencies.monotonic
        self._commands = CommandHandler(
            journal=dependencies.journal,
            source=dependencies.source,
            now=dependencies.now,
            monotonic=dependencies.monotonic,
            new_id=dependencies.new_id,
        )
        self._lock = asyncio.Lock()

    def payloads(self) -> dict[int, msgspec.Raw]:
        """Return the payloads of all signals of the operation that this recorder knows, by the events' positions."""
        return signal_payloads(self._waits)

    async def record(self, build_command: CommandBuilder, budget: float) -> Operation:
        """Decide a command and append its event; after a version conflict, read and decide again (docs/adr/0028).

        Args:
            build_command: returns the command for the state that it is decided by.
            budget: seconds to keep trying; at least one try is made.

        Returns:
            The state after the event.

        Raises:
            DecisionRefused: the attempt does not own the outcome any more.
            FoldRefused, InvalidEvent: the operation holds something that this version can't fold, or is gone.
            JournalUnavailable: not stored within the budget.
            JournalError: the broker refused for good.
        """
        until = self._monotonic() + budget
        is_read_needed = False

        async def propose() -> Proposal | None:
            nonlocal is_read_needed
            if is_read_needed:
                await self._read_until(until)
            is_read_needed = True
            return self._commands.propose(self.operation, build_command(self.operation), key=self.key)

        async with self._lock:
            try:
                stored = await self._commands.record(propose, budget=budget)
            except ConflictWithoutNews as conflict:
                # The state is newer than the journal: its last events expired, or were lost with a disk.
                raise FoldRefused(
                    f"operation {self.operation.id} is not in the journal any more as this attempt knows it"
                ) from conflict
            if stored is not None:
                self.operation = evolve(self.operation, stored)
            return self.operation

    async def catch_up(self, last: StoredMessage) -> None:
        """Fold the newer events up to `last`, which `Journal.last_message` returned.

        Raises:
            FoldRefused, InvalidEvent: the events can't be folded.
            JournalUnavailable: the events could not be read.
        """
        if last.seq <= self.operation.stream_sequence:
            return
        async with self._lock:  # a task that held the lock may just have recorded `last` itself
            if last.seq > self.operation.stream_sequence:
                self._fold(await self._journal.events_up_to(last, since=self.operation))

    async def _read_until(self, until: float) -> None:
        # The outcome of an hour's work must survive a broker that leaves between refusing it and saying why.
        while True:
            try:
                events = await self._journal.events(self.operation.id, since=self.operation)
            except JournalUnavailable:
                if self._monotonic() >= until:
                    raise
                await asyncio.sleep(_PAUSE)
            else:
                self._fold(events)
                return

    def _fold(self, events: list[RecordedEvent]) -> None:
        self.operation = fold(self.operation, events) or self.operation
        self._waits += wait_events(events if self.key is None else opened_events(events, self.key))
