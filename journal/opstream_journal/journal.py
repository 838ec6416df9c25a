"""The event journal: guarded append, one operation's events, the floor. Callers: every service.

The protocol of `append` is in docs/architecture.md; its cases were found by running them (docs/nats.md).
A retry is always the same bytes under the same event id; whoever decides anew after a `VersionConflict` takes a new id.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final, NewType

from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import CONTENT_TYPE, Event, RecordedEvent, encode_event, recorded_event
from opstream_schemas.names import Kind
from opstream_schemas.operation.forced_end import OperationMessage
from opstream_schemas.operation.state import Operation

from .errors import BrokerRefused, EventTooLarge, JournalFull, JournalUnavailable, VersionConflict
from .jetstream import rpc
from .jetstream.connection import Connection
from .jetstream.rpc import expected_version_headers
from .operation_reads import OperationReader
from .runtime.crash_points import CrashPoint, crash_point

ExpectedVersion = NewType("ExpectedVersion", int)
"""The stream sequence of the last event that the writer has seen of the operation."""

NEW_OPERATION: Final = ExpectedVersion(0)
"""The operation must not exist yet."""

UNTIL_STORED: Final = float("inf")
"""A budget for outcomes: retry until stored or fenced off."""

_WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10201})
_IN_FLIGHT: Final = frozenset({10158, 10164})
_STORE_FAILED: Final = 10077
_NO_ROOM: Final = frozenset({10002, 10023, 10028, 10047})
_TOO_LARGE: Final = 10054
_UNAVAILABLE: Final = 503
_HEADER_BYTES: Final = 1024
_FINAL_READ_TIMEOUT: Final = 0.1
_CONTRADICTIONS: Final = 5


class Journal:
    """The journal over one connection.

    Args:
        connection: the connection.
        max_msg_size: the stream's limit in bytes (`provision.check` returns it); -1 for none.
        jitter: draws a delay from `[low, high]` seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        max_msg_size: int,
        clock: Callable[[], float],
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._connection = connection
        self._max_msg_size = max_msg_size
        self._clock = clock
        self._jitter = jitter
        self._reader = OperationReader(connection, jitter)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def append(self, kind: Kind, event: Event, expected: ExpectedVersion, *, budget: float) -> RecordedEvent:
        """Append an event if the operation's last event still is at `expected`.

        Args:
            kind: the operation's resource and action.
            event: what to store. Sent again with the same bytes, it is stored once.
            expected: `NEW`, or the stream sequence seen last.
            budget: seconds to keep trying; at least one try is made.

        Raises:
            VersionConflict: somebody else was first; load, decide again, and take a new event id.
            JournalUnavailable: not acknowledged within the budget; `maybe_stored` tells whether it may be there.
            JournalFull: the stream is at its `max_bytes`.
            EventTooLarge: not stored.
            InvalidEvent: nobody could decode it again; not sent.
            BrokerRefused: another error of the broker.
        """
        payload = encode_event(event)
        self._check_size(payload)
        subject = subjects.event_subject(event.operation_id, kind, event.data.name)
        headers = {
            "Nats-Msg-Id": event.id,
            **expected_version_headers(subjects.operation_filter(event.operation_id), expected),
            "Content-Type": CONTENT_TYPE,
        }
        attempt = _AppendAttempt(self._clock() + budget)
        crash_point(CrashPoint.JOURNAL_PUBLISHES)
        while True:
            try:
                timeout = min(rpc.CALL_TIMEOUT, max(attempt.remaining(self._clock()), 0.05))
                sequence = await rpc.publish(self._connection, subject, payload, headers, timeout=timeout)
            except JournalUnavailable as error:
                attempt.record_failure(error, is_unsure=error.maybe_stored)
            except BrokerRefused as refused:
                if refused.err_code not in _WRONG_LAST_SEQUENCE | _IN_FLIGHT:
                    _raise_specific(refused)
                attempt.record_failure(refused, is_unsure=True)
            else:
                crash_point(CrashPoint.JOURNAL_STORED)
                return recorded_event(event, payload, sequence)
            if attempt.is_unsure:
                stored = await self._find_stored(event, expected, attempt)
                if stored is not None:
                    return recorded_event(event, payload, stored)
            await self._pause(attempt)

    async def last_message(self, operation_id: str) -> rpc.StoredMessage | None:
        """The operation's last event as the leader has it: the floor of every read. None if there is none.

        Raises:
            JournalUnavailable: no leader answered.
        """
        return await self._reader.last_message(operation_id)

    async def events(self, operation_id: str, *, since: Operation | None = None) -> list[RecordedEvent]:
        """The operation's events that follow `since` (all without it), complete up to the leader's last one.

        An operation of which only the end is left (the rest expired) has no events any more.

        Raises:
            JournalUnavailable: no leader answered.
            InvalidEvent: the operation's subjects hold something that is not an event.
        """
        floor = await self._reader.last_message(operation_id)
        return [] if floor is None else await self.events_up_to(floor, since=since)

    async def events_up_to(self, floor: rpc.StoredMessage, *, since: Operation | None = None) -> list[RecordedEvent]:
        """As `events`, for a floor that `last` gave.

        Raises:
            JournalUnavailable: no leader answered.
            InvalidEvent: the operation's subjects hold something that is not an event.
        """
        sequence, position = (since.stream_sequence, since.position) if since else (0, 0)
        return await self._reader.events_after(floor, sequence, position)

    async def messages(self, operation_id: str) -> list[OperationMessage]:
        """Whatever lies on the operation's subjects, event or not, oldest first; for whoever looks into it.

        Raises:
            JournalUnavailable: no leader answered.
        """
        floor = await self._reader.last_message(operation_id)
        return [] if floor is None else await self._reader.messages(operation_id, 0, floor.seq)

    async def page(self, operation_id: str, sequence: int, count: int) -> list[RecordedEvent]:
        """The operation's event at a stream sequence and some that follow it: at least that one, at most `count`.

        For a reader of a long history that keeps little of it. Ask for no more than there are: the broker would search
        to the end of the stream. What is no event is left out.

        Raises:
            JournalUnavailable: no leader answered, or it has lost that event.
            InvalidEvent: what lies at the sequence is none.
        """
        return await self._reader.page(operation_id, sequence, count)

    def _check_size(self, payload: bytes) -> None:
        size = len(payload) + _HEADER_BYTES
        limits = [limit for limit in (self._max_msg_size, self._connection.nc.max_payload) if limit > 0]
        if limits and size > min(limits):
            raise EventTooLarge(f"the event has {size} bytes with headers, the journal takes {min(limits)}")

    async def _find_stored(self, event: Event, expected: ExpectedVersion, attempt: _AppendAttempt) -> int | None:
        """After an unsure answer: the sequence under which the event is stored, None if not stored so far.

        Raises:
            VersionConflict: another event took its place.
        """
        seconds = max(attempt.remaining(self._clock()), _FINAL_READ_TIMEOUT)
        try:
            async with asyncio.timeout(None if seconds == UNTIL_STORED else seconds):
                floor = await self.last_message(event.operation_id)
                if floor is None or floor.seq <= expected:
                    attempt.check_contradiction(event.operation_id, expected, floor.seq if floor else 0)
                    return None
                return await self._find_stored_up_to(floor, event, expected)
        except TimeoutError:
            error = JournalUnavailable("no leader answered in time", maybe_stored=True)
            attempt.record_failure(error, is_unsure=True)
        except JournalUnavailable as error:
            attempt.record_failure(error, is_unsure=True)
        return None

    async def _find_stored_up_to(self, floor: rpc.StoredMessage, event: Event, expected: ExpectedVersion) -> int:
        try:
            following = await self._reader.events_after(floor, expected, event.position - 1)
        except InvalidEvent as error:
            raise VersionConflict(event.operation_id, expected, floor.seq) from error
        for one in following:
            if one.id == event.id:
                return one.sequence
        raise VersionConflict(event.operation_id, expected, floor.seq)

    async def _pause(self, attempt: _AppendAttempt) -> None:
        remaining = attempt.remaining(self._clock())
        if remaining <= 0:
            raise JournalUnavailable(
                f"the journal did not acknowledge in time: {attempt.last_error}", maybe_stored=attempt.is_unsure
            ) from attempt.last_error
        if self._connection.is_connected:
            await self._connection.sleep(min(remaining, self._jitter(*attempt.next_delay())))
        else:
            await self._connection.wait_connected(min(remaining, self._jitter(0.5, 1.0)))


