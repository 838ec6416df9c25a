"""What the broker tells about its streams and consumers. Called by `system.py` and the parts that look at queues."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec

from bench.usage import BenchFailed
from opstream_journal import Connection, connect
from opstream_journal.jetstream import rpc
from opstream_schemas import subjects

_TIMEOUT: Final = 30.0
_POLL_INTERVAL: Final = 0.02


class StreamState(msgspec.Struct, frozen=True):
    """How full a stream is."""

    messages: int
    bytes: int
    last_seq: int


class ConsumerState(msgspec.Struct, frozen=True):
    """What a consumer has before it."""

    num_pending: int
    """Messages that it has never delivered."""
    num_ack_pending: int
    """Messages that it has delivered, and that are not acknowledged."""

    @property
    def unfinished(self) -> int:
        """Messages that are not done."""
        return self.num_pending + self.num_ack_pending


class _StreamInfo(msgspec.Struct):
    state: StreamState


_Info = TypeVar("_Info", bound=msgspec.Struct)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection of the benchmark's own."""
    link = await connect([url], "bench", connect_timeout=_TIMEOUT)
    try:
        yield link
    finally:
        await link.close()


async def stream_state(link: Connection, name: str) -> StreamState:
    """Look at a stream.

    Raises:
        BenchFailed: there is none.
    """
    return (await _request_info(link, f"STREAM.INFO.{name}", _StreamInfo)).state


async def consumer_state(link: Connection, name: str) -> ConsumerState:
    """Look at a consumer of the journal.

    Raises:
        BenchFailed: there is none.
    """
    return await _request_info(link, f"CONSUMER.INFO.{subjects.OPERATIONS_STREAM}.{name}", ConsumerState)


async def wait_idle(link: Connection, name: str, timeout: float) -> float:  # noqa: ASYNC109 - for a person to read
    """Wait until a consumer of the journal has nothing left to do; the seconds that it took.

    Raises:
        BenchFailed: it still has after `timeout` seconds.
    """
    began = time.monotonic()
    while (await consumer_state(link, name)).unfinished:
        if time.monotonic() - began > timeout:
            raise BenchFailed(f"the {name} was not done after {timeout:g} s")
        await asyncio.sleep(_POLL_INTERVAL)
    return time.monotonic() - began


async def _request_info(link: Connection, what: str, kind: type[_Info]) -> _Info:
    answer = (await rpc.call(link, f"$JS.API.{what}")).data
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.ValidationError as error:
        raise BenchFailed(f"{what} was answered by {answer.decode(errors='replace')}") from error
