"""The part `floors`: what streams carry, by disk, copies, streams and clients, with the least that opstream must do.

Guarded appends as opstream makes them, straight against real servers, one by one and in atomic batches. Each disk and
number of copies gets servers of its own. Syncs are counted by strace, which slows a quick disk down: there in a short
run of their own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.js.api import StreamConfig

from bench.harness import broker_state
from bench.harness.process_usage import BenchFailed
from bench.harness.system import ROOT
from bench.harness.table import table
from bench.scale.chains import Chains, ChainsResult
from bench.scale.servers import Servers, SyncCounts
from bench.throughput.benchmark import Say
from opstream_journal import Connection
from opstream_journal.jetstream import rpc
from opstream_journal.provisioning import jetstream_admin as admin
from opstream_journal.provisioning.topology import Sizing, streams
from opstream_schemas import subjects

FLOORS: Final = "floors"

_STREAMS: Final = 4
_WARM_UP: Final = 0.4
_ROUNDS: Final = 2
"""The better one counts: other work on the machine can only make it slower."""
_SECONDS: Final = 1.2
_LEAD: Final = 0.7
"""Seconds for the start of the clients' processes."""
_EVENTS_AN_OPERATION: Final = 3
_ELECTION: Final = 20.0


class FloorCase(msgspec.Struct, frozen=True, kw_only=True):
    """What one row measures."""

    is_batching: bool
    chains: int
    """All clients' together."""
    streams: int = 1
    clients: int = 1


class FloorFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    copies: int
    """Of each event; as many servers."""
    delay: float
    """Seconds that each sync took longer."""
    case: FloorCase
    leaders: int
    """Servers that lead a stream."""
    rate: float
    """Events a second."""
    batch: float
    """Events for each answer of the broker."""
    syncs: float
    """Calls of fsync for each event, of all servers."""
    opens: float
    """Files opened with O_SYNC for each event; 0 if not counted."""
    servers_cpu: float
    """Microseconds for each event, of all servers."""
    client_cpu: float
    client_share: float
    """Of a core: the busiest client."""
    p50: float
    """Milliseconds."""
    p99: float


CASES: Final = (
    *(FloorCase(is_batching=False, chains=chains) for chains in (1, 64, 256)),
    *(FloorCase(is_batching=True, chains=chains) for chains in (64, 256)),
    *(
        FloorCase(is_batching=is_batching, chains=256, streams=streams, clients=clients)
        for is_batching in (False, True)
        for streams, clients in ((1, 2), (2, 1), (2, 2), (4, 1), (4, 2))
    ),
)


def measure_floors(copies: Sequence[int], delays: Sequence[float], say: Say) -> list[FloorFigures]:
    """Measure all cases for each number of copies and each disk.

    Args:
        copies: 1, or the size of a cluster.
        delays: seconds that each sync takes longer.
        say: prints progress.

    Raises:
        BenchFailed: a server or a client failed, or there is no strace.
        CommandError: there is no free port, or no nats-server.
    """
    found = []
    for count in copies:
        for delay in delays:
            say(f"floors: {count} server(s), each sync {delay * 1000:g} ms longer")
            if delay:
                found += _measure(count, delay, say, rounds=_ROUNDS, is_traced=True)
                continue
            timed = _measure(count, delay, say, rounds=_ROUNDS, is_traced=False)
            counted = _measure(count, delay, lambda _: None, rounds=1, is_traced=True)
            found += [
                msgspec.structs.replace(one, syncs=other.syncs, opens=other.opens)
                for one, other in zip(timed, counted, strict=True)
            ]
    return found


def floor_lines(found: Sequence[FloorFigures]) -> Iterator[str]:
    """The tables, if anything was measured."""
    for copies, delay in dict.fromkeys((one.copies, one.delay) for one in found):
        rows = [one for one in found if (one.copies, one.delay) == (copies, delay)]
        disk = f"each sync {delay * 1000:g} ms longer" if delay else "the disk as it is"
        yield f"\nguarded appends, R{copies} on {copies} server(s), {disk}"
        heads = ["events/s", "batch", "syncs/ev", "O_SYNC/ev", "syncs/s", "syncs/op", "p50 ms", "p99 ms"]
        heads += ["srv us/ev", "cl us/ev", "cl core", "leaders"]
        yield from table(heads, [_cells(one) for one in rows])


