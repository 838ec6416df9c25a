"""Waiting for changes of an operation: one shared watch for all requests that wait for the same one (ADR 0010).

The journal's follower tells the watch of each event that is stored. An end that it could fold is final, and wakes the
requests at once; anything else is a reason to read. The follower may be away, so a watch is registered first and reads
second, and each watched operation is read again every `REFRESH_INTERVAL` seconds, however many requests wait.

Start with `WatchRegistry`, which routes use; `Watch` is the state of one operation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from opstream_api.errors import ApiError, operation_not_found
from opstream_journal import Connection, Journal
from opstream_journal.jetstream.connection import end_task
from opstream_journal.metrics.instruments import Gauges, Instrument
from opstream_schemas.errors import ErrorCode, InvalidName
from opstream_schemas.events import Canceled, Failed, Succeeded
from opstream_schemas.names import check_operation_id
from opstream_schemas.operation.state import Operation

from .event_feed import EventFeed
from .status import StatusReader

logger = logging.getLogger(__name__)

REFRESH_INTERVAL: Final = 5.0
"""Seconds after which a watched operation is read without a notification."""

ENDS: Final = frozenset({Succeeded.name, Failed.name, Canceled.name})
"""The last tokens of the subjects of outcomes."""
_REFRESH_JITTER: Final = 0.2
"""Share of a delay that is random, so that operations watched since the same moment are not read together."""
_RETRY_DELAY: Final = 1.0
"""Seconds between reads while the journal does not respond."""
CATCH_UP_DELAYS: Final = (0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25)
"""Seconds between reads after a notification: another server may deliver an event before the leader shows it."""
_FIRST_LOOK: Final = 0.25
"""Seconds until an operation is read of which the cached state is open."""
_FEW: Final = 4
"""Watched operations of which each event is looked at at once. With more of them, the looks take what they save."""
_RECONNECT_SPREAD: Final = 0.5
"""Seconds within which all watched operations are read again after a reconnect."""


class Watch:
    """The newest known state of one operation, for all requests that wait for a change of it.

    Args:
        operation_id: a valid id.
        connection: the connection to the broker, for pauses between reads.
        status: reads the operation.
        feed: the operation's events, for followers.
        jitter: returns a random delay between two bounds, in seconds.
    """

    def __init__(
        self,
        operation_id: str,
        *,
        connection: Connection,
        status: StatusReader,
        feed: EventFeed,
        jitter: Callable[[float, float], float],
    ) -> None:
        self.operation_id = operation_id
        self.feed = feed
        self.users = 0
        """Requests that use this watch."""
        self.followers = 0
        """Users that need every event, not only the terminal one."""
        self.operation: Operation | None = None
        """The state that was read last."""
        self.is_finished = False
        """No further change will be seen: the service stops, or the operation is gone."""
        self.is_journal_unavailable = False
        """The journal did not respond to the last read."""
        self._connection = connection
        self._status = status
        self._jitter = jitter
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._is_read_due = False
        """Read once more: what the present read saw may be older than what was asked for meanwhile."""
        self._awaited = 0
        """Stream sequence of the newest event that counts, as far as this process has heard."""
        self._set_timer(REFRESH_INTERVAL)

    async def close(self) -> None:
        """Finish the watch."""
        self.finish()
        if self._refreshing is not None:
            await end_task(self._refreshing)

    def notify(self, event_name: str, sequence: int) -> None:
        """Take notice of an event that the journal has stored. Call it after the event was folded, where it could be.

        Args:
            event_name: the last token of its subject.
            sequence: its stream sequence.
        """
        is_end = event_name in ENDS
        if self.is_finished or not (is_end or self.followers):
            return
        if self.operation is not None and self.operation.stream_sequence >= sequence:
            return
        if is_end and (ended := self._status.known_end(self.operation_id)) is not None:
            self.update(ended)
            return
        self._awaited = max(self._awaited, sequence)
        self._is_read_due = True
        self._start_refresh()

    async def wait_for_end(self, operation: Operation, seconds: float) -> None:
        """Wait until the operation is known to have ended, so many seconds are over, or the service stops.

        Args:
            operation: a state of it. Nothing is read at once.
            seconds: at most.
        """
        self.update(self._status.known_end(self.operation_id) or operation)
        newest = self.operation
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while newest is not None and not newest.is_terminal:
                    newest = await self.wait_for_newer(newest.stream_sequence)

    def finish(self) -> None:
        """Wake all waiting requests, for good."""
        self.is_finished = True
        if self._timer is not None:
            self._timer.cancel()
        self._notify_waiters()

    def update(self, operation: Operation) -> None:
        """Take over a state that was read, if it is newer, and wake the waiting requests."""
        self.is_journal_unavailable = False
        if self.operation is None or operation.stream_sequence > self.operation.stream_sequence:
            self.operation = operation
            self._notify_waiters()

    async def wait_for_newer(self, sequence: int) -> Operation | None:
        """Wait without a timeout for a state beyond a stream sequence. Return None if the watch finishes first."""
        while not self.is_finished:
            if self.operation is not None and self.operation.stream_sequence > sequence:
                return self.operation
            await self._changed.wait()
        return None

    def refresh_within(self, seconds: float) -> None:
        """Schedule a read of the operation within so many seconds, unless one comes sooner anyway."""
        if self._refreshing is not None:
            self._is_read_due = True
            return
        is_later = self._timer is not None and self._timer.when() <= asyncio.get_running_loop().time() + seconds
        if not (self.is_finished or is_later):
            self._set_timer(seconds)

    def _notify_waiters(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        pause = seconds - self._jitter(0.0, seconds * _REFRESH_JITTER)
        self._timer = asyncio.get_running_loop().call_later(pause, self._start_refresh)

    def _start_refresh(self) -> None:
        if self._refreshing is None and not self.is_finished:
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        pause = REFRESH_INTERVAL
        try:
            while True:
                self._is_read_due, awaited = False, self._awaited
                if not await self._read_up_to(awaited):
                    pause = _RETRY_DELAY
                if not self._is_read_due:
                    return
        except ApiError as error:
            if error.code is ErrorCode.JOURNAL_UNAVAILABLE:
                self.is_journal_unavailable = True
                pause = _RETRY_DELAY
            else:
                self.finish()  # each waiting request then reads by itself, and raises this error
        finally:
            self._refreshing = None
            if not (self.is_finished or (self.operation and self.operation.is_terminal)):
                self._set_timer(pause)

    async def _read_up_to(self, sequence: int) -> bool:
        """Read until the leader shows an event, for half a second; return False if it does not."""
        operation = await self._read()
        for pause in CATCH_UP_DELAYS:
            if operation.is_terminal or operation.stream_sequence >= sequence:
                return True
            await self._connection.sleep(pause)
            operation = await self._read()
        return operation.is_terminal or operation.stream_sequence >= sequence

    async def _read(self) -> Operation:
        operation = await self._status.read(self.operation_id)
        self.update(operation)
        return operation


class WatchRegistry:
    """All watches of one process.

    Args:
        connection: the connection to the broker.
        journal: the events, for followers.
        status: reads operations.
        jitter: returns a random delay between two bounds, in seconds.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        journal: Journal,
        status: StatusReader,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._status = status
        self._jitter = jitter
        self._watches: dict[str, Watch] = {}
        self._are_few = asyncio.Event()
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._watches)

    def __iter__(self) -> Iterator[Watch]:
        return iter(list(self._watches.values()))

    @property
    def followers(self) -> int:
        """The number of requests that follow an operation's events."""
        return sum(watch.followers for watch in self._watches.values())

    @property
    def waiters(self) -> int:
        """The number of requests that wait for an operation's end."""
        return sum(watch.users for watch in self._watches.values()) - self.followers

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """What the page of metrics shows."""
        return (
            Gauges(
                "opstream_http_clients",
                "Requests that wait now: for an operation's end (wait), or for its next event (events). Sum over "
                "processes.",
                "kind",
                read=lambda: [(("wait",), self.waiters), (("events",), self.followers)],
            ),
        )

    def start(self) -> None:
        """Read all watched operations again after each reconnect, since notifications were lost."""
        self._connection.on_reconnect(self.refresh_all)

    def stop(self) -> None:
        """Finish all watches, because the service stops. Later requests do not wait at all."""
        self._is_stopping = True
        self._connection.remove_reconnect_callback(self.refresh_all)
        for watch in self:
            watch.finish()

    def notify(self, operation_id: str, event_name: str, sequence: int) -> None:
        """Tell the watch of an operation, if there is one, of a stored event (`Watch.notify`)."""
        watch = self._watches.get(operation_id)
        if watch is not None:
            watch.notify(event_name, sequence)

    async def pause(self, seconds: float) -> None:
        """Pause between two looks at what the journal has stored; not at all while a few requests wait for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._are_few.wait()

    def refresh_all(self) -> None:
        """Read all watched operations within moments: events may have been missed."""
        for watch in self:
            watch.refresh_within(_RECONNECT_SPREAD)

    async def wait_until_terminal(self, operation_id: str, seconds: float) -> Operation:
        """Wait until an operation is terminal, so many seconds are over, or the service stops. Return its state.

        Raises:
            ApiError: as `StatusReader.read`.
        """
        async with self.watch(operation_id) as watch:
            known = self._status.known_state(operation_id)
            if known is None or known.is_terminal:
                operation = await self._status.read(operation_id)
            else:
                operation = known
                watch.refresh_within(_FIRST_LOOK)  # for many operations the end comes before
            watch.update(operation)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not operation.is_terminal:
                        newer = await watch.wait_for_newer(operation.stream_sequence)
                        if newer is None:
                            break
                        operation = newer
            return operation if operation.is_terminal else await self._status.read(operation_id)

    @contextlib.asynccontextmanager
    async def watch(self, operation_id: str, *, is_follower: bool = False) -> AsyncIterator[Watch]:
        """Use the shared watch of an operation. Read the operation inside of the context, not before.

        Raises:
            ApiError: `OperationNotFound`: the operation id is invalid.
        """
        watch = self._acquire(operation_id)
        watch.followers += is_follower
        try:
            yield watch
        finally:
            watch.followers -= is_follower
            await self._release(watch)

    def _acquire(self, operation_id: str) -> Watch:
        try:
            check_operation_id(operation_id)  # an invalid id is no reason to keep anything
        except InvalidName as error:
            raise operation_not_found() from error
        watch = self._watches.get(operation_id)
        if watch is None:
            watch = self._watches[operation_id] = Watch(
                operation_id,
                connection=self._connection,
                status=self._status,
                feed=EventFeed(self._journal, operation_id),
                jitter=self._jitter,
            )
            self._count()
        watch.users += 1
        if self._is_stopping:
            watch.finish()
        return watch

    async def _release(self, watch: Watch) -> None:
        watch.users -= 1
        if not watch.users:
            del self._watches[watch.operation_id]
            self._count()
            await watch.close()

    def _count(self) -> None:
        if 0 < len(self._watches) <= _FEW:
            self._are_few.set()
        else:
            self._are_few.clear()
