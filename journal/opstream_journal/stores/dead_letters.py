"""Dead letters: events that a subscriber could not handle. They are neither lost nor retried for ever.

The stream PARKED has one message for each subscriber and event, on the subject `parked.{durable}.{stream sequence}`:
the body as it was delivered, and the reason in headers. It stays until a retry succeeds or an operator removes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from opstream_journal.errors import BrokerRefused, Drifted, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.provision import current_sizing
from opstream_schemas import subjects
from opstream_schemas.text import one_line, truncate_text

_STREAM: Final = subjects.PARKED_STREAM
_MAX_MESSAGES: Final = 100_000
"""With more, none are added and subscribers wait: better than a full disk, or to lose the oldest."""
_DETAIL_LIMIT: Final = 1024
_NO_MESSAGE_STATUS: Final = "404"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a subscriber could not handle."""

    durable: str
    sequence: int
    """Stream sequence in OPERATIONS."""
    subject: str
    """The subject on which it was published."""
    reason: str
    """A code that is the same in all versions, such as `HandlerFailed`."""
    detail: str
    """The reason in words."""
    deliveries: int
    data: bytes
    content_type: str = ""
    number: int = 0
    """Stream sequence in PARKED; 0 for a letter that is not stored yet."""


async def ensure_stream(connection: Connection) -> None:
    """Create the stream PARKED, with as many copies as the journal, if it is missing.

    Raises:
        Drifted: it exists, and does not accept dead letters.
        JournalError: the broker refused or did not answer.
    """
    current = await admin.stream_config(connection, _STREAM)
    if current is None:
        sizing = await current_sizing(connection)
        await admin.create_stream(connection, _config(1 if sizing is None else sizing.replicas))
        current = await admin.stream_config(connection, _STREAM)
    if current is not None and subjects.PARKED_SUBJECTS not in (current.subjects or []):
        raise Drifted(
            f"stream {_STREAM} does not accept {subjects.PARKED_SUBJECTS}: add that subject to it if it is "
            f"opstream's; if another application made it, use another broker or an account of its own"
        )


async def add(connection: Connection, parked: DeadLetter) -> None:
    """Store a dead letter. Stored again, it is there once.

    Raises:
        JournalUnavailable: not acknowledged.
        EventTooLarge: with its headers larger than the broker's `max_payload`.
        BrokerRefused: the stream is full or missing.
    """
    headers = {
        "Opstream-Durable": parked.durable,
        "Opstream-Sequence": str(parked.sequence),
        "Opstream-Subject": parked.subject,
        "Opstream-Reason": parked.reason,
        "Opstream-Detail": _header_value(parked.detail),
        "Opstream-Deliveries": str(parked.deliveries),
    }
    if parked.content_type:
        headers["Content-Type"] = _header_value(parked.content_type)
    await rpc.publish(connection, subjects.dead_letter_subject(parked.durable, parked.sequence), parked.data, headers)


async def find(connection: Connection, durable: str, sequence: int) -> DeadLetter | None:
    """Return a subscriber's dead letter for a stream sequence of OPERATIONS; None without one.

    Raises:
        JournalUnavailable: no replica answered.
        BrokerRefused: another error.
    """
    answer = await rpc.call(
        connection, f"$JS.API.DIRECT.GET.{_STREAM}.{subjects.dead_letter_subject(durable, sequence)}"
    )
    headers = answer.headers or {}
    status = headers.get("Status")
    if status == _NO_MESSAGE_STATUS:
        return None
    if status is not None:
        raise BrokerRefused(int(status), 0, headers.get("Description", ""))
    return DeadLetter(
        durable=durable,
        sequence=sequence,
        subject=headers.get("Opstream-Subject", ""),
        reason=headers.get("Opstream-Reason", ""),
        detail=headers.get("Opstream-Detail", ""),
        deliveries=_header_number(headers, "Opstream-Deliveries"),
        content_type=headers.get("Content-Type", ""),
        data=answer.data,
        number=_header_number(headers, "Nats-Sequence"),
    )


async def exists(connection: Connection) -> bool:
    """Return True if the stream exists.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    return await admin.stream_config(connection, _STREAM) is not None


async def keys(connection: Connection, durable: str | None = None) -> list[tuple[str, int]]:
    """Return the durable and the stream sequence in OPERATIONS of all dead letters, in order.

    Args:
        connection: the connection.
        durable: only those of this subscriber; None for all.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    found = await admin.stream_subjects(connection, _STREAM, subjects.dead_letters_filter(durable or "*"))
    parsed = (subject.split(".") for subject in found)
    return sorted((owner, int(sequence)) for _, owner, sequence in parsed if sequence.isdecimal())


async def remove(connection: Connection, parked: DeadLetter) -> None:
    """Remove a dead letter. One that was stored again meanwhile stays.

    Raises:
        JournalUnavailable: JetStream did not answer.
        BrokerRefused: the broker refused.
    """
    await admin.delete_message(connection, _STREAM, parked.number)


async def ask_retry(
    connection: Connection,
    durable: str,
    sequence: int,
    *,
    timeout: float,  # noqa: ASYNC109 - handed on
) -> str | None:
    """Ask a subscriber to handle a dead letter again. Return what it says, `done` if it has; None if none runs.

    Args:
        connection: the connection.
        durable: of the subscriber.
        sequence: stream sequence of the event in OPERATIONS.
        timeout: seconds that it has.

    Raises:
        JournalUnavailable: the broker did not answer, or the subscriber did not in time.
    """
    subject = subjects.dead_letter_retry_subject(durable)
    try:
        answer = await rpc.call(connection, subject, str(sequence).encode(), timeout=timeout)
    except JournalUnavailable as error:
        if error.maybe_stored or not connection.is_connected:
            raise
        return None
    return answer.data.decode(errors="replace")


def _config(replicas: int) -> StreamConfig:
    return StreamConfig(
        name=_STREAM,
        subjects=[subjects.PARKED_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_msgs=_MAX_MESSAGES,
        max_msgs_per_subject=1,
        allow_direct=True,
    )


def _header_value(text: str) -> str:
    # A header ends with its line, and some clients read only ASCII.
    line = one_line(text).strip()
    return truncate_text(line.encode("ascii", "backslashreplace").decode(), _DETAIL_LIMIT).replace("…", "...")


def _header_number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    return int(text) if text.isdecimal() else 0
