"""Group commit: events of different operations that are appended at the same time are stored together.

The broker syncs each message that it stores, one after the other. It syncs an atomic batch as a whole, which costs
about four syncs and two milliseconds of work, whatever the batch's size. So a batch pays from some twenty events where
a sync is quick, and from six where it takes 2 ms (docs/adr/0038 has the figures). An event that finds the way free is
sent at once, by itself. Only those that come while others are being stored are put together.

A batch is stored as a whole or not at all, and a refusal does not say which member is to blame. Then each member is
sent by itself, so a caller gets the same answer as if there were no batches.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from opstream_schemas import subjects

from .errors import BrokerRefused, EventTooLarge, JournalError, JournalFull, JournalUnavailable

logger = logging.getLogger(__name__)

MAX_MEMBERS: Final = 256
"""Events in one batch. The broker accepts 1,000; a larger batch makes its members wait longer and saves little."""
MAX_BYTES: Final = 1024 * 1024
"""Bytes of the events in one batch. The broker keeps a batch twice until it is stored."""
MAX_EVENT_BYTES: Final = 64 * 1024
"""A larger event is always sent by itself: writing it costs more than the sync."""

WRONG_VERSION: Final = frozenset({10071, 10201})
"""JetStream's `err_code`s for an append with a wrong expected version, or with an id that is stored already."""
IN_FLIGHT: Final = frozenset({10158, 10164})
"""JetStream's `err_code`s for an append while the same one, or another of the operation, is being stored."""
_BATCHES_DISABLED: Final = 10174
_LEAST_ALONE: Final = 2
"""Events that are stored at the same time, each by itself, at least: one whose answer is lost must not hold up all."""
_SYNCS_OF_A_BATCH: Final = 4
_WORK_OF_A_BATCH: Final = 0.006
"""Seconds that a batch takes beside its syncs, with the processor time of all, which has its worth, too."""
_SYNCS_OF_GATHERING: Final = 4
_MOST_GATHERING: Final = 0.01
"""Seconds for up to `_MEMBERS_OF_A_GATHERING` that were answered."""
_MEMBERS_OF_A_GATHERING: Final = 64
_MOST_GATHERINGS: Final = 3.0
_LEAST_SECONDS: Final = 1e-5
_DOUBLING_TIME: Final = 10.0
"""Seconds in which the shortest measured time is taken for twice as long, unless a shorter one is measured."""
_LONG_AGO: Final = 300.0
_RETRY_BATCHES: Final = 60.0
"""Seconds until batches are tried again on a stream that allowed none; `opstream provision --update` allows them."""


class EncodedEvent(NamedTuple):
    """An event as it is published, with what its group has to know of it."""

    operation_id: str
    subject: str
    payload: bytes
    headers: dict[str, str]
    expected: int
    """The stream sequence of the operation's last event, as the writer has seen it."""


SendAlone = Callable[[EncodedEvent, float], Awaitable[int]]
"""Stores one event within seconds and returns its stream sequence. Raises as `rpc.publish` does."""
StoreBatch = Callable[[Sequence[EncodedEvent]], Awaitable[Sequence[int]]]
"""Ends a batch with its further events, stores all or none, and returns their sequences. Raises as `AtomicBatch.store`.
"""
BeginBatch = Callable[[EncodedEvent], StoreBatch]
"""Sends the first event of a batch, which the broker does not store before the batch ends. Raises as `AtomicBatch`."""
LastSequences = Callable[[Sequence[str]], Awaitable[dict[str, int]]]
"""Returns the last stream sequence of each operation that has one, from any replica."""


class _Member:
    """An event that waits to be stored together with others."""

    __slots__ = ("answer", "is_sent", "message")

    def __init__(self, message: EncodedEvent, answer: asyncio.Future[int | None]) -> None:
        self.message = message
        self.answer = answer
        """The stream sequence; None if the caller is to send the event by itself."""
        self.is_sent = False

    @property
    def is_open(self) -> bool:
        """Return True if the caller still waits."""
        return not self.answer.done()

    def store(self, sequence: int) -> None:
        if self.is_open:
            self.answer.set_result(sequence)

    def send_alone(self) -> None:
        if self.is_open:
            self.is_sent = False
            self.answer.set_result(None)

    def fail(self, text: str, *, maybe_stored: bool) -> None:
        if self.is_open:
            self.answer.set_exception(JournalUnavailable(text, maybe_stored=maybe_stored))

    def expire(self, seconds: float) -> None:
        text = f"no answer on {self.message.subject} within {seconds:g} s"
        self.fail(text, maybe_stored=self.is_sent)


