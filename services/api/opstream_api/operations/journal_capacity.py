"""The free capacity of the journal, for submits and `/readyz`: it responds, has a leader and has room.

Submits are refused before the journal is full, so that accepted operations can end. A share of the journal stays free,
and a reserve for each open operation (ADR 0015). The number of open operations is an upper bound, not an exact count:
the messages that wait for runners, for a timer or for a resource.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import Final, TypeVar

import msgspec

from opstream_journal import Connection, JournalError, JournalFull, JournalUnavailable, NotProvisioned
from opstream_journal.jetstream import rpc
from opstream_journal.metrics.instruments import Gauges, Instrument
from opstream_journal.metrics.page import KEPT
from opstream_journal.outage_log import OutageLog
from opstream_schemas import subjects

logger = logging.getLogger(__name__)

FULL_SHARE: Final = 0.85
"""Share of the journal's `max_bytes` from which on submits are refused, even without open operations."""
OPERATION_RESERVE: Final = 2 * 1024
"""Bytes to keep free for each open operation: its start, its end and a few events between them."""
_ENVELOPE: Final = 1024
"""Approximate bytes of a `requested` event without its input."""
_INTERVAL: Final = 5.0
"""Seconds between measurements. In between this process counts only the submits that it accepts itself."""


class _StreamConfig(msgspec.Struct, frozen=True):
    max_bytes: int = -1
    max_age: int = 0


class _StreamState(msgspec.Struct, frozen=True):
    bytes: int = 0
    messages: int = 0


class _Peer(msgspec.Struct, frozen=True):
    current: bool = False
    """False from ten seconds after the leader last heard of it."""


