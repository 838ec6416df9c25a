"""The event journal: append with an expected version, read the events of one operation.

docs/architecture.md has the protocol of `append`; its cases were found by running them (docs/nats.md). A retry sends
the same bytes under the same event id. A new decision after a `VersionConflict` takes a new id.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final, NewType

from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import CONTENT_TYPE, Event, RecordedEvent, encode_event, recorded_event
from opstream_schemas.names import Kind
from opstream_schemas.operation.forced_end import OperationMessage
from opstream_schemas.operation.state import Operation
from opstream_schemas.traces.tracer import NO_TRACING, Tracer

from .errors import BrokerRefused, EventTooLarge, JournalError, JournalUnavailable, NoLeader, VersionConflict
from .group_commit import IN_FLIGHT, WRONG_VERSION, EncodedEvent, GroupCommit, StoreBatch
from .jetstream import rpc
from .jetstream.batch_publish import AtomicBatch, BatchMessage
from .jetstream.connection import Connection
from .jetstream.leader_lease import LeaderLease
from .jetstream.rpc import expected_version_headers
from .metrics.append_meter import AppendMeter
from .operation_reads import OperationReader
from .runtime.crash_points import CrashPoint, crash_point

ExpectedVersion = NewType("ExpectedVersion", int)
"""The stream sequence of the last event that the writer has seen of the operation."""

NEW_OPERATION: Final = ExpectedVersion(0)
"""The operation must not exist yet."""

UNTIL_STORED: Final = float("inf")
"""A budget for outcomes: retry until the event is stored, or another writer was first."""

_TOO_LARGE: Final = 10054
_UNAVAILABLE: Final = 503
_HEADER_BYTES: Final = 1024
_FINAL_READ_TIMEOUT: Final = 0.1
_CONTRADICTIONS: Final = 5
_LEASE_TRIES: Final = 5
"""Reads until one is answered while the leader's lease lasts; mostly the first or second."""


