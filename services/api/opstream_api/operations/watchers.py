"""Waiting for operations: one watch for each that somebody waits for, whoever and however many they are.

Callers: the routes of a status that is waited for, and of a history that is followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from opstream_api.errors import operation_not_found
from opstream_journal import Journal, Link
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import check_operation_id
from opstream_schemas.operation.fold import Operation

from .event_feed import Feed
from .status import StatusReader
from .watch import Watch

_RECONNECT_SPREAD: Final = 0.5
"""Seconds over which everything is read again after a reconnect."""


class Watchers:
    """All watches of one process.

    Args:
        link: where hints come from.
        journal: where followers' events come from.
        status: how operations are read.
        jitter: draws a wait from `[low, high]` seconds.
    """

    def __init__(
        self,
        *,
        link: Link,
        journal: Journal,
        status: StatusReader,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._link = link
        self._journal = journal
        self._status = status
        self._jitter = jitter
        self._watches: dict[str, Watch] = {}
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._watches)

    def __iter__(self) -> Iterator[Watch]:
        return iter(list(self._watches.values()))

    def start(self) -> None:
        """Look at everything that is waited for after each reconnect: hints were lost."""
        self._link.on_reconnect(self._look_again)

    def stop(self) -> None:
        """Let everyone go: the service is about to end. Those who come later do not wait at all."""
        self._is_stopping = True
        self._link.forget_reconnect(self._look_again)
        for watch in self:
            watch.end()

    async def terminal(self, operation_id: str, seconds: float) -> Operation:
        """The operation once it is terminal; or as it is when the time is up, or when the service stops.

        Raises:
            ApiError: as `StatusReader.read`.
        """
        async with self.watch(operation_id) as watch:
            operation = await self._status.read(operation_id)
            watch.see(operation)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not operation.is_terminal:
                        newer = await watch.newer(operation.stream_sequence)
                        if newer is None:
                            break
                        operation = newer
            return operation if operation.is_terminal else await self._status.read(operation_id)

    @contextlib.asynccontextmanager
    async def watch(self, operation_id: str, *, is_follower: bool = False) -> AsyncIterator[Watch]:
        """The watch of an operation, shared with all others who wait for it. Read the operation inside, not before.

        Raises:
            ApiError: `OperationNotFound` for what is no operation id.
        """
        watch = await self._enter(operation_id)
        watch.followers += is_follower
        try:
            yield watch
        finally:
            watch.followers -= is_follower
            await self._leave(watch)

    async def _enter(self, operation_id: str) -> Watch:
        try:
            check_operation_id(operation_id)  # what is none must not reach a subject
        except InvalidName as error:
            raise operation_not_found() from error
        watch = self._watches.get(operation_id)
        if watch is None:
            watch = self._watches[operation_id] = Watch(
                operation_id,
                link=self._link,
                status=self._status,
                feed=Feed(self._journal, operation_id),
                jitter=self._jitter,
            )
        watch.users += 1
        try:
            await watch.opened()
        except BaseException:
            await self._leave(watch)
            raise
        if self._is_stopping:
            watch.end()
        return watch

    async def _leave(self, watch: Watch) -> None:
        watch.users -= 1
        if not watch.users:
            del self._watches[watch.operation_id]
            await watch.close()

    def _look_again(self) -> None:
        for watch in self:
            watch.look_soon(_RECONNECT_SPREAD)
