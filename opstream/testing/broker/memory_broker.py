"""A broker in memory: what the streams OPERATIONS and TIMERS do for one consumer, on a virtual clock.

It knows messages, versions and times, and nothing of operations: what an event means is for the code above it, which is
that of production.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from opstream.testing.virtual_time import VirtualClock
from opstream_journal.jetstream.rpc import StoredMessage
from opstream_schemas import subjects
from opstream_schemas.events import Requested

_WRONG_SEQUENCE: Final = 10071
_NO_MESSAGE: Final = 10037
_API_ANSWER: Final = "io.nats.jetstream.api.v1.answer"


class Delivery(msgspec.Struct):
    """A message that its consumer has not acknowledged."""

    sequence: int
    due_at: datetime
    """When it is delivered next."""
    count: int = 0
    """How often it was delivered."""


class _Timer(msgspec.Struct, frozen=True):
    at: datetime
    target: str
    payload: bytes


class MemoryBroker:
    """The streams.

    Args:
        clock: by which timers fire.
        ack_wait: seconds after which a message that was delivered, and not acknowledged, is delivered again.
    """

    def __init__(self, clock: VirtualClock, ack_wait: float) -> None:
        self.clock = clock
        self._ack_wait = ack_wait
        self.messages: list[StoredMessage] = []
        """Of OPERATIONS, by sequence from 1."""
        self._ids: dict[str, int] = {}
        self._timers: dict[str, _Timer] = {}
        self._deliveries: dict[int, Delivery] = {}
        self._coming: list[_Timer] = []
        """What others store, once the clock comes to it."""

    def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> bytes:
        """Store a message as its stream does, and return the answer."""
        if subject.startswith("operations."):
            return self._store_event(subject, payload, headers)
        if (schedule := headers.get("Nats-Schedule")) is not None:
            at = datetime.fromisoformat(schedule.removeprefix("@at "))
            self._timers[subject] = _Timer(at, headers["Nats-Schedule-Target"], payload)
            return _acknowledged(subjects.TIMERS_STREAM, len(self._timers))
        self._fire(subject, payload)
        return _acknowledged(subjects.TIMERS_STREAM, len(self.messages))

    def store_at(self, at: datetime, subject: str, payload: bytes) -> None:
        """Let another operation's event be stored at a time. No consumer gets it."""
        self._coming.append(_Timer(at, subject, payload))

    def purge_timers(self, filter_subject: str) -> bytes:
        """Cancel timers, and return the answer."""
        pattern = filter_subject.replace(">", "*")
        for subject in [one for one in self._timers if fnmatch.fnmatchcase(one, pattern)]:
            del self._timers[subject]
        return msgspec.json.encode({"type": _API_ANSWER, "success": True})

    def read(self, request: Mapping[str, Any]) -> bytes:
        """Answer a read of one message."""
        self._take_coming()
        found = next(self._matching(request), None)
        if found is None:
            error = {"code": 404, "err_code": _NO_MESSAGE, "description": "no message found"}
            return msgspec.json.encode({"type": _API_ANSWER, "error": error})
        return msgspec.json.encode({"type": _API_ANSWER, "message": found})

    def read_batch(self, request: Mapping[str, Any]) -> list[StoredMessage]:
        """Answer a read of many messages."""
        self._take_coming()
        if (filters := request.get("multi_last")) is not None:
            last = {
                one.subject: one
                for one in self.messages
                if one.seq >= request.get("seq", 0) and any(_matches(one.subject, each) for each in filters)
            }
            return sorted(last.values(), key=lambda one: one.seq)
        return list(self._matching(request))[: request["batch"]]

    @property
    def is_settled(self) -> bool:
        """Return True if all messages are acknowledged. Timers may be left."""
        return not self._deliveries

    def next_delivery(self) -> Delivery | None:
        """Take the message that is due, which is delivered now; None if none is."""
        self._fire_due()
        due = [one for one in self._deliveries.values() if one.due_at <= self.clock.now()]
        if not due:
            return None
        first = min(due, key=lambda one: one.sequence)
        first.count += 1
        self.extend(first.sequence)
        return first

    def next_moment(self) -> datetime | None:
        """Return when the next message is due; None if none will be."""
        moments = [*(one.due_at for one in self._deliveries.values()), *(one.at for one in self._timers.values())]
        return min(moments, default=None)

    def acknowledge(self, sequence: int) -> None:
        """Deliver a message no more."""
        self._deliveries.pop(sequence, None)

    def extend(self, sequence: int) -> None:
        """Let the wait for its acknowledgement begin again."""
        self.release(sequence, self._ack_wait)

    def release(self, sequence: int, seconds: float) -> None:
        """Deliver it again after so many seconds."""
        if (delivery := self._deliveries.get(sequence)) is not None:
            delivery.due_at = self.clock.now() + timedelta(seconds=seconds)

    def _store_event(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> bytes:
        event_id = headers.get("Nats-Msg-Id", "")
        if (known := self._ids.get(event_id)) is not None:
            return _acknowledged(subjects.OPERATIONS_STREAM, known, duplicate=True)
        own = headers["Nats-Expected-Last-Subject-Sequence-Subject"]
        last = next(self._matching({"last_by_subj": own}), None)
        sequence = last.seq if last else 0
        if sequence != int(headers["Nats-Expected-Last-Subject-Sequence"]):
            description = f"wrong last sequence: {sequence}"
            error = {"code": 400, "err_code": _WRONG_SEQUENCE, "description": description}
            return msgspec.json.encode({"stream": subjects.OPERATIONS_STREAM, "seq": 0, "error": error})
        lines = "".join(f"\r\n{name}: {value}" for name, value in headers.items())
        stored = self._store(subject, payload, f"NATS/1.0{lines}\r\n\r\n".encode())
        if event_id:
            self._ids[event_id] = stored
        if subject.endswith(f".{Requested.name}"):
            self._deliveries[stored] = Delivery(stored, self.clock.now())
        return _acknowledged(subjects.OPERATIONS_STREAM, stored)

    def _store(self, subject: str, payload: bytes, headers: bytes = b"") -> int:
        sequence = len(self.messages) + 1
        self.messages.append(StoredMessage(subject, sequence, payload, headers))
        return sequence

    def _fire(self, subject: str, payload: bytes) -> None:
        """Store what a timer publishes, as OPERATIONS copies it."""
        stored = self._store(f"wake.{subject.partition('.')[2]}", payload)
        self._deliveries[stored] = Delivery(stored, self.clock.now())

    def _fire_due(self) -> None:
        for subject, timer in sorted(self._timers.items(), key=lambda one: one[1].at):
            if timer.at <= self.clock.now():
                del self._timers[subject]
                self._fire(timer.target, timer.payload)

    def _take_coming(self) -> None:
        for one in [one for one in self._coming if one.at <= self.clock.now()]:
            self._coming.remove(one)
            self._store(one.target, one.payload)

    def _matching(self, request: Mapping[str, Any]) -> Iterator[StoredMessage]:
        if (last_of := request.get("last_by_subj")) is not None:
            return (one for one in reversed(self.messages) if _matches(one.subject, last_of))
        own, first = request.get("next_by_subj", ">"), request["seq"]
        return (one for one in self.messages[max(0, first - 1) :] if _matches(one.subject, own))


def _matches(subject: str, pattern: str) -> bool:
    """Return True if a subject matches a filter, which may end in `>`."""
    head, found, _ = pattern.partition(">")
    return subject.startswith(head) if found else subject == pattern


def _acknowledged(stream: str, sequence: int, *, duplicate: bool = False) -> bytes:
    return msgspec.json.encode({"stream": stream, "seq": sequence, "duplicate": duplicate})
