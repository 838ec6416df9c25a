"""Carrying out a command: load, decide, append, and again whenever somebody else was first.

Callers: whoever acts on an operation from outside of an attempt (a deadline, a replaced holder, an operator). Attempts
have their own way (`opstream_runner.attempt.event_recorder`), since they keep the state that they have seen.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from opstream_schemas.operation.commands import Command, decide
from opstream_schemas.operation.fold import evolve, fold, next_event
from opstream_schemas.operation.state import Operation

from .errors import JournalUnavailable, VersionConflict
from .journal import ExpectedVersion, Journal

_RETRY_DELAY: Final = (0.005, 0.05)


class CommandHandler(msgspec.Struct, frozen=True, kw_only=True):
    """Who carries commands out, and with what. Clocks and ids are parameters, for tests."""

    journal: Journal
    source: str
    """CloudEvents source of the events."""
    now: Callable[[], datetime]
    """With zone."""
    monotonic: Callable[[], float]
    """Seconds."""
    new_id: Callable[[], str]

    async def handle(self, operation_id: str, command: Command, *, budget: float) -> Operation | None:
        """The operation after the command; None if there is none (any more).

        Args:
            operation_id: whose.
            command: what is wanted. Where it is already so, nothing is recorded.
            budget: seconds to keep trying.

        Raises:
            DecisionRefused: it can't be, in the operation's state (`OperationFinished` for a terminal one).
            FoldRefused, InvalidEvent: the operation holds something that can't be decided upon.
            JournalUnavailable: not recorded within the budget.
            JournalError: the broker refused.
        """
        until = self.monotonic() + budget
        while True:
            operation = fold(None, await self.journal.events(operation_id))
            if operation is None:
                return None
            data = decide(operation, command)
            if data is None:
                return operation
            event = next_event(operation, data, id=self.new_id(), source=self.source, time=self.now())
            expected = ExpectedVersion(operation.stream_sequence)
            left = until - self.monotonic()
            try:
                stored = await self.journal.append(operation.kind, event, expected, budget=left)
            except VersionConflict as conflict:
                if left <= 0:
                    raise JournalUnavailable(f"{conflict}, again and again", maybe_stored=False) from conflict
                await asyncio.sleep(random.uniform(*_RETRY_DELAY))  # noqa: S311 - nothing depends on it being unforeseeable
            else:
                return evolve(operation, stored)
