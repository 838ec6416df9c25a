"""Many messages stored at once or none of them: an atomic batch (NATS ADR-50). Caller: `view.py`.

A broker that syncs each write syncs such a batch as one: a thousand small messages cost it about what ten cost alone
(docs/performance.md). It holds the batch until its end, so whoever makes one keeps it small.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import nats.errors

from opstream_journal.errors import BrokerRefused, JournalUnavailable

from . import rpc
from .connection import Connection

MAX_BATCH_MESSAGES: Final = 1_000
"""The broker takes no more in one batch."""

_TIMEOUT: Final = 10.0


class BatchMessage(NamedTuple):
    """One of a batch."""

    subject: str
    data: bytes
    headers: dict[str, str]


class _BatchReply(msgspec.Struct):
    seq: int = 0
    count: int = 0
    error: rpc.JetStreamErrorBody | None = None


_decode: Final = msgspec.json.Decoder(_BatchReply).decode


async def publish_batch(link: Connection, messages: Sequence[BatchMessage]) -> range:
    """Store all messages, 1 to `MAX_BATCH_MESSAGES`, on one stream that allows atomic batches, or none.

    Returns:
        Their stream sequences, in their order, without a gap.

    Raises:
        JournalUnavailable: no answer to the end of the batch: all of it may be stored, or none.
        RequestRefused: none is stored: a guard of one of them does not hold, or the stream takes no batches.
        EventTooLarge: none is stored: one is larger than the broker's `max_payload`.
    """
    batch, last = secrets.token_hex(8), len(messages) - 1
    answer = _BatchReply()
    for number, (subject, data, headers) in enumerate(messages):
        place = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number + 1)}
        if number == last:
            answer = await _request(link, subject, data, headers | place | {"Nats-Batch-Commit": "1"})
        elif number == 0:  # its answer says whether there may be others
            await _request(link, subject, data, headers | place)
        else:
            await _publish(link, subject, data, headers | place)
    if answer.count != len(messages):
        raise JournalUnavailable(f"{answer.count} of a batch of {len(messages)} are stored", maybe_stored=True)
    return range(answer.seq - last, answer.seq + 1)


async def _request(link: Connection, subject: str, data: bytes, headers: dict[str, str]) -> _BatchReply:
    message = await rpc.call(link, subject, data, headers=headers, timeout=_TIMEOUT)
    if not message.data:
        return _BatchReply()
    try:
        answer = _decode(message.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer on {subject} is not JetStream's", maybe_stored=True) from error
    if answer.error is not None:
        raise BrokerRefused(answer.error.code, answer.error.err_code, answer.error.description)
    return answer


async def _publish(link: Connection, subject: str, data: bytes, headers: dict[str, str]) -> None:
    rpc.check_payload_size(link, data, headers)
    try:
        await link.nc.publish(subject, data, headers=headers)
    except (nats.errors.Error, OSError) as error:
        # The batch has no end, so the broker forgets it.
        raise JournalUnavailable(f"the broker connection failed: {error}", maybe_stored=False) from error
