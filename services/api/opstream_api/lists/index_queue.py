"""Asks the index in a few threads of its own, since a database blocks; what waits for them is bounded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from opstream_api.errors import ApiError
from opstream_index.errors import IndexFault, QueryTimeout
from opstream_index.store import Coverage
from opstream_journal.outage_log import OutageLog
from opstream_schemas.errors import ErrorCode

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 64
"""Questions that wait for the index in one process. A further one is answered 503."""

MAX_WAITING_OF_ONE: Final = 16
"""Of these, the questions about the operations of one caller, where they wait for each other."""

_OUTAGE: Final = OutageLog(logger, "lists are answered with 503", "the index answers again")

R = TypeVar("R")
T = TypeVar("T")


class _Turn:
    """The questions of one who asks."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


class IndexQueue(Generic[R]):
    """Has work done with one of a few readers.

    Args:
        readers: of the index, each for one question at a time.
    """

    def __init__(self, readers: Sequence[R]) -> None:
        self._readers = list(readers)
        self._threads = ThreadPoolExecutor(len(readers), thread_name_prefix="index")
        self._waiting = 0
        self._turns: dict[Hashable, _Turn] = {}

    async def run_in_turn(self, asker: Hashable, work: Callable[[R], T]) -> T:
        """As `run`; of one who asks, one question at a time, so that those of others come between.

        Raises:
            ApiError: `IndexUnavailable`, also if too many of the same wait; as `work`.
        """
        turn = self._turns.setdefault(asker, _Turn())
        if turn.waiting >= MAX_WAITING_OF_ONE:
            raise index_unavailable("more of your questions wait for the index than it can answer: try again")
        turn.waiting += 1
        try:
            async with turn.lock:
                return await self.run(work)
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[asker]

    async def run(self, work: Callable[[R], T]) -> T:
        """Return what `work` returns, which is called with a reader in a thread.

        Raises:
            ApiError: `IndexUnavailable`; as `work`.
        """
        if self._waiting >= MAX_WAITING:
            raise index_unavailable("more lists wait for the index than it can answer: try again")
        self._waiting += 1
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._threads, self._work, work)
        except QueryTimeout as error:
            raise index_unavailable("the index took too long: ask for less, as by a range of createdAt") from error
        except IndexFault as error:
            _OUTAGE.failed(error)
            raise index_unavailable("the index can't be read now: try again") from error
        finally:
            self._waiting -= 1
        _OUTAGE.recovered()
        return done

    def stop(self) -> None:
        """Take no more questions. Those that run end by themselves, within seconds."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _work(self, work: Callable[[R], T]) -> T:
        reader = self._readers.pop()
        try:
            return work(reader)
        finally:
            self._readers.append(reader)


def check_complete(coverage: Coverage, began: int = 0) -> None:
    """Check that an index has all that it had at a moment of the journal (microseconds since 1970).

    Raises:
        ApiError: `IndexUnavailable`. What a page would lack, no later page would have.
    """
    if not coverage.is_complete or coverage.complete_until < began:
        raise index_unavailable("the index is being made, and is not complete yet: try again")


def index_unavailable(message: str) -> ApiError:
    """The error for an index that can't answer now."""
    return ApiError(ErrorCode.INDEX_UNAVAILABLE, message)
