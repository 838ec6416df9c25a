"""The queue of webhook deliveries: send, schedule, record, and read the events that they are about.

A delivery that waits is a scheduled message in the stream WEBHOOKS (NATS ADR-51): it holds no acknowledgement, and
outlives the service and the broker. To publish a delivery twice costs a second call under the same `webhook-id`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from opstream_journal.errors import JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.batch_read import BatchReader
from opstream_journal.jetstream.connection import Connection
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import Requested, Trace, decode_event
from opstream_schemas.names import Kind
from opstream_schemas.webhook_delivery import (
    CALLBACK_ENDPOINT,
    DeliveryAttempt,
    DeliveryOutcome,
    RedeliveryAnswer,
    RedeliveryRequest,
    WebhookDelivery,
    decode_delivery_attempt,
    decode_redelivery_answer,
    encode_record,
)

from .timers import schedule_message

_CLOCK_MARGIN: Final = timedelta(days=1)
"""By which the clock of this machine may be ahead of the broker's: a delivery that is sent again is due by both."""
_FAILED: Final = (DeliveryOutcome.RETRYING, DeliveryOutcome.GAVE_UP)
_SUBJECTS_OF_READ: Final = 900
_READ_TIMEOUT: Final = 5.0
_ASK_TIMEOUT: Final = 10.0
"""Seconds that a webhooks service has: it reads some messages and stores one."""


