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
_COMMIT: Final = "Nats-Batch-Commit"


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


class AtomicBatch:
    """A batch that has begun: the broker stages its messages, and stores all of them at its end, or none.

    The broker of a single copy makes files for a batch when the first message comes, which takes two syncs; the end of
    the batch takes two more. A writer that has its first message before it has all of them saves the wait for the
    former (docs/adr/0038).

    Args:
        connection: the connection.
        first: the first message; sent at once.

    Raises:
        JournalUnavailable: the connection is down; nothing is stored.
        EventTooLarge: nothing is stored: the message is larger than the broker's `max_payload`.
    """

    def __init__(self, connection: Connection, first: BatchMessage) -> None:
        self._connection = connection
        self._id = secrets.token_urlsafe(6)
        self._first = first
        self._send(first, 1)

    async def store(self, rest: Sequence[BatchMessage], *, timeout: float = _TIMEOUT) -> range:  # noqa: ASYNC109
        """Send the others, and store all messages. The broker forgets a batch that has no end after 10 s.

        Args:
            rest: what follows, at most `MAX_BATCH_MESSAGES` - 1, in this order.
            timeout: seconds for the answer.

        Returns:
            The stream sequences of all messages, in their order, without a gap.

        Raises:
            JournalUnavailable, JournalFull, BrokerRefused, EventTooLarge: see `publish_batch`; `BrokerRefused` also if
                the broker has forgotten the batch.
        """
        if not rest:
            # An end that is no message itself.
            end = BatchMessage(self._first.subject, b"", _place(self._id, 2) | {_COMMIT: "eob"})
            return await _end(self._connection, end, 1, timeout)
        for number, message in enumerate(rest[:-1], 2):
            self._send(message, number)
        subject, data, headers = rest[-1]
        count = len(rest) + 1
        end = BatchMessage(subject, data, headers | _place(self._id, count) | {_COMMIT: "1"})
        return await _end(self._connection, end, count, timeout)

    def _send(self, message: BatchMessage, number: int) -> None:
        headers = message.headers | _place(self._id, number)
        rpc.check_payload_size(self._connection, message.data, headers)
        try:
            self._connection.sender.send(message.subject, message.data, headers=headers)
        except (nats.errors.Error, OSError) as error:
            # The batch has no end, so the broker forgets it.
            raise JournalUnavailable(
                f"the broker connection failed: {str(error) or type(error).__name__}", maybe_stored=False
            ) from error


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
    if len(messages) > 1:
        return await AtomicBatch(connection, messages[0]).store(messages[1:], timeout=timeout)
    subject, data, headers = messages[0]
    end = BatchMessage(subject, data, headers | _place(secrets.token_urlsafe(6), 1) | {_COMMIT: "1"})
    return await _end(connection, end, 1, timeout)


def _place(batch: str, number: int) -> dict[str, str]:
    return {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}


async def _end(connection: Connection, end: BatchMessage, count: int, seconds: float) -> range:
    answer = await _request(connection, *end, seconds)
    if answer.count != count:
        raise JournalUnavailable(f"{answer.count} of a batch of {count} are stored", maybe_stored=True)
    return range(answer.seq - count + 1, answer.seq + 1)


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
