"""A TCP proxy between a client and its broker, for the moments in which a network loses what was said.

async with Proxy(broker.port) as proxy:
    link = await connect([proxy.url], "test", connect_timeout=5)
    proxy.mute()    # the broker hears the client, but not the other way round
    proxy.unmute()  # what the broker had said arrives late
    proxy.cut()     # the connection breaks; what was muted is lost
"""

from __future__ import annotations

import asyncio
from typing import Final, Self

_CHUNK: Final = 65_536


class Proxy:
    """Passes bytes both ways between clients and a port on loopback.

    Args:
        port: the broker's.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()
        self._frozen: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """For clients."""
        assert self._server is not None, "the proxy is not started"
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def mute(self) -> None:
        """Hold back what the broker says from now on."""
        self._is_open.clear()

    def unmute(self) -> None:
        """Pass on what was held back, and everything after it."""
        self._is_open.set()

    def cut(self) -> None:
        """Break all connections; what was held back is lost. New ones are served."""
        for pair in list(self._pairs):
            pair.cancel()
        self._is_open.set()

    def freeze(self) -> None:
        """Let present connections stand and pass nothing, as when a machine has lost its power."""
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
            # Whichever side ended, the pair is over: that is all a proxy has to know.
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
            if pair in self._frozen:
                await asyncio.Event().wait()
            target.write(data)
            await target.drain()
        raise _Ended


class _Ended(Exception):
    """One side closed its connection."""
