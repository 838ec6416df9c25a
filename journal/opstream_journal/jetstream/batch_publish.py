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
from .inbox import AnswerCheck

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


async def publish_batch(connection: Connection, messages: Sequence[BatchMessage]) -> range:
    """Store 1 to `MAX_BATCH_MESSAGES` messages, or none, on one stream that allows atomic batches.

    Returns:
        The stream sequences of the messages, in their order, without a gap.

    Raises:
        JournalUnavailable: no answer to the end of the batch: all of it may be stored, or none.
        JournalFull: none is stored: a limit of storage was reached.
        BrokerRefused: none is stored: one expected version is wrong, or the stream allows no batches.
        EventTooLarge: none is stored: one is larger than the broker's `max_payload`.
    """
    batch, last = secrets.token_hex(8), len(messages) - 1
    answer = _BatchReply()
    for number, (subject, data, headers) in enumerate(messages):
        place = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number + 1)}
        if number == last:
            commit = headers | place | {"Nats-Batch-Commit": "1"}
            answer = await _request(connection, subject, data, commit, is_answer=rpc.is_publish_ack)
        elif number == 0:  # its answer says whether the stream allows batches; it is empty if so
            await _request(connection, subject, data, headers | place)
        else:
            await _publish(connection, subject, data, headers | place)
    if answer.count != len(messages):
        raise JournalUnavailable(f"{answer.count} of a batch of {len(messages)} are stored", maybe_stored=True)
    return range(answer.seq - last, answer.seq + 1)


async def _request(
    connection: Connection, subject: str, data: bytes, headers: dict[str, str], *, is_answer: AnswerCheck | None = None
) -> _BatchReply:
    message = await rpc.call(connection, subject, data, headers=headers, timeout=_TIMEOUT, is_answer=is_answer)
    if not message.data:
        return _BatchReply()
    try:
        answer = _decode(message.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer on {subject} is not JetStream's", maybe_stored=True) from error
    if answer.error is not None:
        raise rpc.publish_refusal(connection, subject, answer.error)
    return answer


async def _publish(connection: Connection, subject: str, data: bytes, headers: dict[str, str]) -> None:
    rpc.check_payload_size(connection, data, headers)
    try:
        await connection.nc.publish(subject, data, headers=headers)
    except (nats.errors.Error, OSError) as error:
        # The batch has no end, so the broker forgets it.
        raise JournalUnavailable(
            f"the broker connection failed: {str(error) or type(error).__name__}", maybe_stored=False
        ) from error
