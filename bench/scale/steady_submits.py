"""Submits at a steady rate, in a process of its own. A submit is late from the moment at which it was to be sent."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from bench.harness import http_client
from bench.harness.figures import Latency, percentiles
from bench.throughput.load import BODY, PATH

_CLIENTS: Final = 64
_WARM_UP: Final = 50
"""Submits before the time is taken."""


class SteadySubmits(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    port: int
    rate: float
    """Submits a second."""
    submits: int


class SteadySubmitsResult(msgspec.Struct, frozen=True, kw_only=True):
    """The figures."""

    latency: Latency
    """From the moment at which a submit was to be sent to its whole answer."""
    over_25_ms: float
    """Share of the submits that took longer than 25 ms."""
    seconds: float
    cpu: float
    """Seconds of the processor that this client took."""


async def run(task: SteadySubmits) -> SteadySubmitsResult:
    """Run the task.

    Raises:
        LoadFailed: a submit was not accepted.
    """
    idle: asyncio.Queue[http_client.HttpConnection] = asyncio.Queue()
    for _ in range(_CLIENTS):
        idle.put_nowait(await http_client.HttpConnection.open(task.port))
    latencies: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()

    async def submit(due: float) -> None:
        client = await idle.get()
        await client.send(client.post(PATH, BODY), http_client.ACCEPTED)
        latencies.append(time.perf_counter() - due)
        idle.put_nowait(client)

    async with asyncio.TaskGroup() as group:
        for number in range(_WARM_UP + task.submits):
            due = began + number / task.rate
            await asyncio.sleep(due - time.perf_counter())
            group.create_task(submit(due))
    taken = latencies[_WARM_UP:]
    return SteadySubmitsResult(
        latency=percentiles(taken),
        over_25_ms=sum(one > 0.025 for one in taken) / len(taken),
        seconds=time.perf_counter() - began,
        cpu=time.process_time() - cpu,
    )


if __name__ == "__main__":
    http_client.run_task(run, SteadySubmits)
