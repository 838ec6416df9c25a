"""Messages that the broker publishes later (NATS ADR-51): wake-ups for runners, and deadlines for the projector.

The process that gets one reads the operation, and decides by what it reads. A wake-up carries the stream sequence of
the event that scheduled it. A timer that is scheduled again replaces the earlier one, so scheduling is idempotent.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

from opstream_journal.errors import BrokerRefused, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection
from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.names import Kind

_decode_answer: Final = msgspec.json.Decoder(rpc.PubAck).decode


class WakeUp(msgspec.Struct, frozen=True, rename="camel"):
    """The body of a wake-up."""

    armed_by: int


async def schedule_wake_up(
    connection: Connection, kind: Kind, operation_id: str, why: str, *, at: datetime, armed_by: int
) -> None:
    """Schedule a wake-up for `at`; one in the past is delivered at once.

    Raises:
        JournalUnavailable: not acknowledged; it may be scheduled nevertheless.
        BrokerRefused: the broker refused.
    """
    timer = subjects.timer_subject(kind, operation_id, why)
    target = subjects.fired_wake_subject(kind, operation_id, why)
    await schedule_message(connection, timer, target, at, msgspec.json.encode(WakeUp(armed_by)))


async def send_wake_up(connection: Connection, kind: Kind, operation_id: str, why: str, *, armed_by: int) -> None:
    """Store a wake-up that is due now. Unlike a released message, it survives a restart of the broker.

    Raises:
        JournalUnavailable: not acknowledged; it may be sent all the same.
        BrokerRefused: the broker refused.
    """
    await rpc.publish(
        connection, subjects.fired_wake_subject(kind, operation_id, why), msgspec.json.encode(WakeUp(armed_by)), {}
    )


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
