"""A TCP proxy between a client and its broker that can lose, delay or stop traffic.

async with Proxy(broker.port) as proxy:
    connection = await connect([proxy.url], "test", connect_timeout=5)
    proxy.mute()    # the client's data reaches the broker, the broker's is held back
    proxy.unmute()  # the held data arrives
    proxy.cut()     # the connection breaks; held data is lost
    proxy.version = "2.14.9"  # for new connections, the broker is that old
"""

from __future__ import annotations

import asyncio
import re
from typing import Final, Self

_CHUNK: Final = 65_536
_VERSION: Final = re.compile(rb'"version":"[^"]*"')


class Proxy:
    """Forwards bytes between clients and a port on loopback.

    Args:
        port: the broker's.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.version = ""
        """The version that the broker seems to have; empty for its own."""
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()
        self._frozen: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL for clients."""
        assert self._server is not None, "the proxy is not started"
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def mute(self) -> None:
        """Hold back the broker's data from now on."""
        self._is_open.clear()

    def unmute(self) -> None:
        """Forward the held data, and all that follows."""
        self._is_open.set()

    def cut(self) -> None:
        """Break all connections and drop held data. New connections are accepted."""
        for pair in list(self._pairs):
            pair.cancel()
        self._is_open.set()

    def freeze(self) -> None:
        """Keep the present connections open but forward nothing, as if a machine had lost its power."""
        self._frozen |= self._pairs

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for pair in list(self._pairs):
            pair.cancel()
        if self._pairs:
            await asyncio.wait(self._pairs)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        try:
            upstream, downstream = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(task, reader, downstream))
                    group.create_task(self._pump(task, upstream, writer, is_answer=True))
            finally:
                downstream.transport.abort()
        except* (OSError, asyncio.CancelledError, _Ended):
            # Either side may have ended; both connections are closed.
            writer.transport.abort()
        finally:
            self._pairs.discard(task)

    async def _pump(
        self,
        pair: asyncio.Task[None],
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        *,
        is_answer: bool = False,
    ) -> None:
        while data := await source.read(_CHUNK):
            if is_answer:
                await self._is_open.wait()
                if self.version:
                    data = _VERSION.sub(b'"version":"%s"' % self.version.encode(), data)
            if pair in self._frozen:
                await asyncio.Event().wait()
            target.write(data)
            await target.drain()
        raise _Ended


class _Ended(Exception):
    """One side closed its connection."""
