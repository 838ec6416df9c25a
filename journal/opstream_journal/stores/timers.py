"""What the broker holds until a moment (NATS ADR-51): wakes, for an action's runners, and deadlines, for the projector.

Both are hints to look at the operation again; the journal says what to do. A wake carries the stream sequence of the
event that armed it. Arming again replaces what is armed, so it is idempotent.
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
    """The body of a wake."""

    armed_by: int


async def schedule_wake_up(
    connection: Connection, kind: Kind, operation_id: str, why: str, *, at: datetime, armed_by: int
) -> None:
    """Store a wake for `at`; one in the past fires at once.

    Raises:
        JournalUnavailable: not acknowledged; it may be armed all the same.
        BrokerRefused: the broker refused.
    """
    timer = subjects.timer_subject(kind, operation_id, why)
    target = subjects.fired_wake_subject(kind, operation_id, why)
    await schedule_message(connection, timer, target, at, msgspec.json.encode(WakeUp(armed_by)))


async def send_wake_up(connection: Connection, kind: Kind, operation_id: str, why: str, *, armed_by: int) -> None:
    """Store a wake that is due now. Unlike a message that is put back, it outlives a broker that restarts.

    Raises:
        JournalUnavailable: not acknowledged; it may be sent all the same.
        BrokerRefused: the broker refused.
    """
    await rpc.publish(
        connection, subjects.fired_wake_subject(kind, operation_id, why), msgspec.json.encode(WakeUp(armed_by)), {}
    )


async def schedule_deadline(connection: Connection, kind: Kind, operation_id: str, at: datetime) -> None:
    """Have the projector look at an operation at `at`, its deadline; one in the past is due at once.

    Raises:
        JournalUnavailable: not acknowledged; it may be armed all the same.
        BrokerRefused: the broker refused.
    """
    timer = subjects.deadline_subject(kind, operation_id)
    await schedule_message(connection, timer, subjects.fired_deadline_subject(kind, operation_id), at, b"")


async def cancel_timers(connection: Connection, operation_id: str) -> None:
    """Forget the wakes and the deadline of an operation, if any are armed. One that has fired already still arrives.

    Raises:
        JournalUnavailable: not acknowledged; they may be gone all the same.
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
    """The stream sequence that a delivered wake names.

    Raises:
        InvalidEvent: the body is not a wake's.
    """
    try:
        return msgspec.json.decode(data, type=WakeUp).armed_by
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a wake: {error}") from error


async def schedule_message(connection: Connection, timer: str, target: str, at: datetime, payload: bytes) -> None:
    """Store a message that the broker publishes to `target` at `at`; both subjects belong to one stream.

    Raises:
        JournalUnavailable: not acknowledged; it may be stored all the same.
        BrokerRefused: the broker refused.
    """
    headers = {
        "Nats-Schedule": f"@at {at.astimezone(UTC).isoformat().replace('+00:00', 'Z')}",
        "Nats-Schedule-Target": target,
    }
    await rpc.publish(connection, timer, payload, headers)