class DeliveryStore:
    """The streams of webhooks over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def callback(self, operation_id: str, kind: Kind) -> tuple[str, str]:
        """Return the callback URL of an operation's request, and the client's own id of the operation.

        The URL is empty without one, or if the request has expired; the id is empty if the client has no other one.

        Raises:
            InvalidEvent: the request can't be read; perhaps a newer version wrote it.
            JournalUnavailable: the broker did not answer.
            BrokerRefused: it refused.
        """
        requested = await self._requested(operation_id, kind)
        return ("", "") if requested is None else (requested.callback, requested.own_id)

    async def request_trace(self, operation_id: str, kind: Kind) -> Trace | None:
        """Return the trace of an operation's request; None without one, or if the request has expired.

        Raises:
            InvalidEvent, JournalUnavailable, BrokerRefused: as `callback`.
        """
        requested = await self._requested(operation_id, kind)
        return None if requested is None else requested.trace

    async def _requested(self, operation_id: str, kind: Kind) -> Requested | None:
        subject = subjects.event_subject(operation_id, kind, Requested.name)
        stream = subjects.OPERATIONS_STREAM
        # A replica may be behind and have nothing; the leader has everything.
        stored = await rpc.get_direct(self._connection, stream, subject) or await rpc.get_last(
            self._connection, stream, subject
        )
        if stored is None:
            return None
        event = decode_event(stored.data, stored.seq)
        if not isinstance(event.data, Requested):
            raise InvalidEvent(f"its request (sequence {stored.seq}) is of type {event.type}, unknown to this version")
        return event.data

    async def event_bytes(self, sequence: int) -> bytes | None:
        """Return the stored bytes of the event at a stream sequence; None if it has expired.

        Raises:
            JournalUnavailable: the broker did not answer.
            BrokerRefused: it refused.
        """
        stored = await rpc.get_at(self._connection, subjects.OPERATIONS_STREAM, sequence)
        return None if stored is None else stored.data

    async def outcome_sequence(self, operation_id: str, kind: Kind, event: str) -> int | None:
        """Return the stream sequence of the event that ended an operation; None if it has expired.

        Raises:
            JournalUnavailable: the broker did not answer.
            BrokerRefused: it refused.
        """
        subject = subjects.event_subject(operation_id, kind, event)
        stored = await rpc.get_last(self._connection, subjects.OPERATIONS_STREAM, subject)
        return None if stored is None else stored.seq

    async def enqueue(self, delivery: WebhookDelivery, webhook_id: str) -> None:
        """Enqueue a new delivery, due at once. One that was enqueued a moment ago is not enqueued again.

        Raises:
            JournalUnavailable: not acknowledged; it may be stored nevertheless.
            BrokerRefused: the broker refused.
        """
        await rpc.publish(
            self._connection, _due_subject(delivery), encode_record(delivery), {"Nats-Msg-Id": webhook_id}
        )

    async def schedule(self, delivery: WebhookDelivery, at: datetime) -> None:
        """Schedule a delivery for a time; one in the past is due at once. It replaces the previous schedule.

        Raises:
            JournalUnavailable: not acknowledged; it may be stored nevertheless.
            BrokerRefused: the broker refused.
        """
        later = subjects.webhook_later_subject(delivery.endpoint, delivery.operation_id)
        await schedule_message(self._connection, later, _due_subject(delivery), at, encode_record(delivery))

    async def record(self, attempt: DeliveryAttempt) -> None:
        """Record an attempt.

        Raises:
            JournalUnavailable: not acknowledged; it may be stored nevertheless.
            BrokerRefused: the broker refused.
        """
        subject = subjects.delivery_record_subject(attempt.operation_id, attempt.endpoint, attempt.outcome)
        await rpc.publish(self._connection, subject, encode_record(attempt), {})

    async def is_delivered(self, delivery: WebhookDelivery | DeliveryAttempt) -> bool:
        """Return True if the records have a successful attempt.

        Raises:
            JournalUnavailable: the broker did not answer.
            BrokerRefused: it refused.
        """
        subject = subjects.delivery_record_subject(delivery.operation_id, delivery.endpoint, DeliveryOutcome.DELIVERED)
        return await rpc.get_last(self._connection, subjects.DELIVERIES_STREAM, subject) is not None

    async def last_failure(self, operation_id: str, endpoint: str) -> DeliveryAttempt | None:
        """Return the last failed attempt of a delivery that never succeeded; None without one.

        Raises:
            InvalidEvent: its record can't be read; perhaps a newer version wrote it.
            JournalUnavailable: the broker did not answer.
            BrokerRefused: it refused.
        """
        names = [subjects.delivery_record_subject(operation_id, endpoint, outcome) for outcome in _FAILED]
        found = [await rpc.get_last(self._connection, subjects.DELIVERIES_STREAM, name) for name in names]
        last = max((one for one in found if one is not None), key=lambda one: one.seq, default=None)
        if last is None:
            return None
        attempt = decode_delivery_attempt(last.data)
        return None if await self.is_delivered(attempt) else attempt

    async def send_again(self, attempt: DeliveryAttempt, now: datetime) -> None:
        """Have the delivery of an attempt made again now, with as many attempts as a new one.

        Raises:
            InvalidEvent: the journal does not hold the events any more that it needs.
            JournalUnavailable: not acknowledged; it may be scheduled nevertheless.
            BrokerRefused: the broker refused.
        """
        kind = Kind.parse(attempt.action)
        sequence = await self.outcome_sequence(attempt.operation_id, kind, attempt.event)
        callback, own_id = "", ""
        if attempt.endpoint == CALLBACK_ENDPOINT:
            callback, own_id = await self.callback(attempt.operation_id, kind)
        if sequence is None or (attempt.endpoint == CALLBACK_ENDPOINT and not callback):
            raise InvalidEvent("its events have expired")
        delivery = WebhookDelivery(
            operation_id=attempt.operation_id,
            action=attempt.action,
            event=attempt.event,
            sequence=sequence,
            endpoint=attempt.endpoint,
            callback=callback,
            begun=now,
            own_id=own_id,
        )
        await self.schedule(delivery, now - _CLOCK_MARGIN)


class UndeliveredPage(NamedTuple):
    """A part of what could not be delivered, in the order of the last attempts."""

    attempts: list[DeliveryAttempt]
    """The last attempt of each delivery."""
    next_sequence: int
    """Where the next part begins; 0 at the end."""


class DeliveryRecords:
    """Reads from the stream DELIVERIES, of any replica, what was not delivered, and asks for what is to be.

    Args:
        connection: the connection, which is up.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = BatchReader(connection)

    async def start(self) -> None:
        """Subscribe to the inbox for reads."""
        await self._reader.start()

    async def stop(self) -> None:
        """Unsubscribe from the inbox."""
        await self._reader.stop()

    async def undelivered(self, first: int, count: int) -> UndeliveredPage:
        """Return the deliveries that have failed and never succeeded. Over all pages, each is there once.

        Args:
            first: stream sequence with which the page begins.
            count: records of failed attempts that are looked at: the page has as many deliveries at most.

        Raises:
            JournalUnavailable: no replica answered, or this login may not read the records.
            BrokerRefused: the broker refused.
        """
        records, next_sequence = await self._failed_records(first, count)
        keys = {record.subject.rpartition(".")[0] for record in records}
        names = [f"{key}.{outcome}" for key in keys for outcome in DeliveryOutcome]
        newest: dict[str, int] = {}
        for last in await self._reader.read_last(
            subjects.DELIVERIES_STREAM, names, batch=_SUBJECTS_OF_READ, timeout=_READ_TIMEOUT
        ):
            key, _, outcome = last.subject.rpartition(".")
            is_over = outcome == DeliveryOutcome.DELIVERED or newest.get(key) == 0
            newest[key] = 0 if is_over else max(newest.get(key, 0), last.seq)
        attempts = []
        for record in records:
            if newest.get(record.subject.rpartition(".")[0]) == record.seq:
                try:
                    attempts.append(decode_delivery_attempt(record.data))
                except InvalidEvent:
                    continue  # of another version
        return UndeliveredPage(attempts, next_sequence)

    async def is_undelivered(self, operation_id: str, endpoint: str) -> bool:
        """Return True if an attempt to deliver has failed, and none has succeeded.

        Raises:
            JournalUnavailable, BrokerRefused: as `undelivered`.
        """
        names = [subjects.delivery_record_subject(operation_id, endpoint, outcome) for outcome in DeliveryOutcome]
        found = await self._reader.read_last(
            subjects.DELIVERIES_STREAM, names, batch=_SUBJECTS_OF_READ, timeout=_READ_TIMEOUT
        )
        outcomes = {one.subject.rpartition(".")[2] for one in found}
        return bool(outcomes) and DeliveryOutcome.DELIVERED not in outcomes

    async def ask_again(self, operation_id: str, endpoint: str) -> RedeliveryAnswer | None:
        """Ask a webhooks service to make a failed delivery again. None if none runs that can.

        Raises:
            JournalUnavailable: the broker did not answer, or the service did not in time.
        """
        request = encode_record(RedeliveryRequest(operation_id=operation_id, endpoint=endpoint))
        try:
            answer = await rpc.call(self._connection, subjects.REDELIVER_SUBJECT, request, timeout=_ASK_TIMEOUT)
        except JournalUnavailable as error:
            if error.maybe_stored or not self._connection.is_connected:
                raise
            return None
        return decode_redelivery_answer(answer.data)

    async def _failed_records(self, first: int, count: int) -> tuple[list[rpc.StoredMessage], int]:
        """Return records of failed attempts in stream order, and where to go on; 0 for the end."""
        found: list[rpc.StoredMessage] = []
        end = 0
        for outcome in _FAILED:
            request = {"next_by_subj": subjects.delivery_records_filter(outcome=outcome), "seq": first, "batch": count}
            page = await self._reader.read(subjects.DELIVERIES_STREAM, request, timeout=_READ_TIMEOUT)
            found += page
            if len(page) == count:
                end = min(end or page[-1].seq, page[-1].seq)
        found.sort(key=lambda one: one.seq)
        if not end:
            return found, 0
        return [one for one in found if one.seq <= end], end + 1


def _due_subject(delivery: WebhookDelivery) -> str:
    return subjects.webhook_due_subject(delivery.endpoint, delivery.operation_id)
