"""Whether the journal takes new operations: it answers, has a leader, and is not nearly full. Submits and /readyz ask.

Submits stop before the journal is full, so that the outcomes of what was accepted always fit (architecture.md).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from opstream_journal import JournalFull, JournalUnavailable, Link, rpc
from opstream_schemas import subjects

logger = logging.getLogger(__name__)

FULL_AT: Final = 0.85
"""Share of the journal's `max_bytes` at which submits are refused."""
_INTERVAL: Final = 5.0
"""Seconds between looks; at thousands of events a second the journal grows by some ten megabytes meanwhile."""


class _Config(msgspec.Struct, frozen=True):
    max_bytes: int = -1


class _State(msgspec.Struct, frozen=True):
    bytes: int = 0


class _Cluster(msgspec.Struct, frozen=True):
    leader: str = ""


class _StreamInfo(msgspec.Struct, frozen=True):
    config: _Config = _Config()
    state: _State = _State()
    cluster: _Cluster | None = None
    error: rpc.ApiError | None = None


_decode: Final = msgspec.json.Decoder(_StreamInfo).decode


class Capacity:
    """Looks at the journal's size from time to time.

    Args:
        link: the connection.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._is_full = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look, and go on looking.

        Raises:
            JournalUnavailable: the journal did not answer.
        """
        await self._look()
        self._task = asyncio.create_task(self._watch(), name="capacity")

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def check(self) -> None:
        """What the last look found; costs nothing.

        Raises:
            JournalFull: no new operation should be recorded.
        """
        if self._is_full:
            raise JournalFull(f"the journal is filled to {FULL_AT:.0%} or more: raise --max-bytes")

    async def check_now(self) -> None:
        """Look now; takes 2 seconds at most.

        Raises:
            JournalUnavailable: the journal did not answer, or has no leader.
            JournalFull: no new operation should be recorded.
        """
        await self._look()
        self.check()

    async def _watch(self) -> None:
        while True:
            await self._link.rest(_INTERVAL)
            try:
                await self._look()
            except JournalUnavailable as error:
                logger.debug("the journal's size can't be read now: %s", error)

    async def _look(self) -> None:
        answer = await rpc.call(self._link, f"$JS.API.STREAM.INFO.{subjects.OPERATIONS_STREAM}")
        try:
            info = _decode(answer.data)
        except msgspec.MsgspecError as error:
            raise JournalUnavailable("the answer about the journal is not JetStream's", maybe_stored=False) from error
        if info.error is not None:
            raise JournalUnavailable(f"the journal: {info.error.description}", maybe_stored=False)
        if info.cluster is not None and not info.cluster.leader:
            raise JournalUnavailable("the journal has no leader", maybe_stored=False)
        is_full = info.config.max_bytes > 0 and info.state.bytes >= FULL_AT * info.config.max_bytes
        if is_full != self._is_full:
            logger.warning(
                "the journal holds %d of %d bytes: submits are %s",
                info.state.bytes,
                info.config.max_bytes,
                "refused" if is_full else "accepted again",
            )
        self._is_full = is_full
