"""Many clients with `Prefer: wait`: what they cost while nothing happens, and how late they learn of the end.

Each client has its own connection.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from datetime import datetime
from typing import Final

import msgspec
from nats.aio.msg import Msg

from bench.harness import http_client
from bench.harness.figures import Latency, percentiles
from bench.harness.process_usage import process_usage
from bench.reading.held_operations import HeldOperations
from opstream_journal import connect

WAIT: Final = 60
"""Seconds, for `Prefer: wait`."""

_SETTLE: Final = 3.0
"""Seconds until the work for new clients is done."""
_WARM_UP: Final = 50
_OPERATION: Final = re.compile(rb"operations\.([A-Za-z0-9_-]+)\.>")


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """The task."""

    port: int
    pids: dict[str, int]
    nats_url: str
    clients: int
    operations: int
    """Either one for each client, or one for all."""
    quiet: float
    """Seconds in which nothing happens."""
    spread: float
    """Seconds over which the operations end."""


class WaitFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures."""

    clients: int
    operations: int
    late: Latency
    """From the time of the operation's last event, which is set just before it is stored, to the whole response."""
    span: float
    """Seconds from the first of these events to the last response."""
    rss: dict[str, int]
    """Bytes of the API: `before`, with `idle` connections, with all clients `waiting`, `after` they were answered."""
    requests: int
    """Requests to the broker about operations while nothing happened."""
    read: int
    """Distinct operations in these requests."""
    quiet: float
    quiet_cpu: float
    """Seconds of the API's processor time while nothing happened."""
    end_cpu: dict[str, float]
    """Seconds of processor time from the first end to the last response, by process; `load` is the load generator."""


class _EndedMonitor(msgspec.Struct, rename="camel"):
    status: str
    finished_at: datetime


_decode: Final = msgspec.json.Decoder(_EndedMonitor).decode


async def run(waits: Waits) -> WaitFigures:
    """Warm up, and run the task."""
    operations = min(_WARM_UP, waits.operations)
    warm_up = msgspec.structs.replace(waits, clients=_WARM_UP, operations=operations, quiet=0.0, spread=0.1)
    await _run(warm_up)
    return await _run(waits)


async def _run(waits: Waits) -> WaitFigures:
    async with HeldOperations(waits.port, waits.operations, waits.spread) as held:
        await asyncio.sleep(_SETTLE / 2)
        rss = {"before": process_usage(waits.pids["api"]).rss}
        clients = [await http_client.HttpConnection.open(waits.port) for _ in range(waits.clients)]
        await asyncio.sleep(_SETTLE / 2)
        rss["idle"] = process_usage(waits.pids["api"]).rss
        asking = [
            asyncio.create_task(_wait(client, held.operation_ids[number % waits.operations]))
            for number, client in enumerate(clients)
        ]
        await asyncio.sleep(_SETTLE)
        rss["waiting"] = process_usage(waits.pids["api"]).rss
        cpu = process_usage(waits.pids["api"]).cpu
        requests, read = await _count_broker_requests(waits.nats_url, waits.quiet)
        quiet_cpu = process_usage(waits.pids["api"]).cpu - cpu
        if any(one.done() for one in asking):
            await asyncio.gather(*asking)
            raise http_client.LoadFailed("clients got responses although nothing had happened")
        before, load = {name: process_usage(pid).cpu for name, pid in waits.pids.items()}, time.process_time()
        held.release()
        finished = await asyncio.gather(*asking)
        load = time.process_time() - load
        end_cpu = {name: process_usage(pid).cpu - before[name] for name, pid in waits.pids.items()} | {"load": load}
        rss["after"] = process_usage(waits.pids["api"]).rss
    for client in clients:
        client.close()
    return WaitFigures(
        clients=waits.clients,
        operations=waits.operations,
        late=percentiles(client.answered_at - at for client, at in zip(clients, finished, strict=True)),
        span=max(client.answered_at for client in clients) - min(finished),
        rss=rss,
        requests=requests,
        read=read,
        quiet=waits.quiet,
        quiet_cpu=quiet_cpu,
        end_cpu=end_cpu,
    )


async def _wait(client: http_client.HttpConnection, operation_id: str) -> float:
    """Wait for the operation; return when it ended, in seconds since the epoch."""
    ended = _decode(await client.send(client.get(f"/status/{operation_id}", b"Prefer: wait=%d\r\n" % WAIT)))
    if ended.status != "Succeeded":
        raise http_client.LoadFailed(f"operation {operation_id} ended {ended.status}")
    return ended.finished_at.timestamp()


async def _count_broker_requests(nats_url: str, seconds: float) -> tuple[int, int]:
    """Count requests to the broker about operations for some seconds, and the distinct operations in them."""
    asked: Counter[bytes] = Counter()

    async def count(message: Msg) -> None:
        asked.update(_OPERATION.findall(message.data))

    connection = await connect([nats_url], "bench", connect_timeout=_SETTLE)
    try:
        await connection.nc.subscribe("$JS.API.>", cb=count)
        await asyncio.sleep(seconds)
    finally:
        await connection.close()
    return asked.total(), len(asked)


if __name__ == "__main__":
    http_client.run_task(run, Waits)