class _BegunBatch(NamedTuple):
    """The next batch, whose first event the broker has."""

    first: _Member
    store: StoreBatch


class SingleTime:
    """How long the broker takes at least to store a single event, without this process's own delays."""

    def __init__(self) -> None:
        self._seconds = math.inf
        self._measured_at = 0.0

    def add(self, seconds: float, now: float) -> None:
        """Add a measurement, made at `now` (monotonic seconds). What was measured before counts less with time."""
        age = min(now - self._measured_at, _LONG_AGO)
        self._seconds = min(seconds, self._seconds * 2 ** (age / _DOUBLING_TIME))
        self._measured_at = now

    @property
    def least_batch(self) -> int:
        """The number of events from which on a batch is cheaper than one after the other."""
        if self._seconds == math.inf:
            return MAX_MEMBERS
        return min(MAX_MEMBERS, _SYNCS_OF_A_BATCH + round(_WORK_OF_A_BATCH / max(self._seconds, _LEAST_SECONDS)))

    def gathering_time(self, answered: int) -> float:
        """Seconds from a batch with so many members to the next: as long as four single events take, or a few times.

        Writers that were answered have work to do until their next events; many of them take longer, and fewer batches
        leave more of the stream to other processes.
        """
        times = min(max(1.0, answered / _MEMBERS_OF_A_GATHERING), _MOST_GATHERINGS)
        return times * min(_SYNCS_OF_GATHERING * self._seconds, _MOST_GATHERING)


