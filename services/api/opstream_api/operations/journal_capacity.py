"""Whether the journal takes new operations: it answers, has a leader, and is not nearly full. Submits and /readyz ask.

Submits stop before the journal is full, so that what was accepted can end: a share of the journal stays free, and room
for what each open operation still records (docs/adr/0015). How many are open is not counted but bounded from above, by
what waits for runners, for its time, or for a resource.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import Final, TypeVar

import msgspec

from opstream_journal import Connection, JournalFull, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_schemas import subjects

logger = logging.getLogger(__name__)

FULL_SHARE: Final = 0.85
"""Share of the journal's `max_bytes` at which submits are refused, even if nothing is open."""
OPERATION_RESERVE: Final = 2 * 1024
"""Bytes that are kept free for each open operation: its start, its end, and a little between."""
_ENVELOPE: Final = 1024
"""Bytes of a request beside its input, about."""
_INTERVAL: Final = 5.0
"""Seconds between looks. What this process accepts in between it counts by itself; what others do, it learns then."""


class _StreamConfig(msgspec.Struct, frozen=True):
    max_bytes: int = -1


class _StreamState(msgspec.Struct, frozen=True):
    bytes: int = 0
    messages: int = 0


class _StreamCluster(msgspec.Struct, frozen=True):
    leader: str = ""


class _StreamInfo(msgspec.Struct, frozen=True):
    config: _StreamConfig = _StreamConfig()
    state: _StreamState = _StreamState()
    cluster: _StreamCluster | None = None
    error: rpc.JetStreamErrorBody | None = None


class _ConsumerBacklog(msgspec.Struct, frozen=True):
    name: str = ""
    num_pending: int = 0
    num_ack_pending: int = 0


class _ConsumerList(msgspec.Struct, frozen=True):
    total: int = 0
    consumers: list[_ConsumerBacklog] = []
    error: rpc.JetStreamErrorBody | None = None


_T = TypeVar("_T", _StreamInfo, _ConsumerList)
_decode: Final = msgspec.json.Decoder(_StreamInfo).decode
_decode_consumers: Final = msgspec.json.Decoder(_ConsumerList).decode


class JournalCapacity:
    """Looks at the journal's size from time to time.

    Args:
        link: the connection.
    """

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._free_bytes: float = inf
        """Bytes that further operations may take."""
        self._is_full = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look, and go on looking.

        Raises:
            JournalUnavailable: the journal did not answer.
        """
        await self._measure()
        self._task = asyncio.create_task(self._measure_periodically(), name="capacity")

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def ensure_room(self) -> None:
        """What is known since the last look; costs nothing.

        Raises:
            JournalFull: no new operation should be recorded.
        """
        if self._free_bytes <= 0:
            raise JournalFull("the journal has no room for another operation: raise --max-bytes")

    def reserve(self, size: int) -> None:
        """An operation whose input has `size` bytes was recorded."""
        self._free_bytes -= size + _ENVELOPE + OPERATION_RESERVE

    async def ensure_ready(self) -> None:
        """Look now; takes 4 seconds at most.

        Raises:
            JournalUnavailable: the journal did not answer, or has no leader.
            JournalFull: no new operation should be recorded.
        """
        await self._measure()
        self.ensure_room()

    async def _measure_periodically(self) -> None:
        while True:
            await self._link.sleep(_INTERVAL)
            try:
                await self._measure()
            except JournalUnavailable as error:
                logger.debug("the journal's size can't be read now: %s", error)

    async def _measure(self) -> None:
        info = await self._stream_info(subjects.OPERATIONS_STREAM)
        if info.cluster is not None and not info.cluster.leader:
            raise JournalUnavailable("the journal has no leader", maybe_stored=False)
        used, limit = info.state.bytes, info.config.max_bytes
        if limit <= 0:
            self._free_bytes = inf
            return
        is_open = await self._count_open()
        self._free_bytes = FULL_SHARE * limit - used - OPERATION_RESERVE * is_open
        is_full = self._free_bytes <= 0
        if is_full != self._is_full:
            logger.warning(
                "the journal holds %d of %d bytes, and at most %d operations that have not ended: submits are %s",
                used,
                limit,
                is_open,
                "refused" if is_full else "accepted again",
            )
        self._is_full = is_full

    async def _count_open(self) -> int:
        """At least the number of operations that have not ended: they are with a runner or before one, or have a timer,
        or wait for a hold. Some are counted twice."""
        timers, holds, waiting = await asyncio.gather(
            self._stream_info(subjects.TIMERS_STREAM),
            self._stream_info(subjects.bucket_stream(subjects.HOLDS_BUCKET)),
            self._count_waiting(),
        )
        return timers.state.messages + holds.state.messages + waiting

    async def _count_waiting(self) -> int:
        waiting, offset = 0, 0
        while True:
            request = msgspec.json.encode({"offset": offset})
            answer = await rpc.call(self._link, f"$JS.API.CONSUMER.LIST.{subjects.OPERATIONS_STREAM}", request)
            listed = _decoded(_decode_consumers, answer.data)
            runners = (one for one in listed.consumers if one.name.startswith(subjects.RUNNER_CONSUMER_PREFIX))
            waiting += sum(one.num_pending + one.num_ack_pending for one in runners)
            offset += len(listed.consumers)
            if not listed.consumers or offset >= listed.total:
                return waiting

    async def _stream_info(self, stream: str) -> _StreamInfo:
        answer = await rpc.call(self._link, f"$JS.API.STREAM.INFO.{stream}")
        return _decoded(_decode, answer.data)


def _decoded(decode: Callable[[bytes], _T], data: bytes) -> _T:
    try:
        found = decode(data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable("the answer about the journal is not JetStream's", maybe_stored=False) from error
    if found.error is not None:
        raise JournalUnavailable(f"the journal: {found.error.description}", maybe_stored=False)
    return found
