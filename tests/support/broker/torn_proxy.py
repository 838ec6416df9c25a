"""A TCP proxy whose connections break after so many bytes of the answer. Callers: tests of those who have to go on.

async with TornProxy(port, lambda: 1000) as proxy:
    ...  # each connection gets 1000 bytes from the service, and then its end
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.broker.proxy import Proxy


class TornProxy(Proxy):
    """Passes bytes both ways, but not all.

    Args:
        port: of the service.
        draw: bytes of the service that the next connection passes.
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
    """The beginning of what another reader gives."""

    def __init__(self, source: asyncio.StreamReader, left: int) -> None:
        super().__init__()
        self._source = source
        self._left = left

    async def read(self, n: int = -1) -> bytes:
        data = await self._source.read(min(n, self._left)) if self._left else b""
        self._left -= len(data)
        return data
