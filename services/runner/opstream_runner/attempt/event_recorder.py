"""Appends the events of one attempt and keeps its operation's state.

Different tasks record progress and the outcome, and read at heartbeats. Each decides on the state that the task before
it left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from opstream_journal import ExpectedVersion, JournalUnavailable, VersionConflict
from opstream_journal.jetstream.rpc import StoredMessage
from opstream_runner.dependencies import RunnerDependencies
from opstream_schemas.errors import FoldRefused
from opstream_schemas.operation.commands import Command, decide
from opstream_schemas.operation.fold import evolve, fold, next_event
from opstream_schemas.operation.state import Operation

_PAUSE: Final = 0.2
_CONTRADICTIONS: Final = 5


CommandBuilder = Callable[[Operation], Command]
"""Makes the command for the state that it is decided on."""


class EventRecorder:
    """The operation as the attempt knows it. The attempt changes it only through this recorder.

    Args:
        tools: journal, clocks, ids.
        operation: the state after the attempt's `started`.
    """

    def __init__(self, tools: RunnerDependencies, operation: Operation) -> None:
        self.operation = operation
        self._tools = tools
        self._lock = asyncio.Lock()

    async def record(self, intent: CommandBuilder, budget: float) -> Operation:
        """Decide and append; decide again, under a new event id, whenever somebody else was first. The state after it.

        Raises:
            DecisionRefused: the attempt does not own the outcome any more.
            FoldRefused, InvalidEvent: the operation holds something that this version can't fold, or is gone.
            JournalUnavailable: not stored within the budget.
            JournalError: the broker refused for good.
        """
        tools = self._tools
        until = tools.monotonic() + budget
        contradictions = 0
        async with self._lock:
            while True:
                data = decide(self.operation, intent(self.operation))
                if data is None:
                    return self.operation
                event = next_event(self.operation, data, id=tools.new_id(), source=tools.source, time=tools.now())
                expected = ExpectedVersion(self.operation.stream_sequence)
                try:
                    stored = await tools.journal.append(
                        self.operation.kind, event, expected, budget=until - tools.monotonic()
                    )
                except VersionConflict:
                    await self._read_until(until)
                    if self.operation.stream_sequence == expected:
                        contradictions += 1
                        await self._check_contradictions(contradictions)
                else:
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
                events = await self._tools.journal.events_up_to(last, since=self.operation)
                self.operation = fold(self.operation, events) or self.operation

    async def _read_until(self, until: float) -> None:
        # The outcome of an hour's work must survive a broker that leaves between refusing it and saying why.
        while True:
            try:
                events = await self._tools.journal.events(self.operation.id, since=self.operation)
            except JournalUnavailable:
                if self._tools.monotonic() >= until:
                    raise
                await asyncio.sleep(_PAUSE)
            else:
                self.operation = fold(self.operation, events) or self.operation
                return

    async def _check_contradictions(self, count: int) -> None:
        # A conflict without anything new comes from a leader of before, which passes, or from events that expired or
        # were lost with a disk: then nothing can ever be appended.
        if count >= _CONTRADICTIONS:
            raise FoldRefused(f"operation {self.operation.id} is not in the journal any more as this attempt knows it")
        await asyncio.sleep(_PAUSE)