class GroupCommit:
    """Stores events on one stream, those that come at the same time together.

    Args:
        send_alone: stores one event.
        begin_batch: begins a batch of events of different operations.
        last_sequences: finds the members of a refused batch that are to blame.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        send_alone: SendAlone,
        begin_batch: BeginBatch,
        last_sequences: LastSequences,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._send_alone = send_alone
        self._begin_batch = begin_batch
        self._last_sequences = last_sequences
        self._clock = clock
        self._single_time = SingleTime()
        self._alone = 0
        """Events that are being stored, each by itself."""
        self._waiting: list[_Member] = []
        self._batch: asyncio.Task[None] | None = None
        self._begun: _BegunBatch | None = None
        """The next batch, if the broker has its first event already."""
        self._is_gathering = False
        self._last_size = 0
        """Members of the last batch."""
        self._is_busy = False
        """The last batch was worth it, so the next one is likely to be, too."""
        self._disabled_until = 0.0

    async def publish(self, message: EncodedEvent, *, timeout: float) -> int:  # noqa: ASYNC109 - a wait with a limit
        """Store an event; return its stream sequence.

        A caller that is cancelled before its event is sent leaves nothing behind. Afterwards the event may be stored,
        as with any publish.

        Raises:
            JournalUnavailable, JournalFull, BrokerRefused, EventTooLarge: see `SendAlone`.
        """
        if len(message.payload) > MAX_EVENT_BYTES:
            return await self._send_alone(message, timeout)
        if self._is_free and not self._waiting:
            return await self._publish_alone(message, timeout)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        member = _Member(message, loop.create_future())
        timer = loop.call_later(timeout, member.expire, timeout)
        self._waiting.append(member)
        if self._is_gathering:
            self._begin_next()
        self._go_on()
        try:
            sequence = await member.answer
        except asyncio.CancelledError:
            self._go_on()  # it may have been released to be sent alone, and others wait behind it
            raise
        finally:
            timer.cancel()
        if sequence is None:
            return await self._publish_alone(message, max(until - loop.time(), 0.001))
        return sequence

    @property
    def _is_free(self) -> bool:
        return self._batch is None and not self._is_gathering and self._alone < self._most_alone

    @property
    def _most_alone(self) -> int:
        if self._disabled_until and self._clock() < self._disabled_until:
            return sys.maxsize  # nothing is won by a wait
        # As many as make a batch would take as long as a batch, and the others would wait for them first.
        return max(_LEAST_ALONE, self._single_time.least_batch // 4)

    async def _publish_alone(self, message: EncodedEvent, seconds: float) -> int:
        self._alone += 1
        began = self._clock()
        try:
            sequence = await self._send_alone(message, seconds)
        finally:
            self._alone -= 1
            self._go_on()
        now = self._clock()
        self._single_time.add(now - began, now)
        return sequence

    def _go_on(self) -> None:
        """Send what can be sent now."""
        if self._batch is not None or self._is_gathering or not (self._waiting or self._begun):
            return
        self._waiting = [member for member in self._waiting if member.is_open]
        is_worth = len(self._waiting) >= self._single_time.least_batch and self._clock() >= self._disabled_until
        if self._begun or is_worth:
            # The task takes its members when it begins to run, so what comes in this turn of the event loop joins them.
            self._batch = asyncio.create_task(self._store(), name="group commit")
            self._batch.add_done_callback(self._end_batch)
            return
        free = max(0, self._most_alone - self._alone)
        for member in self._waiting[:free]:
            member.send_alone()
        del self._waiting[:free]

    def _begin_next(self) -> None:
        """Send the first member of the next batch, so that the broker makes its files while the others come."""
        if self._begun is not None or not self._is_busy:
            return
        first = next((member for member in self._waiting if member.is_open), None)
        if first is None:
            return
        try:
            store = self._begin_batch(first.message)
        except JournalError:
            return  # it is tried again with the others, who are told
        first.is_sent = True
        self._begun = _BegunBatch(first, store)

    def _take_batch(self, first: _Member | None) -> list[_Member]:
        """Take members of different operations. Two of one operation would both be stored (docs/nats.md)."""
        members = {} if first is None else {first.message.operation_id: first}
        size = 0
        for member in self._waiting:
            size += len(member.message.payload)
            if len(members) == MAX_MEMBERS or size > MAX_BYTES:
                break
            members.setdefault(member.message.operation_id, member)
        taken = set(members.values())
        self._waiting = [member for member in self._waiting if member not in taken]
        return list(members.values())

    def _end_batch(self, task: asyncio.Task[None]) -> None:
        self._batch = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a group of events was not stored", exc_info=error)
        if self._clock() < self._disabled_until or len(self._waiting) >= MAX_MEMBERS:
            self._go_on()
            return
        self._is_gathering = True
        self._begin_next()
        # Those that were just answered have their next events soon: with them, fewer and larger batches do. Also if no
        # event waits yet: the first ones would be sent alone, and the broker stores one after the other.
        seconds = self._single_time.gathering_time(self._last_size)
        asyncio.get_running_loop().call_later(seconds, self._end_gathering)

    def _end_gathering(self) -> None:
        self._is_gathering = False
        self._go_on()

    async def _store(self) -> None:
        begun, self._begun = self._begun, None
        members = self._take_batch(begun.first if begun else None)
        self._last_size = len(members)
        self._is_busy = len(members) >= self._single_time.least_batch
        try:
            refused = await self._store_batch(members, begun.store if begun else None)
            if refused is None:
                return
            blameless = await self._without_conflicts(members, refused)
            for member in set(members).difference(blameless):
                member.send_alone()
            if blameless and await self._store_batch(blameless) is not None:
                for member in blameless:
                    member.send_alone()
        finally:
            for member in members:
                member.fail("the group of events was not stored", maybe_stored=True)

    async def _store_batch(self, members: list[_Member], store: StoreBatch | None = None) -> JournalError | None:
        """Store all members and answer them. Return the refusal if none is stored and each may be sent again.

        Args:
            members: of different operations.
            store: ends the batch, if it was begun with the first of them.
        """
        # The broker has the first event of a batch that was begun, even if its caller has gone.
        members = [member for member in members if member.is_open or (store is not None and member is members[0])]
        if not members:
            return None
        for member in members:
            member.is_sent = True
        first, *rest = [member.message for member in members]
        try:
            sequences = await (store or self._begin_batch(first))(rest)
        except JournalUnavailable as error:
            for member in members:
                member.fail(str(error), maybe_stored=error.maybe_stored)
        except (BrokerRefused, JournalFull, EventTooLarge) as error:
            for member in members:
                member.is_sent = False
            return error
        else:
            for member, sequence in zip(members, sequences, strict=True):
                member.store(sequence)
        return None

    async def _without_conflicts(self, members: list[_Member], refused: JournalError) -> list[_Member]:
        """Return the members of a refused batch that are worth another batch: none, or fewer than all."""
        code = refused.err_code if isinstance(refused, BrokerRefused) else 0
        if code == _BATCHES_DISABLED:
            if not self._disabled_until:
                logger.warning(
                    "the stream %s stores each event by itself, which is slow under load: run 'opstream provision "
                    "--update'",
                    subjects.OPERATIONS_STREAM,
                )
            self._disabled_until = self._clock() + _RETRY_BATCHES
        if code not in WRONG_VERSION | IN_FLIGHT:
            return []
        try:
            found = await self._last_sequences([member.message.operation_id for member in members])
        except JournalError:
            return []  # it would only have saved time
        blameless = [one for one in members if found.get(one.message.operation_id, 0) == one.message.expected]
        return blameless if 1 < len(blameless) < len(members) else []
