"""The state of the broker's streams and consumers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec

from bench.harness.process_usage import BenchFailed
from opstream_journal import Connection, connect
from opstream_journal.jetstream import rpc
from opstream_schemas import subjects
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

_TIMEOUT: Final = 30.0
_POLL_INTERVAL: Final = 0.02


class StreamState(msgspec.Struct, frozen=True):
    """Size of a stream."""

    messages: int
    bytes: int
    last_seq: int


class ConsumerState(msgspec.Struct, frozen=True):
    """Work of a consumer that is left."""

    num_pending: int
    """Messages not yet delivered."""
    num_ack_pending: int
    """Messages delivered and not acknowledged."""

    @property
    def unfinished(self) -> int:
        """Messages that are not acknowledged."""
        return self.num_pending + self.num_ack_pending


class _StreamInfo(msgspec.Struct):
    state: StreamState


_Info = TypeVar("_Info", bound=msgspec.Struct)


@asynccontextmanager
async def connected(url: str, credentials: BrokerCredentials = NO_CREDENTIALS) -> AsyncIterator[Connection]:
    """A connection of the benchmark's own."""
    connection = await connect([url], "bench", connect_timeout=_TIMEOUT, credentials=credentials)
    try:
        yield connection
    finally:
        await connection.close()


async def stream_state(connection: Connection, name: str) -> StreamState:
    """Read the state of a stream.

    Raises:
        BenchFailed: it does not exist.
    """
    return (await _request_info(connection, f"STREAM.INFO.{name}", _StreamInfo)).state


async def consumer_state(connection: Connection, name: str) -> ConsumerState:
    """Read the state of a consumer of the journal.

    Raises:
        BenchFailed: it does not exist.
    """
    return await _request_info(connection, f"CONSUMER.INFO.{subjects.OPERATIONS_STREAM}.{name}", ConsumerState)


async def wait_idle(connection: Connection, name: str, timeout: float) -> float:  # noqa: ASYNC109 - for a person to read
    """Wait until a consumer of the journal has no work left; return the seconds that took.

    Raises:
        BenchFailed: it has work left after `timeout` seconds.
    """
    began = time.monotonic()
    while (await consumer_state(connection, name)).unfinished:
        if time.monotonic() - began > timeout:
            raise BenchFailed(f"the {name} was not done after {timeout:g} s")
        await asyncio.sleep(_POLL_INTERVAL)
    return time.monotonic() - began


async def _request_info(connection: Connection, what: str, kind: type[_Info]) -> _Info:
    answer = (await rpc.call(connection, f"$JS.API.{what}")).data
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.ValidationError as error:
        raise BenchFailed(f"the broker responded to {what} with {answer.decode(errors='replace')}") from error
