"""Atomic batches: all messages are stored, or none (NATS ADR-50).

A broker that syncs each write syncs a batch once: a thousand small messages cost about as much as ten single ones
(docs/performance.md). The broker keeps a batch in memory until its end, so batches must be small.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import nats.errors

from opstream_journal.errors import JournalUnavailable

from . import rpc
from .connection import Connection

MAX_BATCH_MESSAGES: Final = 1_000
"""The broker accepts no more in one batch."""

_TIMEOUT: Final = 10.0


class BatchMessage(NamedTuple):
    """One message of a batch."""

    subject: str
    data: bytes
    headers: dict[str, str]


class _BatchReply(msgspec.Struct):
    seq: int = 0
    count: int = 0
    error: rpc.JetStreamErrorBody | None = None


_decode: Final = msgspec.json.Decoder(_BatchReply).decode


async def publish_batch(
    connection: Connection,
    messages: Sequence[BatchMessage],
    *,
    timeout: float = _TIMEOUT,  # noqa: ASYNC109 - handed on
) -> range:
    """Store 1 to `MAX_BATCH_MESSAGES` messages, or none, on one stream that allows atomic batches.

    The broker answers the last message only. A stream that allows no batches answers it with error 10174.

    Args:
        connection: the connection.
        messages: what to store, in this order. Of two that expect the same version of the same subjects the broker
            would store both, so they must be of different operations or keys.
        timeout: seconds for the answer.

    Returns:
        The stream sequences of the messages, in their order, without a gap.

    Raises:
        JournalUnavailable: no answer to the end of the batch: all of it may be stored, or none.
        JournalFull: none is stored: a limit of storage was reached.
        BrokerRefused: none is stored: one expected version is wrong, or the stream allows no batches.
        EventTooLarge: none is stored: one is larger than the broker's `max_payload`.
    """
    batch, last = secrets.token_urlsafe(6), len(messages) - 1
    for number, (subject, data, headers) in enumerate(messages[:last]):
        _send(connection, subject, data, headers | _place(batch, number))
    subject, data, headers = messages[last]
    commit = headers | _place(batch, last) | {"Nats-Batch-Commit": "1"}
    answer = await _request(connection, subject, data, commit, timeout)
    if answer.count != len(messages):
        raise JournalUnavailable(f"{answer.count} of a batch of {len(messages)} are stored", maybe_stored=True)
    return range(answer.seq - last, answer.seq + 1)


def _place(batch: str, number: int) -> dict[str, str]:
    return {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number + 1)}


async def _request(
    connection: Connection, subject: str, data: bytes, headers: dict[str, str], seconds: float
) -> _BatchReply:
    try:
        message = await rpc.call(
            connection, subject, data, headers=headers, timeout=seconds, is_answer=rpc.ack_check(subject)
        )
    except JournalUnavailable as error:
        if isinstance(error.__cause__, TimeoutError):
            connection.unanswered.add(subject)
        raise
    if connection.unanswered:
        connection.unanswered.remove(subject)
    try:
        answer = _decode(message.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer on {subject} is not JetStream's", maybe_stored=True) from error
    if answer.error is not None:
        raise rpc.publish_refusal(connection, subject, answer.error)
    return answer


def _send(connection: Connection, subject: str, data: bytes, headers: dict[str, str]) -> None:
    rpc.check_payload_size(connection, data, headers)
    try:
        connection.sender.send(subject, data, headers=headers)
    except (nats.errors.Error, OSError) as error:
        # The batch has no end, so the broker forgets it.
        raise JournalUnavailable(
            f"the broker connection failed: {str(error) or type(error).__name__}", maybe_stored=False
        ) from error
