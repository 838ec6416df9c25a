"""Reads of a status: what one costs, and how many an API process serves.

Three kinds: an operation that has ended, which the API serves from memory; one that runs, for which it asks the broker
each time; and one that has ended, read with `If-None-Match`, which gets no body.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from bench.harness import http_client
from bench.harness.figures import Latency, percentiles
from bench.harness.process_usage import process_usage
from bench.reading.held_operations import HeldOperations

_WARM_UP: Final = 0.3
_CPU: Final = ("api", "broker")


class StatusReads(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    port: int
    pids: dict[str, int]
    clients: int
    """Keep-alive connections."""
    seconds: float
    """Seconds for each kind of read with all clients, and half as long with one."""


class StatusReadFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of read."""

    name: str
    rate: float
    """Responses a second with all clients."""
    together: Latency
    alone: Latency
    """With one client, one read at a time."""
    cpu: dict[str, float]
    """Microseconds for each read with all clients, by process; `load` is the load generator."""
    load_share: float
    """Share of a core that the load generator used."""


class StatusReadResult(msgspec.Struct, frozen=True):
    """All kinds."""

    kinds: list[StatusReadFigures]


class _EtagClient(http_client.HttpConnection):
    """Remembers the `ETag`."""

    etag = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"etag":
            self.etag = value


async def run(gets: StatusReads) -> StatusReadResult:
    """Run the task."""
    connections = [await http_client.HttpConnection.open(gets.port) for _ in range(gets.clients)]
    async with HeldOperations(gets.port, 1) as held:
        running = held.operation_ids[0]
        async with HeldOperations(gets.port, 1) as other:
            ended = other.operation_ids[0]
        client = await _EtagClient.open(gets.port)
        while not await client.has_succeeded(ended):
            continue
        known = client.get(f"/status/{ended}", b"If-None-Match: %s\r\n" % client.etag)
        kinds = [
            await _measure(gets, connections, "ended", client.get(f"/status/{ended}"), http_client.OK),
            await _measure(gets, connections, "running", client.get(f"/status/{running}"), http_client.OK),
            await _measure(gets, connections, "unchanged (304)", known, http_client.NOT_MODIFIED),
        ]
    for connection in (client, *connections):
        connection.close()
    return StatusReadResult(kinds)


async def _measure(
    gets: StatusReads, connections: list[http_client.HttpConnection], name: str, request: bytes, expected: int
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
    connections: list[http_client.HttpConnection], request: bytes, expected: int, seconds: float
) -> list[float]:
    """How long each read took."""
    until = time.perf_counter() + seconds
    times: list[float] = []

    async def work(connection: http_client.HttpConnection) -> None:
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
    http_client.run_task(run, StatusReads)