class _StreamCluster(msgspec.Struct, frozen=True):
    leader: str = ""
    replicas: list[_Peer] = []
    """The copies on other servers than the leader's."""


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
    """Measures the free capacity of the journal periodically.

    Args:
        connection: the connection to the broker.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._free_bytes: float = inf
        """Bytes that new operations may use."""
        self._used: int | None = None
        """Bytes that the journal takes; None before the first measurement."""
        self._limit = 0
        """Bytes that it may take; 0 for no limit."""
        self._copies: dict[str, int] = {}
        """Copies of the journal by their state."""
        self._measured_at = -inf
        """When what is shown was measured, in the loop's time."""
        self._is_full = False
        self.max_age = 0.0
        """Seconds for which the journal keeps events; 0 for ever."""
        self._task: asyncio.Task[None] | None = None

    @property
    def instruments(self) -> list[Instrument]:
        """The gauges of the last measurement."""
        return [
            Gauges(
                "opstream_journal_bytes",
                "Bytes of the journal on each of its servers. Each API shows the same: take the maximum.",
                read=lambda: [] if self._used is None else [((), self._used)],
            ),
            Gauges(
                "opstream_journal_limit_bytes",
                "Bytes that the journal may take (--max-bytes); no series without a limit. Take the maximum.",
                read=lambda: [((), self._limit)] if self._limit else [],
            ),
            Gauges(
                "opstream_journal_free_bytes",
                "Bytes until submits are refused (JournalFull); no series without a limit. Take the minimum.",
                read=lambda: [((), max(0.0, self._free_bytes))] if self._limit else [],
            ),
            Gauges(
                "opstream_journal_replicas",
                "Copies of the journal by their state: current, or behind, which is also that of a copy on a server "
                "that the broker has lost. Each API shows the same: take the maximum.",
                "state",
                read=lambda: [((state,), number) for state, number in self._copies.items()],
            ),
        ]

    async def start(self) -> None:
        """Measure now, and then every `_INTERVAL` seconds until `stop`.

        Raises:
            JournalUnavailable: the journal did not respond.
            NotProvisioned: there is no journal.
        """
        await self._measure()
        self._task = asyncio.create_task(self._measure_periodically(), name="capacity")

    async def stop(self) -> None:
        """Stop the periodic measurements."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def ensure_room(self) -> None:
        """Check the last measurement, without I/O.

        Raises:
            JournalFull: there is no room for another operation.
        """
        if self._free_bytes <= 0:
            raise JournalFull("the journal has no room for another operation: raise its limit with --max-bytes")

    def reserve(self, size: int) -> None:
        """Count a new operation whose input has `size` bytes."""
        self._free_bytes -= size + _ENVELOPE + OPERATION_RESERVE

    async def ensure_ready(self) -> None:
        """Measure now, in at most 4 seconds, and check the result.

        Raises:
            JournalUnavailable: the journal did not respond, or has no leader.
            NotProvisioned: there is no journal.
            JournalFull: there is no room for another operation.
        """
        await self._measure()
        self.ensure_room()

    async def _measure_periodically(self) -> None:
        outage = OutageLog(
            logger, "the journal does not respond, submits and reads may fail", "the journal responds again"
        )
        while True:
            await self._connection.sleep(_INTERVAL)
            try:
                await self._measure()
            except (JournalUnavailable, NotProvisioned) as error:
                outage.failed(error)
            else:
                outage.recovered()

    async def _measure(self) -> None:
        try:
            await self._measure_now()
        except JournalError:
            if asyncio.get_running_loop().time() - self._measured_at > KEPT:
                # These are only shown: what is not known has no series. An election leaves no gap, though.
                self._used, self._limit, self._copies = None, 0, {}
            raise

    async def _measure_now(self) -> None:
        try:
            info = await self._stream_info(subjects.OPERATIONS_STREAM)
        except NotProvisioned as error:
            raise NotProvisioned(f"the broker has no stream {subjects.OPERATIONS_STREAM}, the journal") from error
        if info.cluster is not None and not info.cluster.leader:
            raise JournalUnavailable("the journal has no leader", maybe_stored=False)
        used, limit = info.state.bytes, info.config.max_bytes
        self._used, self._limit, self._copies = used, max(0, limit), _count_copies(info.cluster)
        self._measured_at = asyncio.get_running_loop().time()
        self.max_age = info.config.max_age / 1e9
        if limit <= 0:
            self._free_bytes = inf
            return
        open_count = await self._count_open()
        self._free_bytes = FULL_SHARE * limit - used - OPERATION_RESERVE * open_count
        is_full = self._free_bytes <= 0
        if is_full != self._is_full:
            logger.warning(
                "the journal has %d of %d bytes in use, and at most %d open operations: submits are %s",
                used,
                limit,
                open_count,
                "refused" if is_full else "accepted again",
            )
        self._is_full = is_full

    async def _count_open(self) -> int:
        """Return an upper bound of the operations that have not ended.

        Each is with a runner, waits for one, has a timer or waits for a resource. Some are counted twice.
        """
        try:
            timers, locks, waiting = await asyncio.gather(
                self._stream_info(subjects.TIMERS_STREAM),
                self._stream_info(subjects.bucket_stream(subjects.HOLDS_BUCKET)),
                self._count_waiting(),
            )
        except NotProvisioned as error:  # which the monitor names; without it the open operations can't be counted
            raise JournalUnavailable(str(error), maybe_stored=False) from error
        return timers.state.messages + locks.state.messages + waiting

    async def _count_waiting(self) -> int:
        waiting, offset = 0, 0
        while True:
            request = msgspec.json.encode({"offset": offset})
            response = await rpc.call(self._connection, f"$JS.API.CONSUMER.LIST.{subjects.OPERATIONS_STREAM}", request)
            listed = _decoded(_decode_consumers, response.data)
            runners = (
                consumer for consumer in listed.consumers if consumer.name.startswith(subjects.RUNNER_CONSUMER_PREFIX)
            )
            waiting += sum(consumer.num_pending + consumer.num_ack_pending for consumer in runners)
            offset += len(listed.consumers)
            if not listed.consumers or offset >= listed.total:
                return waiting

    async def _stream_info(self, stream: str) -> _StreamInfo:
        response = await rpc.call(self._connection, f"$JS.API.STREAM.INFO.{stream}")
        return _decoded(_decode, response.data)


def _count_copies(cluster: _StreamCluster | None) -> dict[str, int]:
    peers = cluster.replicas if cluster is not None else []
    current = sum(peer.current for peer in peers)
    return {"current": 1 + current, "behind": len(peers) - current}


def _decoded(decode: Callable[[bytes], _T], data: bytes) -> _T:
    try:
        found = decode(data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable("the response about the journal is not JetStream's", maybe_stored=False) from error
    if found.error is not None and found.error.err_code == rpc.STREAM_NOT_FOUND:
        raise NotProvisioned(f"a stream is missing: {found.error.description}")
    if found.error is not None:
        raise JournalUnavailable(f"the journal: {found.error.description}", maybe_stored=False)
    return found
