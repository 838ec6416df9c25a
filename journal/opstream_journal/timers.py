"""Wakes: messages that the broker holds until a moment (NATS ADR-51) and then delivers to an action's consumer.

A wake is a hint to look at the operation again; it carries the stream sequence of the event that armed it, and the
journal says what to do.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from opstream_schemas import subjects
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.names import Kind

from . import rpc
from .link import Link


class Wake(msgspec.Struct, frozen=True, rename="camel"):
    """The body of a wake."""

    armed_by: int


async def arm_wake(link: Link, kind: Kind, operation_id: str, why: str, *, at: datetime, armed_by: int) -> None:
    """Store a wake for `at`; one in the past fires at once. Arming again replaces it, so it is idempotent.

    Raises:
        JournalUnavailable: not acknowledged; it may be armed all the same.
        RequestRefused: the broker refused.
    """
    headers = {
        "Nats-Schedule": f"@at {at.astimezone(UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')}",
        "Nats-Schedule-Target": subjects.fire_subject(kind, operation_id, why),
    }
    payload = msgspec.json.encode(Wake(armed_by))
    await rpc.publish(link, subjects.timer_subject(kind, operation_id, why), payload, headers)


def armed_by(data: bytes) -> int:
    """The stream sequence that a delivered wake names.

    Raises:
        InvalidEvent: the body is not a wake's.
    """
    try:
        return msgspec.json.decode(data, type=Wake).armed_by
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"not a wake: {error}") from error
