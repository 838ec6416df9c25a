"""Clients in closed loops, in a process of their own: each submits an operation, polls it to its end, and goes on."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from bench.harness import http_client
from bench.throughput.load import BODY, PATH

_FIRST_PAUSE: Final = 0.005
"""Seconds between the first two polls; each pause is twice as long as the one before."""
_LONGEST_PAUSE: Final = 0.1


class ClosedLoops(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    port: int
    clients: int
    operations: int
    """All clients' together."""


class ClosedLoopsResult(msgspec.Struct, frozen=True, kw_only=True):
    """The figures."""

    seconds: float


async def run(task: ClosedLoops) -> ClosedLoopsResult:
    """Run the task.

    Raises:
        LoadFailed: an operation was not accepted, or did not succeed.
    """
    clients = [await http_client.HttpConnection.open(task.port) for _ in range(task.clients)]
    left = iter(range(task.operations))
    began = time.perf_counter()

    async def work(client: http_client.HttpConnection) -> None:
        for _ in left:
            body = await client.send(client.post(PATH, BODY), http_client.ACCEPTED)
            operation_id = http_client.decode_monitor(body).id
            pause = _FIRST_PAUSE
            while not await client.has_succeeded(operation_id):
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(work(client))
    return ClosedLoopsResult(seconds=time.perf_counter() - began)


if __name__ == "__main__":
    http_client.run_task(run, ClosedLoops)