class _AppendAttempt:
    """What is known of an append so far."""

    def __init__(self, until: float) -> None:
        self._deadline = until
        self._wait = 0.005
        self.last_error: Exception | None = None
        self.is_unsure = False
        self._contradictions = 0

    def remaining(self, now: float) -> float:
        return self._deadline - now

    def record_failure(self, error: Exception, *, is_unsure: bool) -> None:
        self.last_error = error
        self.is_unsure = self.is_unsure or is_unsure

    def check_contradiction(self, operation_id: str, expected: int, actual: int) -> None:
        """The broker refused the writer's version, and yet the leader is not beyond it.

        That is either a leader of before, which will know soon, or a writer that saw what is not there any more (it
        expired, or was lost with a disk), which nothing can ever extend.
        """
        refused = isinstance(self.last_error, BrokerRefused) and self.last_error.err_code in _WRONG_LAST_SEQUENCE
        if refused and actual < expected:
            self._contradictions += 1
            if self._contradictions >= _CONTRADICTIONS:
                raise VersionConflict(operation_id, expected, actual) from self.last_error

    def next_delay(self) -> tuple[float, float]:
        # No leader: an election takes seconds. In flight: the answer is milliseconds away.
        if isinstance(self.last_error, JournalUnavailable):
            return (0.1, 0.5)
        self._wait = min(self._wait * 2, 0.2)
        return (self._wait / 2, self._wait)


def _raise_specific(refused: BrokerRefused) -> None:
    # The broker uses the same number for a store that is closing or whose disk failed; those may pass.
    is_full = refused.err_code == _STORE_FAILED and "maximum" in refused.description
    if is_full or refused.err_code in _NO_ROOM:
        raise JournalFull(
            f"the journal is full ({refused.description}): raise the limit, or wait until events expire"
        ) from refused
    if refused.err_code == _TOO_LARGE:
        raise EventTooLarge(str(refused)) from refused
    if refused.code != _UNAVAILABLE:
        raise refused
