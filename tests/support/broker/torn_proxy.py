"""A TCP proxy that breaks each connection after a number of bytes from the service.

async with TornProxy(port, lambda: 1000) as proxy:
    ...  # each connection gets 1000 bytes from the service, then it ends
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.broker.proxy import Proxy


class TornProxy(Proxy):
    """Forwards all bytes of the client, and a limited number of the service's.

    Args:
        port: of the service.
        draw: returns the number of the service's bytes that the next connection forwards.
    """

    def __init__(self, port: int, draw: Callable[[], int]) -> None:
        super().__init__(port)
        self._draw = draw

    async def _pump(
        self,
        pair: asyncio.Task[None],
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        *,
        is_answer: bool = False,
    ) -> None:
        if is_answer:
            source = _Ration(source, self._draw())
        await super()._pump(pair, source, target, is_answer=is_answer)


class _Ration(asyncio.StreamReader):
    """The first bytes of another reader."""

    def __init__(self, source: asyncio.StreamReader, left: int) -> None:
        super().__init__()
        self._source = source
        self._left = left

    async def read(self, n: int = -1) -> bytes:
        data = await self._source.read(min(n, self._left)) if self._left else b""
        self._left -= len(data)
        return data
