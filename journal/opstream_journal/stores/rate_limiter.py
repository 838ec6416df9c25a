"""The slots of an action's rate, over all runners: one key of the bucket `holds` for each action. Caller: the runner.

A slot is taken by who is about to begin an attempt, and belongs to it from then on, also if the attempt begins later or
never; so a rate may be used a little less than it allows, and never more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import msgspec

from opstream_journal.errors import JournalUnavailable
from opstream_journal.jetstream.connection import Connection
from opstream_journal.jetstream.kv import KeyValueBucket, KeyValueEntry
from opstream_schemas.names import Kind
from opstream_schemas.operation.rate_limit import Rate, reserve_slot

_REMEMBERED_SLOTS: Final = 32
_TRIES: Final = 100
_RETRY_DELAY: Final = (0.001, 0.02)


class _RateState(msgspec.Struct, frozen=True):
    """What is remembered of an action."""

    due: float = 0.0
    """See `rates.Slot`."""
    taken: dict[str, float] = {}
    """The slots that were taken last, by whom; 0 for one that was free at once."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_RateState).decode


class RateLimiter:
    """Takes slots for one action.

    Args:
        connection: the connection.
        kind: the action.
        rate: its own.
        jitter: draws a wait from `[low, high]` seconds.
    """

    def __init__(
        self,
        connection: Connection,
        kind: Kind,
        rate: Rate,
        *,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._connection = connection
        self._key = f"r.{kind.resource}.{kind.action}"
        self._rate = rate
        self._jitter = jitter
        self._bucket = KeyValueBucket(connection, jitter)
        self._lock = asyncio.Lock()

    async def reserve(self, name: str, now: float) -> float:
        """Take the next slot: Unix seconds to wait for, or 0 for at once. Asked again for the same name, by whomever,
        it is the same answer: a slot that had to be waited for belongs to the wake for it, also once it has come.

        Args:
            name: of the attempt, which may be delivered more than once.
            now: Unix seconds.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        async with self._lock:  # those of one process need not run into each other
            for _ in range(_TRIES):
                cell = await self._bucket.get(self._key)
                pace = _decode_state(cell)
                if name in pace.taken:
                    return pace.taken[name]
                slot = reserve_slot(self._rate, pace.due, now)
                at = slot.starts_at if slot.starts_at > now else 0.0
                taken = dict([*pace.taken.items(), (name, at)][-_REMEMBERED_SLOTS:])
                if await self._bucket.replace(
                    self._key, _encode(_RateState(slot.theoretical_arrival, taken)), cell.revision
                ):
                    return at
                await self._connection.sleep(self._jitter(*_RETRY_DELAY))
        raise JournalUnavailable(f"the rate {self._key} changes all the time", maybe_stored=False)


def _decode_state(cell: KeyValueEntry) -> _RateState:
    try:
        return _decode(cell.data) if cell.data else _RateState()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _RateState()  # not ours; it is written over