class Journal:
    """The journal over one connection.

    Args:
        connection: the connection.
        max_msg_size: the stream's limit in bytes, from `check_provisioned`; -1 for none.
        jitter: draws a delay from `[low, high]` seconds.
        clock: returns monotonic seconds.
        tracing: makes a span for each append within another span.
        confirms_leader: whether a read is answered only by who still leads (`LeaderLease`). What is answered to clients
            needs it; a decision does not, since an append on top of an old read is refused.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        max_msg_size: int,
        clock: Callable[[], float],
        jitter: Callable[[float, float], float] = random.uniform,
        tracing: Tracer = NO_TRACING,
        confirms_leader: bool = False,
    ) -> None:
        self._connection = connection
        self._max_msg_size = max_msg_size
        self._clock = clock
        self._jitter = jitter
        self._tracing = tracing
        self.meter = AppendMeter()
        self._reader = OperationReader(connection, jitter)
        self._lease = LeaderLease(connection, subjects.OPERATIONS_STREAM) if confirms_leader else None
        self._group = GroupCommit(self._send_alone, self._begin_batch, self._reader.last_sequences, clock=clock)

    @property
    def connection(self) -> Connection:
        """The connection."""
        return self._connection

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def append(self, kind: Kind, event: Event, expected: ExpectedVersion, *, budget: float) -> RecordedEvent:
        """Append an event if the operation's last event is still at `expected`.

        Args:
            kind: the operation's resource and action.
            event: the event. Sent again with the same bytes, it is stored once.
            expected: `NEW_OPERATION`, or the stream sequence of the last event that the writer has seen.
            budget: seconds to keep trying; at least one try is made.

        Raises:
            VersionConflict: another writer was first; load, decide again, and take a new event id.
            JournalUnavailable: not acknowledged within the budget; `maybe_stored` says whether it may be stored.
            JournalFull: a limit of storage was reached (`storage_limit`).
            EventTooLarge: not stored.
            InvalidEvent: no reader could decode it; not sent.
            BrokerRefused: another error of the broker.
        """
        began = self._clock()
        try:
            if self._tracing.is_on:
                with self._tracing.append_span(kind, event.operation_id, event.data.name, event.id):
                    recorded = await self._append(kind, event, expected, began + budget)
            else:
                recorded = await self._append(kind, event, expected, began + budget)
        except JournalError as error:
            self.meter.fail(error)
            raise
        self.meter.store(self._clock() - began)
        return recorded

    async def _append(self, kind: Kind, event: Event, expected: ExpectedVersion, until: float) -> RecordedEvent:
        payload = encode_event(event)
        self._check_size(payload)
        subject = subjects.event_subject(event.operation_id, kind, event.data.name)
        headers = {
            "Nats-Msg-Id": event.id,
            **expected_version_headers(subjects.operation_filter(event.operation_id), expected),
            "Content-Type": CONTENT_TYPE,
        }
        message = EncodedEvent(event.operation_id, subject, payload, headers, expected)
        attempt = _AppendAttempt(until)
        crash_point(CrashPoint.JOURNAL_PUBLISHES)
        while True:
            try:
                timeout = min(rpc.CALL_TIMEOUT, max(attempt.remaining(self._clock()), 0.05))
                sequence = await self._group.publish(message, timeout=timeout)
            except JournalUnavailable as error:
                attempt.record_failure(error, is_unsure=error.maybe_stored)
            except BrokerRefused as refused:
                if refused.err_code not in WRONG_VERSION | IN_FLIGHT:
                    _raise_specific(refused)
                attempt.record_failure(refused, is_unsure=True)
            else:
                crash_point(CrashPoint.JOURNAL_STORED)
                return recorded_event(event, payload, sequence, subject)
            if attempt.is_unsure:
                stored = await self._find_stored(event, expected, attempt)
                if stored is not None:
                    return recorded_event(event, payload, stored, subject)
            await self._pause(attempt)

    async def last_message(self, operation_id: str) -> rpc.StoredMessage | None:
        """Return the operation's last event, from the leader; None without one. A read is complete up to it.

        Raises:
            JournalUnavailable: no leader answered.
        """
        if self._lease is None:
            return await self._reader.last_message(operation_id)
        clock = asyncio.get_running_loop().time
        for _ in range(_LEASE_TRIES):
            asked_at, last = clock(), await self._reader.last_message(operation_id)
            if await self._lease.covers(asked_at):
                return last
        raise NoLeader("reads of the journal take longer than its leader may be trusted")

    async def last_of_type(self, operation: Operation, event: str) -> RecordedEvent | None:
        """Return an operation's last event of a type, from the leader; None without one that can be read.

        Raises:
            JournalUnavailable: no leader answered.
        """
        return await self._reader.last_of_type(operation, event)

    async def events(self, operation_id: str, *, since: Operation | None = None) -> list[RecordedEvent]:
        """Return the operation's events after `since` (all without it), complete up to the leader's last one.

        An operation whose beginning has expired has no events any more.

        Raises:
            JournalUnavailable: no leader answered.
            InvalidEvent: the operation's subjects have a message that is not an event.
        """
        last = await self.last_message(operation_id)
        return [] if last is None else await self.events_up_to(last, since=since)

    async def events_up_to(self, last: rpc.StoredMessage, *, since: Operation | None = None) -> list[RecordedEvent]:
        """Return the same up to `last`, which `last_message` returned.

        Raises:
            JournalUnavailable: no leader answered.
            InvalidEvent: the operation's subjects have a message that is not an event.
        """
        sequence, position = (since.stream_sequence, since.position) if since else (0, 0)
        return await self._reader.events_after(last, sequence, position)

    async def messages(self, operation_id: str) -> list[OperationMessage]:
        """Return all messages on the operation's subjects, events or not, oldest first. For diagnosis.

        Raises:
            JournalUnavailable: no leader answered.
        """
        last = await self._reader.last_message(operation_id)
        return [] if last is None else await self._reader.messages(operation_id, 0, last.seq)

    async def page(self, operation_id: str, sequence: int, count: int) -> list[RecordedEvent]:
        """Return the operation's event at a stream sequence and some that follow: at least that one, at most `count`.

        It serves readers of a long history that keep little of it. `count` must not exceed the events that exist, or
        the broker searches to the end of the stream. Messages that are not events are left out.

        Raises:
            JournalUnavailable: no leader answered, or it has lost that event.
            InvalidEvent: the message at the sequence is no event.
        """
        return await self._reader.page(operation_id, sequence, count)

    async def _send_alone(self, message: EncodedEvent, seconds: float) -> int:
        return await rpc.publish(self._connection, message.subject, message.payload, message.headers, timeout=seconds)

    def _begin_batch(self, first: EncodedEvent) -> StoreBatch:
        batch = AtomicBatch(self._connection, _batch_message(first))

        async def store(rest: Sequence[EncodedEvent]) -> Sequence[int]:
            return await batch.store([_batch_message(message) for message in rest], timeout=rpc.CALL_TIMEOUT)

        return store

    def _check_size(self, payload: bytes) -> None:
        size = len(payload) + _HEADER_BYTES
        limits = [limit for limit in (self._max_msg_size, self._connection.nc.max_payload) if limit > 0]
        if limits and size > min(limits):
            raise EventTooLarge(f"the event has {size} bytes with headers, the journal accepts {min(limits)}")

    async def _find_stored(self, event: Event, expected: ExpectedVersion, attempt: _AppendAttempt) -> int | None:
        """Return the sequence of the event after an unclear answer; None if it is not stored so far.

        Raises:
            VersionConflict: another event is stored instead.
        """
        seconds = max(attempt.remaining(self._clock()), _FINAL_READ_TIMEOUT)
        try:
            async with asyncio.timeout(None if seconds == UNTIL_STORED else seconds):
                last = await self.last_message(event.operation_id)
                if last is None or last.seq <= expected:
                    attempt.check_contradiction(event.operation_id, expected, last.seq if last else 0)
                    return None
                return await self._find_stored_up_to(last, event, expected)
        except TimeoutError:
            error = JournalUnavailable("no leader answered in time", maybe_stored=True)
            attempt.record_failure(error, is_unsure=True)
        except JournalUnavailable as error:
            attempt.record_failure(error, is_unsure=True)
        return None

    async def _find_stored_up_to(self, last: rpc.StoredMessage, event: Event, expected: ExpectedVersion) -> int:
        try:
            following = await self._reader.events_after(last, expected, event.position - 1)
        except InvalidEvent as error:
            raise VersionConflict(event.operation_id, expected, last.seq) from error
        for one in following:
            if one.id == event.id:
                return one.sequence
        raise VersionConflict(event.operation_id, expected, last.seq)

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
    """The state of one append."""

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
        """Raise if the broker refuses the writer's version again and again, although the leader is not ahead of it.

        Either an old leader answers, which passes. Or the writer has seen events that are gone (they expired, or were
        lost with a disk), which no append can ever follow.

        Raises:
            VersionConflict: after five such answers.
        """
        refused = isinstance(self.last_error, BrokerRefused) and self.last_error.err_code in WRONG_VERSION
        if refused and actual < expected:
            self._contradictions += 1
            if self._contradictions >= _CONTRADICTIONS:
                raise VersionConflict(operation_id, expected, actual) from self.last_error

    def next_delay(self) -> tuple[float, float]:
        # Without a leader, an election takes seconds. If the append is in flight, the answer takes milliseconds.
        if isinstance(self.last_error, JournalUnavailable):
            return (0.1, 0.5)
        self._wait = min(self._wait * 2, 0.2)
        return (self._wait / 2, self._wait)


def _batch_message(event: EncodedEvent) -> BatchMessage:
    return BatchMessage(event.subject, event.payload, event.headers)


def _raise_specific(refused: BrokerRefused) -> None:
    if refused.err_code == _TOO_LARGE:
        raise EventTooLarge(str(refused)) from refused
    if refused.code != _UNAVAILABLE:
        raise refused