def _cells(one: FloorFigures) -> list[str]:
    case = one.case
    how = "batches" if case.is_batching else "one by one"
    return [
        f"{how}, {case.chains} chains, {case.streams} stream(s), {case.clients} client(s)",
        f"{one.rate:,.0f}",
        f"{one.batch:.1f}",
        f"{one.syncs:.3f}",
        f"{one.opens:.3f}",
        f"{one.syncs * one.rate:,.0f}",
        f"{one.syncs * _EVENTS_AN_OPERATION:.2f}",
        f"{one.p50:.2f}",
        f"{one.p99:.2f}",
        f"{one.servers_cpu:.0f}",
        f"{one.client_cpu:.0f}",
        f"{one.client_share:.2f}",
        f"{one.leaders}",
    ]


def _measure(copies: int, delay: float, say: Say, *, rounds: int, is_traced: bool) -> list[FloorFigures]:
    with (
        tempfile.TemporaryDirectory(prefix="opstream-bench-") as folder,
        Servers(Path(folder), copies, delay=delay, is_traced=is_traced) as servers,
    ):
        leaders = asyncio.run(_make_streams(servers.urls[0], copies))
        best: dict[FloorCase, FloorFigures] = {}
        for _ in range(rounds):
            for case in CASES:
                one = _measure_case(servers, case, copies, delay, len(set(leaders[: case.streams])))
                say(f"  {' '.join(_cells(one)[:3])} events/s and batch")
                best[case] = max(one, best.get(case, one), key=lambda figures: figures.rate)
        return list(best.values())


def _measure_case(servers: Servers, case: FloorCase, copies: int, delay: float, leaders: int) -> FloorFigures:
    before = servers.syncs()
    start = time.time() + _LEAD
    tasks = [
        Chains(
            port=servers.ports[number % len(servers.ports)],
            pids=[] if number else servers.pids,
            streams=case.streams,
            chains=case.chains // case.clients,
            is_batching=case.is_batching,
            start=start,
            warm_up=_WARM_UP,
            seconds=_SECONDS,
        )
        for number in range(case.clients)
    ]
    results = _run_clients(tasks)
    events = max(1, sum(one.events for one in results))
    after, all_events = servers.syncs(), sum(one.all_events for one in results)
    counted = SyncCounts(syncs=after.syncs - before.syncs, opens=after.opens - before.opens)
    return FloorFigures(
        copies=copies,
        delay=delay,
        case=case,
        leaders=leaders,
        rate=sum(one.events / one.seconds for one in results),
        batch=events / max(1, sum(one.commits for one in results)),
        syncs=counted.syncs / all_events,
        opens=counted.opens / all_events,
        servers_cpu=sum(one.servers_cpu for one in results) * 1e6 / events,
        client_cpu=sum(one.cpu for one in results) * 1e6 / events,
        client_share=max(one.cpu / one.seconds for one in results),
        p50=sum(one.latency.p50 for one in results) / len(results),
        p99=max(one.latency.p99 for one in results),
    )


def _run_clients(tasks: Sequence[Chains]) -> list[ChainsResult]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.scale.chains", msgspec.json.encode(task).decode()],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for task in tasks
    ]
    outputs = [process.communicate() for process in processes]
    for process, (_, error) in zip(processes, outputs, strict=True):
        if process.returncode:
            raise BenchFailed(f"a client failed:\n{error.decode(errors='replace')[-2_000:]}")
    return [msgspec.json.decode(out, type=ChainsResult) for out, _ in outputs]


async def _make_streams(url: str, copies: int) -> list[str]:
    """Make the streams like OPERATIONS, each led by another server if there are several; return the leaders."""
    model = next(one for one in streams(Sizing(replicas=copies)) if one.name == subjects.OPERATIONS_STREAM)
    async with broker_state.connected(url) as connection:
        leaders = []
        for number in range(_STREAMS):
            config = msgspec.convert(model.as_dict(), dict[str, Any])
            config |= {"name": f"F{number}", "subjects": [f"f{number}.>"], "sources": None, "allow_atomic": True}
            await admin.create_stream(connection, StreamConfig.from_response(config))
            leaders.append(await _lead(connection, f"F{number}", f"n{number % copies}") if copies > 1 else "n0")
        return leaders


async def _lead(connection: Connection, stream: str, wanted: str) -> str:
    """Have a server lead a stream; return the one that does."""
    until = time.monotonic() + _ELECTION
    while (leader := await _leader(connection, stream)) != wanted and time.monotonic() < until:
        if leader:
            place = msgspec.json.encode({"placement": {"preferred": wanted}})
            await rpc.call(connection, f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", place)
        await asyncio.sleep(0.5)
    return leader


async def _leader(connection: Connection, stream: str) -> str:
    answer = msgspec.json.decode((await rpc.call(connection, f"$JS.API.STREAM.INFO.{stream}")).data)
    return str(answer.get("cluster", {}).get("leader", ""))
