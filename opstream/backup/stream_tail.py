"""The tail of a stream: what was stored in it after the moment of its snapshot.

The broker reads a stream while it sends the snapshot. A message that is replaced meanwhile is not in it, and the one
that replaces it is too new for it. The tail has that one. It is read from the leader, message by message, until there
is no later one: at that moment snapshot and tail together have every message that the stream has. They may also have
some that were removed meanwhile; a delivery or a lock too many does no harm.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Iterable
from typing import Final

import msgspec

from opstream_journal import Connection, JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.wire.received_message import parse_headers

_MAX_SECONDS: Final = 300.0
_FORGOTTEN: Final = ("nats-expected-", "nats-batch-", "nats-msg-id", "nats-scheduler", "nats-schedule-next")
"""Beginnings of the names of headers that were for the moment in which a message was stored."""


class TailMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the tail; one line of its file."""

    subject: str
    headers: str
    """The block of headers as the broker keeps it, base64; empty without any."""
    data: str
    """Base64."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(TailMessage).decode


async def read_tail(connection: Connection, stream: str, after: int) -> AsyncIterator[bytes]:
    """Yield the messages after a sequence as lines, until there is none.

    Raises:
        JournalUnavailable: no leader answered, or the stream grows faster than it is read.
        BrokerRefused: the broker refused.
    """
    clock = asyncio.get_running_loop().time
    sequence, until = after, clock() + _MAX_SECONDS
    while (message := await rpc.get_next(connection, stream, ">", sequence + 1)) is not None:
        sequence = message.seq
        yield (
            _encode(
                TailMessage(
                    subject=message.subject,
                    headers=base64.b64encode(message.hdrs).decode(),
                    data=base64.b64encode(message.data).decode(),
                )
            )
            + b"\n"
        )
        if clock() > until:
            raise JournalUnavailable(
                f"{stream} has changed faster than it could be read for {_MAX_SECONDS:g} s: try it again later",
                maybe_stored=False,
            )


async def replay_tail(connection: Connection, lines: Iterable[bytes], *, can_roll_up: bool) -> int:
    """Publish the messages of a tail to their stream, in order. Return their number.

    Args:
        connection: the connection.
        lines: of the tail.
        can_roll_up: whether the stream lets a message replace others; otherwise its limit for each subject does.

    Raises:
        ValueError: a line is none of a tail.
        JournalError: the broker did not answer, or refused.
    """
    forgotten = _FORGOTTEN if can_roll_up else (*_FORGOTTEN, "nats-rollup")
    count = 0
    for line in lines:
        try:
            message = _decode(line)
            block, data = (base64.b64decode(text, validate=True) for text in (message.headers, message.data))
        except (msgspec.MsgspecError, binascii.Error) as error:
            raise ValueError(f"line {count + 1} is no message: {error}") from error
        headers = (parse_headers(connection.nc, block) or {}) if block else {}
        kept = {name: value for name, value in headers.items() if not name.lower().startswith(forgotten)}
        await rpc.publish(connection, message.subject, data, kept)
        count += 1
    return count
