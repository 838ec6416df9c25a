"""Complete reads of one operation: every event up to the last one that its leader has.

The last event comes from the leader, and its position says how many events there are. The others are requested from
any replica, in batches, which is faster. A replica may be behind, or not answer; then the leader is asked, for one
message at a time. Before a forced end (docs/adr/0014) the positions don't say how many events there are: there all
messages come from the leader, and those that are not events are left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import RecordedEvent, Started, decode_event
from opstream_schemas.operation.fold import forced_end_of
from opstream_schemas.operation.forced_end import OperationMessage, decode_events, events_from_request
from opstream_schemas.operation.state import Operation

from .errors import JournalUnavailable
from .jetstream import rpc
from .jetstream.batch_read import BatchReader
from .jetstream.connection import Connection
from .jetstream.rpc import had_expected_version

_BATCH: Final = 256
_OPERATIONS: Final = 100
"""Operations in one request: the broker refuses to answer with more than 1,024 messages, and each may have eight."""
_NEAR: Final = 256
"""Messages between a known event and the last one up to which the broker looks through all of them for the missing
ones. Over a longer way each is read by itself, from the end on."""
_LINKS: Final = 8
"""Missing events up to which they are read so."""
_REPLICA_TRIES: Final = 3
_REPLICA_TIMEOUT: Final = 1.0


class OperationReader:
    """Reads of single operations over one connection.

    Args:
        connection: the connection.
        jitter: draws a delay from `[low, high]` seconds.
    """

    def __init__(self, connection: Connection, jitter: Callable[[float, float], float]) -> None:
        self._connection = connection
        self._jitter = jitter
        self._reader = BatchReader(connection)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def last_message(self, operation_id: str) -> rpc.StoredMessage | None:
        """Return the operation's last event, from the leader; None without one.

        Raises:
            JournalUnavailable: no leader answered.
        """
        return await rpc.get_last(self._connection, subjects.OPERATIONS_STREAM, subjects.operation_filter(operation_id))

    async def last_of_type(self, operation: Operation, event: str) -> RecordedEvent | None:
        """Return an operation's last event of a type, from the leader; None without one that can be read.

        Raises:
            JournalUnavailable: no leader answered.
        """
        subject = subjects.event_subject(operation.id, operation.kind, event)
        found = await rpc.get_last(self._connection, subjects.OPERATIONS_STREAM, subject)
        try:
            return None if found is None else decode_event(found.data, found.seq, found.subject)
        except InvalidEvent:
            return None

    async def events_after(self, end: rpc.StoredMessage, sequence: int, position: int) -> list[RecordedEvent]:
        """Return the events after a stream sequence and position (0, 0: all) up to `end`, the last one.

        Raises:
            JournalUnavailable: no leader answered.
            InvalidEvent: the operation's subjects have a message that is not an event.
        """
        if end.seq <= sequence:
            return []
        last = decode_event(end.data, end.seq, end.subject)
        own = subjects.operation_filter(last.operation_id)
        if not end.subject.startswith(own.removesuffix(">")):
            raise InvalidEvent(f"sequence {end.seq} ({end.subject}) is an event of operation {last.operation_id}")
        if forced_end_of(last) is not None:
            return await self._read_up_to_forced_end(sequence, last)
        missing = last.position - position - 1
        if missing < 0 or (not missing and not sequence and not had_expected_version(end, own, 0)):
            return await self._read_from_leader(sequence, last)
        if not missing:
            return [last]
        if missing == 1 and sequence and (start := await self._read_start(sequence, end)) is not None:
            return [start, last]
        previous = rpc.expected_version_of(end)
        for _ in range(_REPLICA_TRIES):
            try:
                found = await (
                    self._read_since(sequence, last, missing, previous)
                    if sequence
                    else self._read_from_start(last, missing, previous)
                )
            except JournalUnavailable:
                break
            if found is not None:
                return found
            await self._connection.sleep(self._jitter(0.01, 0.1))
        return await self._read_from_leader(sequence, last)

    async def last_sequences(self, operation_ids: Sequence[str]) -> dict[str, int]:
        """Return the last sequences of operations within a second (`read_last_sequences`)."""
        return await read_last_sequences(self._reader, operation_ids, timeout=_REPLICA_TIMEOUT)

    async def messages(self, operation_id: str, sequence: int, until: int) -> list[OperationMessage]:
        """Return all messages on the operation's subjects after a stream sequence, up to the one at `until`.

        Raises:
            JournalUnavailable: no leader answered, or it has lost the message at `until`.
        """
        found: list[OperationMessage] = []
        subject = subjects.operation_filter(operation_id)
        while sequence < until:
            message = await rpc.get_next(self._connection, subjects.OPERATIONS_STREAM, subject, sequence + 1)
            if message is None:
                raise JournalUnavailable(f"the leader has lost sequence {until}", maybe_stored=False)
            found.append(OperationMessage(message.seq, message.data, message.subject))
            sequence = message.seq
        return found

    async def page(self, operation_id: str, sequence: int, count: int) -> list[RecordedEvent]:
        """Return the event at a stream sequence and some that follow: at least that one, at most `count`.

        Raises:
            JournalUnavailable: no leader answered, or it has lost that event.
            InvalidEvent: it is no event.
        """
        subject = subjects.operation_filter(operation_id)
        try:
            page = await self._read_page({"next_by_subj": subject, "seq": sequence, "batch": count})
        except JournalUnavailable:
            page = []
        if not page or page[0].seq != sequence:  # a replica that is behind
            message = await rpc.get_next(self._connection, subjects.OPERATIONS_STREAM, subject, sequence)
            if message is None or message.seq != sequence:
                raise JournalUnavailable(f"the leader has lost sequence {sequence}", maybe_stored=False)
            page = [message]
        first, *others = page
        # The read of the whole operation left out the messages that are no events, so this one does, too.
        return [decode_event(first.data, first.seq, first.subject), *_decodable_events(others)]

    async def _read_from_start(self, last: RecordedEvent, missing: int, previous: int) -> list[RecordedEvent] | None:
        """Return all events of an operation; [] if its beginning has expired; None while a replica is behind.

        The broker finds the last event of each type at once, whatever the size of the stream. A short operation has no
        others. A longer one is read as by `_read_since`, from its first event. A read from the start of the stream
        would take longer with every event that other operations store.
        """
        page = await self._read_last_of_each_type(last, after=0)
        known = _events_before(last, page)
        if len(known) == missing:
            return [*known, last]
        if not known or known[0].position != 1:
            return [] if any(m.seq >= last.sequence for m in page) else None
        if self._is_far(known[0].sequence, last, missing, len(known)):
            linked = await self._read_linked(0, last, previous, page)
            if len(linked) == missing:
                return [*linked, last]
        following = await self._read_after(known[0].sequence, last, missing - 1)
        return None if following is None else [known[0], *following]

    async def _read_start(self, sequence: int, end: rpc.StoredMessage) -> RecordedEvent | None:
        """Return the `started` between a sequence and the last event; None if it is not there, or not known yet.

        Most operations are read when they wait and when they have ended. What is missing then is one event, of which
        the subject is known: a request with a single answer, which costs half of a batch.
        """
        subject = f"{end.subject.rpartition('.')[0]}.{Started.name}"
        if subject == end.subject:
            return None
        try:
            found = await rpc.get_direct(
                self._connection, subjects.OPERATIONS_STREAM, subject, timeout=_REPLICA_TIMEOUT
            )
        except JournalUnavailable:
            return None
        is_between = found is not None and sequence < found.seq < end.seq
        return decode_event(found.data, found.seq, found.subject) if found is not None and is_between else None

    async def _read_since(
        self, sequence: int, last: RecordedEvent, missing: int, previous: int
    ) -> list[RecordedEvent] | None:
        """As `_read_after`, but try first the ways that do not scan the events of other operations in between.

        Args:
            sequence: the events after it.
            last: the last one.
            missing: how many there are in between.
            previous: the expected version that the last one was appended with.
        """
        page = await self._read_last_of_each_type(last, after=sequence)
        known = _events_before(last, page)
        if self._is_far(sequence, last, missing, len(known)):
            known = await self._read_linked(sequence, last, previous, page)
        return [*known, last] if len(known) == missing else await self._read_after(sequence, last, missing)

    @staticmethod
    def _is_far(sequence: int, last: RecordedEvent, missing: int, known: int) -> bool:
        """Return True if a few events are missing on a long way."""
        return known < missing <= known + _LINKS and last.sequence - sequence > _NEAR

    async def _read_linked(
        self, sequence: int, last: RecordedEvent, previous: int, page: list[rpc.StoredMessage]
    ) -> list[RecordedEvent]:
        """Return the events before the last one, each found by the expected version of the one after it.

        That is the sequence of the event before it, which the broker finds at once, however long the stream is. What
        is not found so is left out.
        """
        own = subjects.operation_filter(last.operation_id).removesuffix(">")
        known = {message.seq: message for message in page if message.seq < last.sequence}
        found: list[RecordedEvent] = []
        while sequence < previous < last.sequence and len(found) < len(page) + _LINKS:
            message = known.get(previous)
            if message is None:
                message = await rpc.get_direct_at(
                    self._connection, subjects.OPERATIONS_STREAM, previous, timeout=_REPLICA_TIMEOUT
                )
            if message is None or not message.subject.startswith(own) or message.expected >= previous:
                break
            found.append(decode_event(message.data, message.seq, message.subject))
            previous = message.expected
        return found[::-1]

    async def _read_after(self, sequence: int, last: RecordedEvent, missing: int) -> list[RecordedEvent] | None:
        """Return the `missing` events after `sequence`, and the last; None while a replica is behind.

        The count is exact: a larger batch makes the broker search to the end of the stream.
        """
        found: list[RecordedEvent] = []
        request = {"next_by_subj": subjects.operation_filter(last.operation_id)}
        while len(found) < missing:
            batch = min(missing - len(found), _BATCH)
            page = await self._read_page(request | {"seq": sequence + 1, "batch": batch})
            # A short page is not the end: the broker also cuts a batch by its bytes.
            if not page or page[-1].seq >= last.sequence:
                return None
            found += [decode_event(message.data, message.seq, message.subject) for message in page]
            sequence = found[-1].sequence
        return [*found, last]

    async def _read_from_leader(self, sequence: int, last: RecordedEvent) -> list[RecordedEvent]:
        """Return all events after `sequence`, whatever their positions are. The fold checks them."""
        found: list[RecordedEvent] = []
        is_whole = sequence > 0
        subject = subjects.operation_filter(last.operation_id)
        while True:
            message = await rpc.get_next(self._connection, subjects.OPERATIONS_STREAM, subject, sequence + 1)
            if message is None:
                raise JournalUnavailable(f"the leader has lost sequence {last.sequence}", maybe_stored=False)
            if message.seq >= last.sequence:
                return [*found, last] if is_whole or last.position == 1 else []
            event = decode_event(message.data, message.seq, message.subject)
            if not is_whole and event.position != 1:
                return []
            is_whole = True
            found.append(event)
            sequence = event.sequence

    async def _read_up_to_forced_end(self, sequence: int, end: RecordedEvent) -> list[RecordedEvent]:
        """Return the events after a sequence up to a forced end, among any messages; [] without the beginning."""
        events = decode_events(await self.messages(end.operation_id, sequence, end.sequence))
        return events if sequence else [*events_from_request(end.operation_id, events)]

    async def _read_last_of_each_type(self, last: RecordedEvent, *, after: int) -> list[rpc.StoredMessage]:
        return await self._read_page({"multi_last": [subjects.operation_filter(last.operation_id)], "seq": after + 1})

    async def _read_page(self, request: dict[str, object]) -> list[rpc.StoredMessage]:
        return await self._reader.read(subjects.OPERATIONS_STREAM, request, timeout=_REPLICA_TIMEOUT)


def _decodable_events(messages: list[rpc.StoredMessage]) -> Iterator[RecordedEvent]:
    for message in messages:
        with contextlib.suppress(InvalidEvent):
            yield decode_event(message.data, message.seq, message.subject)


def _events_before(last: RecordedEvent, page: list[rpc.StoredMessage]) -> list[RecordedEvent]:
    """Return the events of a page that come before the last one, in stream order."""
    earlier = (
        decode_event(message.data, message.seq, message.subject) for message in page if message.seq < last.sequence
    )
    return sorted(earlier, key=lambda event: event.sequence)


async def read_last_sequences(
    reader: BatchReader,
    operation_ids: Sequence[str],
    *,
    timeout: float,  # noqa: ASYNC109 - handed on
) -> dict[str, int]:
    """Return the last stream sequence of each operation that the journal has, from any replica.

    A sequence may be too low if the operation's events are large: then the broker cuts the answer.

    Args:
        reader: started.
        operation_ids: the operations.
        timeout: seconds for each hundred of them.

    Raises:
        JournalUnavailable: no replica answered, or not in time.
        BrokerRefused: another error.
    """
    messages = await reader.read_last(
        subjects.OPERATIONS_STREAM,
        [subjects.operation_filter(one) for one in operation_ids],
        batch=_OPERATIONS,
        timeout=timeout,
        filter_of=lambda subject: subjects.operation_filter(_operation_of(subject)),
    )
    return {_operation_of(message.subject): message.seq for message in messages}


def _operation_of(subject: str) -> str:
    return subject.split(".", 2)[1]
