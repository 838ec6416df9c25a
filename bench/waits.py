"""Many clients with `Prefer: wait`: what they cost while nothing happens, and how late they hear of the end.

Started by `readings.py`. Each of the clients has a connection of its own, as in the field.
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

from bench import wire
from bench.figures import Latency, percentiles
from bench.held import HeldOperations
from bench.usage import process_usage
from opstream_journal import connect

WAIT: Final = 60
"""Seconds that a client is ready to wait."""

_SETTLE: Final = 3.0
"""Seconds until everything that is done once for each client is done."""
_WARM_UP: Final = 50
_OPERATION: Final = re.compile(rb"operations\.([A-Za-z0-9_-]+)\.>")


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """What to do."""

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
    """How it went."""

    clients: int
    operations: int
    late: Latency
    """From the time of the operation's last event, which is set just before it is stored, to the whole answer."""
    span: float
    """Seconds from the first of these events to the last answer."""
    rss: dict[str, int]
    """Bytes of the API: `before`, with `idle` connections, with all clients `waiting`, `after` they were answered."""
    requests: int
    """That the broker got about operations while nothing happened."""
    read: int
    """Different operations that these were about."""
    quiet: float
    quiet_cpu: float
    """Seconds of the API's processor time while nothing happened."""
    end_cpu: dict[str, float]
    """Seconds of processor time from the first end to the last answer, by process; `load` is the load generator."""


class _EndedMonitor(msgspec.Struct, rename="camel"):
    status: str
    finished_at: datetime


_decode: Final = msgspec.json.Decoder(_EndedMonitor).decode


async def run(waits: Waits) -> WaitFigures:
    """Warm up, and carry it out."""
    operations = min(_WARM_UP, waits.operations)
    warm_up = msgspec.structs.replace(waits, clients=_WARM_UP, operations=operations, quiet=0.0, spread=0.1)
    await _run(warm_up)
    return await _run(waits)


async def _run(waits: Waits) -> WaitFigures:
    async with HeldOperations(waits.port, waits.operations, waits.spread) as held:
        await asyncio.sleep(_SETTLE / 2)
        rss = {"before": process_usage(waits.pids["api"]).rss}
        clients = [await wire.HttpConnection.open(waits.port) for _ in range(waits.clients)]
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
            raise wire.LoadFailed("clients were answered although nothing had happened")
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


async def _wait(client: wire.HttpConnection, operation_id: str) -> float:
    """When the operation ended, seconds since the epoch."""
    ended = _decode(await client.send(client.get(f"/status/{operation_id}", b"Prefer: wait=%d\r\n" % WAIT)))
    if ended.status != "Succeeded":
        raise wire.LoadFailed(f"operation {operation_id} ended {ended.status}")
    return ended.finished_at.timestamp()


async def _count_broker_requests(nats_url: str, seconds: float) -> tuple[int, int]:
    """How often the broker is asked about an operation in so many seconds, and how many different ones are meant."""
    asked: Counter[bytes] = Counter()

    async def count(message: Msg) -> None:
        asked.update(_OPERATION.findall(message.data))

    link = await connect([nats_url], "bench", connect_timeout=_SETTLE)
    try:
        await link.nc.subscribe("$JS.API.>", cb=count)
        await asyncio.sleep(seconds)
    finally:
        await link.close()
    return asked.total(), len(asked)


if __name__ == "__main__":
    wire.run_task(run, Waits)
