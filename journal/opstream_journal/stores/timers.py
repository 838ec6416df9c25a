"""Messages that the broker publishes later (NATS ADR-51): wake-ups for runners, and deadlines for the projector.

The process that gets one reads the operation, and decides by what it reads. A wake-up carries the stream sequence of
the event that scheduled it. A timer that is scheduled again replaces the earlier one, so scheduling is idempotent.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final

import msgspec
import nats.errors

from opstream_journal.errors import BrokerRefused, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation

logger = logging.getLogger(__name__)

_decode_answer: Final = msgspec.json.Decoder(rpc.PubAck).decode


class WakeUp(msgspec.Struct, frozen=True, rename="camel"):
    """The body of a wake-up."""

    armed_by: int


async def schedule_wake_up(
    connection: Connection, kind: Kind, operation_id: str, why: str, *, at: datetime, armed_by: int, queue: str = ""
) -> None:
    """Schedule a wake-up for `at`; one in the past is delivered at once.

    Args:
        connection: the connection.
        kind: the action.
        operation_id: the operation.
        why: the reason.
        at: when.
        armed_by: stream sequence of the event that schedules it.
        queue: the further queue of the action that gets it (`Operation.queue`); empty for the one that each has.

    Raises:
        JournalUnavailable: not acknowledged; it may be scheduled nevertheless.
        BrokerRefused: the broker refused.
    """
    timer = subjects.timer_subject(kind, operation_id, why)
    target = subjects.fired_wake_subject(kind, operation_id, why, queue)
    await schedule_message(connection, timer, target, at, msgspec.json.encode(WakeUp(armed_by)))


async def send_wake_up(
    connection: Connection, kind: Kind, operation_id: str, why: str, *, armed_by: int, queue: str = ""
) -> None:
    """Store a wake-up that is due now. Unlike a released message, it survives a restart of the broker.

    Arguments as of `schedule_wake_up`.

    Raises:
        JournalUnavailable: not acknowledged; it may be sent all the same.
        BrokerRefused: the broker refused.
    """
    subject = subjects.fired_wake_subject(kind, operation_id, why, queue)
    await rpc.publish(connection, subject, msgspec.json.encode(WakeUp(armed_by)), {})


def queue_request(connection: Connection, operation: Operation) -> None:
    """Put a request that was just stored into the queue of its priority, if that has one. It waits for nothing.

    A wake-up that is lost does no harm: then the operation begins by its request, as one of normal priority.
    """
    if not operation.queue:
        return
    subject = subjects.fired_wake_subject(operation.kind, operation.id, subjects.QUEUED_REASON, operation.queue)
    try:
        connection.sender.send(subject, msgspec.json.encode(WakeUp(operation.stream_sequence)))
    except nats.errors.Error as error:
        logger.info("operation %s is not in the queue of its priority: %s", operation.id, error)


async def schedule_deadline(connection: Connection, kind: Kind, operation_id: str, at: datetime) -> None:
    """Schedule the check of an operation at its deadline, `at`; one in the past is due at once.

    Raises:
        JournalUnavailable: not acknowledged; it may be scheduled nevertheless.
        BrokerRefused: the broker refused.
    """
    timer = subjects.deadline_subject(kind, operation_id)
    await schedule_message(connection, timer, subjects.fired_deadline_subject(kind, operation_id), at, b"")


async def send_deadline(connection: Connection, kind: Kind, operation_id: str) -> None:
    """Store the check of a deadline that is due now.

    Raises:
        JournalUnavailable: not acknowledged; it may be sent all the same.
        BrokerRefused: the broker refused.
    """
    await rpc.publish(connection, subjects.fired_deadline_subject(kind, operation_id), b"", {})


async def cancel_timers(connection: Connection, operation_id: str) -> None:
    """Cancel the scheduled wake-ups and the deadline of an operation. One that was published already still arrives.

    Raises:
        JournalUnavailable: not acknowledged; they may be gone nevertheless.
        BrokerRefused: the broker refused.
    """
    stream = subjects.TIMERS_STREAM
    request = msgspec.json.encode({"filter": subjects.operation_timers_filter(operation_id)})
    answer = await rpc.call(connection, f"$JS.API.STREAM.PURGE.{stream}", request)
    try:
        error = _decode_answer(answer.data).error
    except msgspec.MsgspecError as wrong:
        raise JournalUnavailable(f"the answer about {stream} is not JetStream's", maybe_stored=True) from wrong
    if error is not None:
        raise BrokerRefused(error.code, error.err_code, error.description)


def scheduled_by(data: bytes) -> int:
    """Return the stream sequence of the event that scheduled a delivered wake-up.

    Raises:
        InvalidEvent: the body is not that of a wake-up.
    """
    try:
        return msgspec.json.decode(data, type=WakeUp).armed_by
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a wake-up: {error}") from error


async def schedule_message(connection: Connection, timer: str, target: str, at: datetime, payload: bytes) -> None:
    """Store a message that the broker publishes to `target` at `at`. Both subjects belong to one stream.

    Raises:
        JournalUnavailable: not acknowledged; it may be stored nevertheless.
        BrokerRefused: the broker refused.
    """
    headers = {
        "Nats-Schedule": f"@at {at.astimezone(UTC).isoformat().replace('+00:00', 'Z')}",
        "Nats-Schedule-Target": target,
    }
    await rpc.publish(connection, timer, payload, headers)
