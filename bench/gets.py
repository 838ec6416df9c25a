"""Reads of a status: what one costs, and how many a process answers. Started by `readings.py`.

Of an operation that has ended, which the API answers from its memory; of one that runs, for which it asks the broker
each time; and of one that has ended with `If-None-Match`, which is answered without a body.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from bench import wire
from bench.figures import Latency, percentiles
from bench.held import HeldOperations
from bench.usage import process_usage

_WARM_UP: Final = 0.3
_CPU: Final = ("api", "broker")


class StatusReads(msgspec.Struct, frozen=True, kw_only=True):
    """What to do."""

    port: int
    pids: dict[str, int]
    clients: int
    """Keep-alive connections."""
    seconds: float
    """For each kind of read, together and again half of it alone."""


class StatusReadFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of read."""

    name: str
    rate: float
    """Answers a second with all clients."""
    together: Latency
    alone: Latency
    """With one client, one read at a time."""
    cpu: dict[str, float]
    """Microseconds for each read with all clients, by process; `load` is the load generator."""
    load_share: float
    """Of a core that the load generator took."""


class StatusReadResult(msgspec.Struct, frozen=True):
    """All kinds."""

    kinds: list[StatusReadFigures]


class _EtagClient(wire.HttpConnection):
    """Keeps the `ETag`."""

    etag = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"etag":
            self.etag = value


async def run(gets: StatusReads) -> StatusReadResult:
    """Carry all reads out."""
    connections = [await wire.HttpConnection.open(gets.port) for _ in range(gets.clients)]
    async with HeldOperations(gets.port, 1) as held:
        running = held.operation_ids[0]
        async with HeldOperations(gets.port, 1) as other:
            ended = other.operation_ids[0]
        client = await _EtagClient.open(gets.port)
        while not await client.has_succeeded(ended):
            continue
        known = client.get(f"/status/{ended}", b"If-None-Match: %s\r\n" % client.etag)
        kinds = [
            await _measure(gets, connections, "ended", client.get(f"/status/{ended}"), wire.OK),
            await _measure(gets, connections, "running", client.get(f"/status/{running}"), wire.OK),
            await _measure(gets, connections, "unchanged (304)", known, wire.NOT_MODIFIED),
        ]
    for connection in (client, *connections):
        connection.close()
    return StatusReadResult(kinds)


async def _measure(
    gets: StatusReads, connections: list[wire.HttpConnection], name: str, request: bytes, expected: int
) -> StatusReadFigures:
    await _read_repeatedly(connections, request, expected, _WARM_UP)
    alone = await _read_repeatedly(connections[:1], request, expected, gets.seconds / 2)
    before, cpu, began = _used(gets.pids), time.process_time(), time.perf_counter()
    together = await _read_repeatedly(connections, request, expected, gets.seconds)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    used = {name: after - before[name] for name, after in _used(gets.pids).items()} | {"load": cpu}
    return StatusReadFigures(
        name=name,
        rate=len(together) / seconds,
        together=percentiles(together),
        alone=percentiles(alone),
        cpu={name: value * 1e6 / len(together) for name, value in used.items()},
        load_share=cpu / seconds,
    )


async def _read_repeatedly(
    connections: list[wire.HttpConnection], request: bytes, expected: int, seconds: float
) -> list[float]:
    """How long each read took."""
    until = time.perf_counter() + seconds
    times: list[float] = []

    async def work(connection: wire.HttpConnection) -> None:
        began = time.perf_counter()
        while began < until:
            await connection.send(request, expected)
            ended = time.perf_counter()
            times.append(ended - began)
            began = ended

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(work(connection))
    return times


def _used(pids: dict[str, int]) -> dict[str, float]:
    return {name: process_usage(pids[name]).cpu for name in _CPU}


if __name__ == "__main__":
    wire.run_task(run, StatusReads)
