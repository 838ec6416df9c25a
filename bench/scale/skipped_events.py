"""Acknowledges all that consumers of the journal have left, without reading it: as if their service had.

A journal of a million operations would otherwise keep runner and projector busy for half an hour before anything can be
measured. Over a raw socket and by hand, since there are millions of messages.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from bench.harness import broker_state, http_client
from opstream_schemas import subjects

_HOST: Final = "127.0.0.1"
_AT_ONCE: Final = 1_000
_PULL: Final = 500
_STALL: Final = 60.0


class SkippedEvents(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    nats_url: str
    port: int
    """Of the same server."""
    consumers: list[str]


class SkippedEventsResult(msgspec.Struct, frozen=True):
    """The figures."""

    messages: int


class _Skipper(asyncio.Protocol):
    def __init__(self, consumer: str, messages: int) -> None:
        self._consumer = consumer
        self._left = messages
        self._open = 0
        self._buffer = b""
        self._transport: Any = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        options = b'{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"raw","version":"0"}'
        self._transport.write(b"CONNECT %s\r\nSUB _SKIP.%s 1\r\n" % (options, self._consumer.encode()))
        self._pull()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(http_client.LoadFailed(f"the broker closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        position, acks = 0, 0
        out: list[bytes] = []
        while (end := buffer.find(b"\r\n", position)) >= 0:
            words = buffer[position:end].split()
            if words[0] in {b"MSG", b"HMSG"}:
                after = end + 2 + int(words[-1])
                if len(buffer) < after + 2:
                    break
                position = after + 2
                if words[3].startswith(b"$JS.ACK"):
                    out.append(b"PUB %s 0\r\n\r\n" % words[3])
                    acks += 1
                continue
            position = end + 2
            if words[0] == b"PING":
                out.append(b"PONG\r\n")
        self._buffer = buffer[position:]
        self._open -= acks
        self._left -= acks
        if out:
            self._transport.write(b"".join(out))
        if self._left <= 0 and not self.done.done():
            self.done.set_result(None)
        elif self._open <= _PULL:
            self._pull()

    def _pull(self) -> None:
        request = b'{"batch":%d,"expires":%d}' % (_AT_ONCE, int(_STALL * 1e9))
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.OPERATIONS_STREAM}.{self._consumer}"
        self._transport.write(
            b"PUB %s _SKIP.%s %d\r\n%s\r\n" % (subject.encode(), self._consumer.encode(), len(request), request)
        )
        self._open += _AT_ONCE


async def run(task: SkippedEvents) -> SkippedEventsResult:
    """Run the task.

    Raises:
        LoadFailed: the broker closed a connection.
    """
    total = 0
    async with broker_state.connected(task.nats_url) as connection:
        for name in task.consumers:
            count = (await broker_state.consumer_state(connection, name)).unfinished
            if count:
                _, skipper = await asyncio.get_running_loop().create_connection(
                    lambda name=name, count=count: _Skipper(name, count), _HOST, task.port
                )
                await skipper.done
                await broker_state.wait_idle(connection, name, _STALL)
                total += count
    return SkippedEventsResult(total)


if __name__ == "__main__":
    http_client.run_task(run, SkippedEvents)
