"""The event journal: guarded append, one operation's events, the floor. Callers: every service.

The protocol of `append` is architecture.md, Guarded append; its cases were found by running them (nats-facts.md).
A retry is always the same bytes under the same event id; whoever decides anew after a `VersionConflict` takes a new id.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NewType

from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import CONTENT_TYPE, Event, RecordedEvent, decode_event, encode_event, recorded
from opstream_schemas.names import Kind
from opstream_schemas.operation import Operation

from . import rpc
from .errors import EventTooLarge, JournalFull, JournalUnavailable, RequestRefused, VersionConflict
from .link import Link

Expected = NewType("Expected", int)
"""The stream sequence of the last event that the writer has seen of the operation."""

NEW: Final = Expected(0)
"""The operation must not exist yet."""

UNTIL_STORED: Final = float("inf")
"""A budget for outcomes: retry until stored or fenced off."""

_WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10201})
_IN_FLIGHT: Final = frozenset({10158, 10164})
_STORE_FAILED: Final = 10077
_TOO_LARGE: Final = 10054
_UNAVAILABLE: Final = 503
_BATCH: Final = 256
_HEADER_ROOM: Final = 1024
_STALE_READ_TRIES: Final = 20


class Journal:
    """The journal over one connection.

    Args:
        link: the connection.
        max_msg_size: the stream's limit in bytes (`provision.check` returns it); -1 for none.
        jitter: draws a wait from `[low, high]` seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        link: Link,
        *,
        max_msg_size: int,
        clock: Callable[[], float],
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._link = link
        self._max_msg_size = max_msg_size
        self._clock = clock
        self._jitter = jitter
        self._reader = rpc.BatchReader(link)

    async def start(self) -> None:
        """Open the inbox for reads."""
        await self._reader.start()

    async def append(self, kind: Kind, event: Event, expected: Expected, *, budget: float) -> RecordedEvent:
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
            EventTooLarge: never sent.
            RequestRefused: another error of the broker.
        """
        payload = encode_event(event)
        self._check_size(payload)
        subject = subjects.event_subject(event.operation_id, kind, event.data.name)
        headers = {
            "Nats-Msg-Id": event.id,
            "Nats-Expected-Last-Subject-Sequence": str(expected),
            "Nats-Expected-Last-Subject-Sequence-Subject": subjects.operation_filter(event.operation_id),
            "Content-Type": CONTENT_TYPE,
        }
        attempt = _Attempt(self._clock() + budget)
        while True:
            try:
                timeout = min(rpc.CALL_TIMEOUT, max(attempt.remaining(self._clock()), 0.05))
                sequence = await rpc.publish(self._link, subject, payload, headers, timeout=timeout)
            except JournalUnavailable as error:
                attempt.note(error, is_unsure=error.maybe_stored)
            except RequestRefused as refused:
                if refused.err_code in _WRONG_LAST_SEQUENCE:
                    attempt.note(refused, is_unsure=True)
                    attempt.is_refused = True
                elif refused.err_code in _IN_FLIGHT:
                    attempt.note(refused, is_unsure=True)
                else:
                    _raise_named(refused)
                    attempt.note(refused, is_unsure=True)
            else:
                return recorded(event, payload, sequence)
            if attempt.is_unsure:
                stored = await self._find(event, expected, attempt)
                if stored is not None:
                    return recorded(event, payload, stored)
            await self._pause(attempt)

    async def last(self, operation_id: str) -> rpc.StoredMessage | None:
        """The operation's last event as the leader has it: the floor of every read. None if there is none.

        Raises:
            JournalUnavailable: no leader answered.
        """
        return await rpc.get_last(self._link, subjects.OPERATIONS_STREAM, subjects.operation_filter(operation_id))

    async def events(self, operation_id: str, *, since: Operation | None = None) -> list[RecordedEvent]:
        """The operation's events that follow `since` (all without it), complete up to the leader's last one.

        An operation of which only the end is left (the rest expired) has no events any more.

        Raises:
            JournalUnavailable: no leader, or every replica asked is behind it.
            InvalidEvent: the operation's subjects hold something that is not an event.
        """
        floor = await self.last(operation_id)
        return [] if floor is None else await self.events_up_to(floor, since=since)

    async def events_up_to(self, floor: rpc.StoredMessage, *, since: Operation | None = None) -> list[RecordedEvent]:
        """As `events`, for a floor that `last` gave.

        Raises:
            JournalUnavailable: every replica asked is behind the floor.
            InvalidEvent: the operation's subjects hold something that is not an event.
        """
        cursor = (since.stream_sequence, since.position) if since else (0, 0)
        return await self._following(floor, *cursor)

    async def _following(self, floor: rpc.StoredMessage, sequence: int, position: int) -> list[RecordedEvent]:
        if floor.seq <= sequence:
            return []
        last = decode_event(floor.data, floor.seq)
        missing = last.position - position - 1
        for _ in range(_STALE_READ_TRIES):
            if missing <= 0:
                return [last]
            found = await (self._after(sequence, last, missing) if sequence else self._from_start(last, missing))
            if found is not None:
                return found
            await self._link.rest(self._jitter(0.01, 0.1))
        raise JournalUnavailable(f"every replica asked is behind sequence {last.sequence}", maybe_stored=False)

    async def _from_start(self, last: RecordedEvent, missing: int) -> list[RecordedEvent] | None:
        """All events of an operation; [] if its beginning expired; None while a replica is behind.

        The last event of each type is found at once, whatever the size of the stream; a short operation has no
        others. Only a longer one is read in order, from its first event: a read from the start of the stream would
        take longer with every event that others store.
        """
        request = {"multi_last": [subjects.operation_filter(last.operation_id)]}
        page = await self._reader.read(subjects.OPERATIONS_STREAM, request)
        known = sorted((decode_event(m.data, m.seq) for m in page if m.seq < last.sequence), key=lambda e: e.sequence)
        if len(known) == missing:
            return [*known, last]
        if not known or known[0].position != 1:
            return [] if any(m.seq >= last.sequence for m in page) else None
        following = await self._after(known[0].sequence, last, missing - 1)
        return None if following is None else [known[0], *following]

    async def _after(self, sequence: int, last: RecordedEvent, missing: int) -> list[RecordedEvent] | None:
        """The `missing` events between `sequence` and the last, and the last; None while a replica is behind.

        The count is exact: a batch that asks for more makes the server search to the end of the stream.
        """
        found: list[RecordedEvent] = []
        request = {"next_by_subj": subjects.operation_filter(last.operation_id)}
        while len(found) < missing:
            batch = min(missing - len(found), _BATCH)
            page = await self._reader.read(subjects.OPERATIONS_STREAM, request | {"seq": sequence + 1, "batch": batch})
            if len(page) < batch or page[-1].seq >= last.sequence:
                return None
            found += [decode_event(message.data, message.seq) for message in page]
            sequence = found[-1].sequence
        return [*found, last]

    def _check_size(self, payload: bytes) -> None:
        size = len(payload) + _HEADER_ROOM
        limits = [limit for limit in (self._max_msg_size, self._link.nc.max_payload) if limit > 0]
        if limits and size > min(limits):
            raise EventTooLarge(f"the event has {size} bytes with headers, the journal takes {min(limits)}")

    async def _find(self, event: Event, expected: Expected, attempt: _Attempt) -> int | None:
        """After an unsure answer: the sequence under which the event is stored, None if not stored so far.

        Raises:
            VersionConflict: another event took its place.
        """
        try:
            floor = await self.last(event.operation_id)
            if floor is None or floor.seq <= expected:
                if attempt.is_refused and floor is None and expected:
                    # What the writer had seen expired: nothing can extend it any more.
                    raise VersionConflict(event.operation_id, expected, 0)
                return None
            following = await self._following(floor, expected, event.position - 1)
        except JournalUnavailable as error:
            attempt.note(error, is_unsure=True)
            return None
        except InvalidEvent as error:
            raise VersionConflict(event.operation_id, expected, floor.seq if floor else 0) from error
        for one in following:
            if one.id == event.id:
                return one.sequence
        raise VersionConflict(event.operation_id, expected, floor.seq)

    async def _pause(self, attempt: _Attempt) -> None:
        remaining = attempt.remaining(self._clock())
        if remaining <= 0:
            raise JournalUnavailable(
                f"the journal did not acknowledge in time: {attempt.last_error}", maybe_stored=attempt.is_unsure
            ) from attempt.last_error
        if self._link.is_up:
            await self._link.rest(min(remaining, self._jitter(*attempt.next_wait())))
        else:
            await self._link.wait_up(min(remaining, self._jitter(0.5, 1.0)))


class _Attempt:
    """What is known of an append so far."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._wait = 0.005
        self.last_error: Exception | None = None
        self.is_unsure = False
        self.is_refused = False

    def remaining(self, now: float) -> float:
        return self._until - now

    def note(self, error: Exception, *, is_unsure: bool) -> None:
        self.last_error = error
        self.is_unsure = self.is_unsure or is_unsure

    def next_wait(self) -> tuple[float, float]:
        # No leader: an election takes seconds. In flight: the answer is milliseconds away.
        if isinstance(self.last_error, JournalUnavailable):
            return (0.1, 0.5)
        self._wait = min(self._wait * 2, 0.2)
        return (self._wait / 2, self._wait)


def _raise_named(refused: RequestRefused) -> None:
    if refused.err_code == _STORE_FAILED:
        raise JournalFull("the journal is full: raise --max-bytes, or wait until events expire") from refused
    if refused.err_code == _TOO_LARGE:
        raise EventTooLarge(str(refused)) from refused
    if refused.code != _UNAVAILABLE:
        raise refused
