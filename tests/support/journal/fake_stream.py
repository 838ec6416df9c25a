"""A stream in memory that takes guarded events as the broker does, with answers that are lost on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from opstream_journal import BrokerRefused, JournalUnavailable
from opstream_journal.group_commit import EncodedEvent, StoreBatch

_TURNS_OF_A_SYNC: Final = 3


class FakeStream:
    """Stores one request after the other; each takes some turns of the event loop.

    Like the broker, it checks the guards of a batch against what is stored, not against each other: of two members of
    one operation it stores both.

    Args:
        fate: called for each request; returns `ok`, `lost` (stored, but the answer is lost), `dropped` (not stored,
            and no answer) or `forgotten` (of a batch: its beginning is lost, so it is refused; else as `ok`).
        allows_batches: whether it takes batches.
    """

    def __init__(self, fate: Callable[[], str] = lambda: "ok", *, allows_batches: bool = True) -> None:
        self._fate = fate
        self._allows_batches = allows_batches
        self._disk = asyncio.Lock()
        self.stored: list[EncodedEvent] = []
        """By stream sequence, from 1."""
        self.batches: list[int] = []
        """The sizes of the batches that were stored."""
        self.begun: list[str] = []
        """The operations of the first events of the batches that were begun."""
        self.is_away = False
        """Whether no batch can be begun."""
        self.open = 0
        """Requests that were sent and not answered yet."""
        self.gate: asyncio.Event | None = None
        """Holds back all requests until it is set."""

    async def send_alone(self, message: EncodedEvent, _seconds: float) -> int:
        return (await self._store([message]))[0]

    def begin_batch(self, first: EncodedEvent) -> StoreBatch:
        if self.is_away:
            raise JournalUnavailable("the broker connection failed", maybe_stored=False)
        self.begun.append(first.operation_id)

        async def store(rest: Sequence[EncodedEvent]) -> Sequence[int]:
            if not self._allows_batches:
                raise BrokerRefused(400, 10174, "atomic publish is disabled")
            sequences = await self._store([first, *rest], is_batch=True)
            self.batches.append(1 + len(rest))
            return sequences

        return store

    async def last_sequences(self, operation_ids: Sequence[str]) -> dict[str, int]:
        await asyncio.sleep(0)
        return {one: self.last(one) for one in operation_ids if self.last(one)}

    def last(self, operation_id: str) -> int:
        """The sequence of an operation's last event; 0 without one."""
        return max((at for at, one in enumerate(self.stored, 1) if one.operation_id == operation_id), default=0)

    async def _store(self, messages: Sequence[EncodedEvent], *, is_batch: bool = False) -> Sequence[int]:
        self.open += 1
        try:
            return await self._store_now(messages, is_batch=is_batch)
        finally:
            self.open -= 1

    async def _store_now(self, messages: Sequence[EncodedEvent], *, is_batch: bool) -> Sequence[int]:
        if self.gate is not None:
            await self.gate.wait()
        fate = self._fate()
        async with self._disk:
            for _ in range(_TURNS_OF_A_SYNC):
                await asyncio.sleep(0)
            if fate == "dropped":
                raise JournalUnavailable("no answer", maybe_stored=True)
            if fate == "forgotten" and is_batch:
                raise BrokerRefused(400, 10176, "batch publish is incomplete and was abandoned")
            if any(self.last(message.operation_id) != message.expected for message in messages):
                raise BrokerRefused(400, 10071, "wrong last sequence")
            first = len(self.stored) + 1
            self.stored += messages
        if fate == "lost":
            raise JournalUnavailable("no answer", maybe_stored=True)
        return range(first, len(self.stored) + 1)
