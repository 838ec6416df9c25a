"""Reads of the same operation at the same time: those that wait for one share it.

A status must not be older than the leader's word when its request arrived. So a request never takes the result of a
read that was under way when it came. It takes that of the next one, which begins when that read has ended, and so do
all others that come until then: however many clients poll one operation, there is one read after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedReads(Generic[T]):
    """The reads that are under way, by key.

    Args:
        read: reads what belongs to a key. Its exceptions go to all that share the read.
    """

    def __init__(self, read: Callable[[str], Awaitable[T]]) -> None:
        self._read = read
        self._open: dict[str, _OpenRead[T]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def read(self, key: str) -> T:
        """Return the result of a read that begins after this call. Canceling the call harms no other one."""
        current = self._open.get(key)
        if current is None:
            return await self._read_now(key)
        if current.following is None:
            current.following = asyncio.create_task(self._read_after(current, key), name=f"shared read of {key}")
            current.following.add_done_callback(_retrieve)
        return await asyncio.shield(current.following)

    async def _read_now(self, key: str) -> T:
        current = self._open[key] = _OpenRead()
        try:
            return await self._read(key)
        finally:
            if current.following is None:
                del self._open[key]
            else:
                current.ended.set()

    async def _read_after(self, before: _OpenRead[T], key: str) -> T:
        await before.ended.wait()
        return await self._read_now(key)


class _OpenRead(Generic[T]):
    __slots__ = ("ended", "following")

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.following: asyncio.Task[T] | None = None


def _retrieve(ended: asyncio.Task[T]) -> None:
    if not ended.cancelled():
        ended.exception()  # so that asyncio does not log it if no caller waits any more
