"""The queue of webhook deliveries: send, schedule, record, and read the events that they are about.

A delivery that waits is a scheduled message in the stream WEBHOOKS (NATS ADR-51): it holds no acknowledgement, and
outlives the service and the broker. To publish a delivery twice costs a second call under the same `webhook-id`.
"""

from __future__ import annotations

from datetime import datetime

from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.events import Requested, Trace, decode_event
from opstream_schemas.names import Kind
from opstream_schemas.webhook_delivery import DeliveryAttempt, DeliveryOutcome, WebhookDelivery, encode_record

from .timers import schedule_message


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


def _due_subject(delivery: WebhookDelivery) -> str:
    return subjects.webhook_due_subject(delivery.endpoint, delivery.operation_id)
