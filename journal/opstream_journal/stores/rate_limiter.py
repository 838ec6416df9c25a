"""The slots of an action's rate, shared by all runners: one key of the bucket `holds` for each action.

An attempt reserves a slot before it begins. The slot stays reserved if the attempt begins later or never. So the rate
may be used a little less than it allows, and never more.
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
    """The stored state of one action's rate."""

    due: float = 0.0
    """See `theoretical_arrival` of `opstream_schemas.operation.rate_limit.Slot`."""
    taken: dict[str, float] = {}
    """The last reserved slots by the name of their attempt: Unix seconds, 0 for a slot that was free at once."""
    since: float = 0.0
    """See `Slot`; 0 if a runner of 0.2.0 wrote the state."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_RateState).decode


class RateLimiter:
    """Reserves slots for one action.

    Args:
        connection: the connection.
        kind: the action.
        rate: of the action.
        jitter: draws a delay from `[low, high]` seconds.
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
        """Reserve the next slot. For the same name, the result stays the same.

        A slot in the future belongs to the wake-up that waits for it, also after that time has come.

        Args:
            name: of the attempt, which may be delivered more than once.
            now: Unix seconds of the broker, whose clock fires the wake-ups.

        Raises:
            JournalError: the broker did not answer, or refused.
        """
        async with self._lock:  # attempts of one process must not conflict with each other
            for _ in range(_TRIES):
                entry = await self._bucket.get(self._key)
                pace = _decode_state(entry)
                if name in pace.taken:
                    return pace.taken[name]
                slot = reserve_slot(self._rate, pace.due, now, pace.since)
                at = slot.starts_at if slot.starts_at > now else 0.0
                taken = dict([*pace.taken.items(), (name, at)][-_REMEMBERED_SLOTS:])
                if await self._bucket.replace(
                    self._key, _encode(_RateState(slot.theoretical_arrival, taken, slot.since)), entry.revision
                ):
                    return at
                await self._connection.sleep(self._jitter(*_RETRY_DELAY))
        raise JournalUnavailable(f"the rate {self._key} changes all the time", maybe_stored=False)


def _decode_state(entry: KeyValueEntry) -> _RateState:
    try:
        return _decode(entry.data) if entry.data else _RateState()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _RateState()  # a foreign value is overwritten
