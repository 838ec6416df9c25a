"""Reads that share: each result is of a read that began after its call, whichever call is canceled or fails."""

from __future__ import annotations

import asyncio

import pytest

from opstream_api.operations.shared_reads import SharedReads


class Source:
    """A source whose reads end when they are let go. The result is the number of the read, from 1."""

    def __init__(self) -> None:
        self.begun = 0
        self._gates: list[asyncio.Future[None]] = []
        self.reads = SharedReads(self._read)

    async def _read(self, _key: str) -> int:
        self.begun += 1
        number = self.begun
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        await gate
        return number

    async def call(self, key: str = "one") -> asyncio.Task[int]:
        """Begin a call, and let it get as far as it can."""
        task = asyncio.create_task(self.reads.read(key))
        await settle()
        return task

    async def end(self, error: Exception | None = None) -> None:
        """End the oldest read that was not canceled."""
        gate = next(gate for gate in self._gates if not gate.done())
        if error is None:
            gate.set_result(None)
        else:
            gate.set_exception(error)
        await settle()


async def settle() -> None:
    """Let all tasks run until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_call_takes_a_read_that_began_before_it() -> None:
    """Those that come during a read share the next one; those that come during that one share the third."""
    source = Source()
    first = await source.call()
    during_first = [await source.call() for _ in range(10)]
    assert source.begun == 1
    await source.end()
    assert (first.result(), source.begun) == (1, 2)
    during_second = [await source.call() for _ in range(10)]
    await source.end()
    assert [task.result() for task in during_first] == [2] * 10
    await source.end()
    assert [task.result() for task in during_second] == [3] * 10
    assert (source.begun, len(source.reads)) == (3, 0)


async def test_keys_are_apart() -> None:
    """Reads of other keys do not wait."""
    source = Source()
    tasks = [await source.call("one"), await source.call("two")]
    assert source.begun == 2
    for _ in tasks:
        await source.end()
    assert [task.result() for task in tasks] == [1, 2]
    assert len(source.reads) == 0


async def test_an_error_goes_to_all_that_share_the_read() -> None:
    """And to no other: what waits behind a failed read gets its own result."""
    source = Source()
    first = await source.call()
    waiting = [await source.call() for _ in range(2)]
    await source.end(ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        first.result()
    await source.end()
    assert [task.result() for task in waiting] == [2, 2]


async def test_a_canceled_call_harms_no_other() -> None:
    """Neither the one that reads, nor the first of those that wait, nor all of them."""
    source = Source()
    first = await source.call()
    waiting = [await source.call() for _ in range(3)]
    first.cancel()
    await settle()
    assert source.begun == 2
    waiting[0].cancel()
    await settle()
    await source.end()
    assert [task.result() for task in waiting[1:]] == [2, 2]
    last = [await source.call() for _ in range(2)]
    for task in last:
        task.cancel()
    await settle()
    await source.end()
    assert len(source.reads) == 0
