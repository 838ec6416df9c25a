"""Says every few seconds that this runner is there, so that a status can tell why an operation does not begin.

Nothing waits for it: an attempt begins and ends the same without it, and so does the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from opstream_journal import JournalError, NotProvisioned
from opstream_journal.queues.runner_records import LAST_INTERVAL, WRITE_INTERVAL, PresenceWriter, RunnerRecord
from opstream_schemas.names import Kind

logger = logging.getLogger(__name__)

WARN_AFTER: Final = 30.0
"""Seconds for which the broker has to lack the bucket: longer than an election takes."""
_END_TIMEOUT: Final = 2.0
"""Seconds that a stopping runner takes for it at most; without an answer the broker removes the records soon."""


class PresenceKeeper:
    """Keeps the presence records of one runner (docs/adr/0060).

    Args:
        writer: writes the records.
        read: returns what to write, for each action.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        writer: PresenceWriter,
        read: Callable[[], Sequence[tuple[Kind, RunnerRecord]]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._writer = writer
        self._read = read
        self._clock = clock
        self._noted_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None
        self._missing_since: float | None = None
        self._is_warned = False

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._keep(), name="presence")

    def begin_end(self) -> None:
        """Say that this runner takes nothing any more. It waits for nothing."""
        if self._task is not None and self._end is None:
            self._task.cancel()
            self._end = asyncio.create_task(self._remove(self._task), name="end of presence")

    async def ended(self) -> None:
        """Wait until that is said, for 2 seconds at most."""
        if self._end is not None:
            await asyncio.wait([self._end])

    async def _keep(self) -> None:
        while True:
            now = self._clock()
            is_noted = now - self._noted_at >= LAST_INTERVAL
            if await self._try(*(self._writer.write(kind, one, is_noted=is_noted) for kind, one in self._read())):
                self._noted_at = now if is_noted else self._noted_at
                self._missing_since = None
            await asyncio.sleep(WRITE_INTERVAL)

    async def _remove(self, writing: asyncio.Task[None]) -> None:
        await asyncio.wait([writing])
        try:
            async with asyncio.timeout(_END_TIMEOUT):
                await self._try(*(self._writer.remove(kind) for kind, _ in self._read()))
        except TimeoutError:
            logger.debug("the end of this runner is not recorded: the broker does not answer")

    def _note_missing(self, error: NotProvisioned) -> None:
        """Warn once, and only if it lasts: without a leader a stream does not answer, either."""
        if self._missing_since is None:
            self._missing_since = self._clock()
        if self._clock() - self._missing_since >= WARN_AFTER and not self._is_warned:
            self._is_warned = True
            logger.warning("this runner works, but other processes don't see it: %s", error)

    async def _try(self, *writes: Coroutine[Any, Any, None]) -> bool:
        for error in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(error, NotProvisioned):
                self._note_missing(error)
                return False
            if isinstance(error, JournalError):
                logger.debug("a presence record is not written: %s", error)  # an outage has its lines already
                return False
            if isinstance(error, BaseException):
                logger.error("a presence record can't be written", exc_info=error)
                return False
        return True
