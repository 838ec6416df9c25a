"""What the durable consumers of a stream have before them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from opstream_journal.errors import JournalUnavailable
from opstream_journal.jetstream import rpc
from opstream_journal.jetstream.connection import Connection


class _Sequences(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class PauseConfig(msgspec.Struct, frozen=True):
    """What a consumer's configuration says of a pause."""

    pause_until: datetime | None = None


class ConsumerBacklog(msgspec.Struct, frozen=True, kw_only=True):
    """One durable consumer, in JetStream's words."""

    name: str = ""
    config: PauseConfig = PauseConfig()
    paused: bool = False
    """Whether it delivers nothing now."""
    num_pending: int = 0
    """Messages that were not delivered yet."""
    num_ack_pending: int = 0
    """Messages that are with processes."""
    num_waiting: int = 0
    """Requests of processes for messages: they have room."""
    ack_floor: _Sequences = _Sequences()
    delivered: _Sequences = _Sequences()

    @property
    def paused_until(self) -> datetime | None:
        """Return until when it delivers nothing; None for a consumer that is not paused."""
        return self.config.pause_until if self.paused else None

    @property
    def open(self) -> int:
        """Return the number of messages that are not acknowledged."""
        return self.num_pending + self.num_ack_pending

    @property
    def first_open(self) -> int:
        """Return a stream sequence before which all messages are acknowledged."""
        return self.ack_floor.stream_seq + 1

    @property
    def first_pending(self) -> int:
        """Return a stream sequence before which all messages were delivered."""
        return self.delivered.stream_seq + 1


class _Page(msgspec.Struct, frozen=True):
    total: int = 0
    consumers: list[ConsumerBacklog] = []
    error: rpc.JetStreamErrorBody | None = None


class _Info(ConsumerBacklog, frozen=True, kw_only=True):
    error: rpc.JetStreamErrorBody | None = None


def together(first: ConsumerBacklog, *others: ConsumerBacklog) -> ConsumerBacklog:
    """Return the consumers of an action with priorities as one: who reads them, and about how much waits.

    The first, which each action has, counts requests of other priorities, too, until it has passed them. So what waits
    is as much as it counts, or as much as the others do, whichever is more.
    """
    return msgspec.structs.replace(
        first,
        num_pending=max(first.num_pending, sum(one.num_pending for one in others)),
        num_ack_pending=sum(one.num_ack_pending for one in (first, *others)),
        num_waiting=sum(one.num_waiting for one in (first, *others)),
    )


_T = TypeVar("_T", _Page, _Info)
_decode: Final = msgspec.json.Decoder(_Page).decode
_decode_info: Final = msgspec.json.Decoder(_Info).decode


async def read_backlogs(connection: Connection, stream: str) -> dict[str, ConsumerBacklog]:
    """Return all consumers of a stream by their names, with one request for each 256 of them.

    Raises:
        JournalUnavailable: the broker did not respond, or refused.
    """
    found: dict[str, ConsumerBacklog] = {}
    offset = 0
    while True:
        request = msgspec.json.encode({"offset": offset})
        page = await _ask(connection, f"CONSUMER.LIST.{stream}", request, _decode)
        found |= {consumer.name: consumer for consumer in page.consumers}
        offset += len(page.consumers)
        if not page.consumers or offset >= page.total:
            return found


async def read_backlog(connection: Connection, stream: str, name: str) -> ConsumerBacklog:
    """Return one consumer of a stream.

    Raises:
        JournalUnavailable: the broker did not respond, or refused, or there is no such consumer.
    """
    return await _ask(connection, f"CONSUMER.INFO.{stream}.{name}", b"", _decode_info)


async def _ask(connection: Connection, what: str, request: bytes, decode: Callable[[bytes], _T]) -> _T:
    answer = await rpc.call(connection, f"$JS.API.{what}", request)
    try:
        found = decode(answer.data)
    except msgspec.MsgspecError as error:
        raise JournalUnavailable(f"the answer on {what} is not JetStream's", maybe_stored=False) from error
    if found.error is not None:
        raise JournalUnavailable(f"{what}: {found.error.description}", maybe_stored=False)
    return found
