"""The part `cluster`: the whole of opstream on one server and on three of one cluster, by disk.

Many clients at once, in a burst and in a closed loop, and one at a time. All servers share this machine's cores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.harness.figures import Latency, percentiles
from bench.harness.progress import Progress
from bench.harness.system import SERVICES, BenchSystem
from bench.harness.table import MIB, Rows, figure_table
from bench.scale.closed_loops import ClosedLoops, ClosedLoopsResult
from bench.scale.servers import Servers
from bench.throughput.load import Load, LoadResult

CLUSTER: Final = "cluster"

_CLIENTS: Final = 64
_WARM_UP: Final = 200
_OPERATIONS: Final = 1_000
_SAMPLES: Final = 150


class ClusterFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One disk and number of copies."""

    copies: int
    """Of each event; as many servers."""
    delay: float
    """Seconds that each sync took longer."""
    burst: float
    """Operations a second: all are submitted, and then polled."""
    closed: float
    """Operations a second: each client submits, polls, and submits the next."""
    submit: Latency
    """Milliseconds, one at a time."""
    total: Latency
    """From submit to Succeeded."""
    syncs: float
    """Of all servers, for each operation of the burst; 0 without strace."""
    cpu: dict[str, float]
    """Milliseconds an operation of the burst, by process; `broker` for all servers."""
    rss: dict[str, int]
    """Bytes, by process, at the end."""


_ROWS: Final[Rows[ClusterFigures]] = (
    ("burst, operations/s", lambda f: f.burst, "{:,.0f}"),
    ("closed loop, operations/s", lambda f: f.closed, "{:,.0f}"),
    ("alone: submit, p50 ms", lambda f: f.submit.p50, "{:.2f}"),
    ("alone: submit to Succeeded, p50 ms", lambda f: f.total.p50, "{:.2f}"),
    ("alone: submit to Succeeded, p99 ms", lambda f: f.total.p99, "{:.2f}"),
    ("burst: syncs an operation, all servers (0: not counted)", lambda f: f.syncs, "{:.2f}"),
    *((f"burst: processor time, {name}, ms/operation", lambda f, n=name: f.cpu[n], "{:.2f}") for name in SERVICES),
    ("burst: processor time, all of these, ms/operation", lambda f: sum(f.cpu.values()), "{:.2f}"),
    *((f"{name}, MiB", lambda f, n=name: f.rss[n] / MIB, "{:.0f}") for name in SERVICES),
)


def measure_cluster(copies: Sequence[int], delays: Sequence[float], progress: Progress) -> list[ClusterFigures]:
    """Measure each number of copies on each disk.

    Args:
        copies: 1, or the size of a cluster.
        delays: seconds that each sync takes longer.
        progress: shows progress.

    Raises:
        BenchFailed: a process failed, or there is no strace.
        CommandError: there is no free port, or no nats-server.
    """
    found = []
    for delay in delays:
        for count in copies:
            progress.say(f"starting {count} server(s), each sync {delay * 1000:g} ms longer, and the services")
            found.append(_measure(count, delay))
            progress.say(f"burst {found[-1].burst:,.0f}/s, closed loop {found[-1].closed:,.0f}/s")
    return found


def cluster_lines(found: Sequence[ClusterFigures]) -> Iterator[str]:
    """The table, if it was measured."""
    if found:
        yield f"\nopstream over HTTP, {_CLIENTS} clients, by copies (as many servers, all here) and delay of each sync"
        heads = [f"R{one.copies}, +{one.delay * 1000:g} ms" for one in found]
        yield from figure_table(heads, _ROWS, found)


def _measure(copies: int, delay: float) -> ClusterFigures:
    with (
        tempfile.TemporaryDirectory(prefix="opstream-bench-") as folder,
        Servers(Path(folder), copies, delay=delay) as servers,
        BenchSystem(Path(folder)) as system,
    ):
        system.use_servers(servers.urls)
        system.start_services(concurrency=_CLIENTS)

        def load(clients: int, operations: int, *, is_alone: bool = False) -> LoadResult:
            task = Load(port=system.port, clients=clients, operations=operations, is_alone=is_alone)
            return msgspec.json.decode(system.run_child("bench.throughput.load", task), type=LoadResult)

        def used() -> dict[str, float]:
            return {name: usage.cpu for name, usage in system.usage().items()} | {"broker": servers.usage().cpu}

        load(_CLIENTS, _WARM_UP)
        system.wait_for_snapshots()
        before, syncs = used(), servers.syncs().syncs
        burst = load(_CLIENTS, _OPERATIONS)
        system.wait_for_snapshots()
        after, syncs = used(), servers.syncs().syncs - syncs
        task = ClosedLoops(port=system.port, clients=_CLIENTS, operations=_OPERATIONS)
        closed = msgspec.json.decode(system.run_child("bench.scale.closed_loops", task), type=ClosedLoopsResult)
        alone = load(1, _SAMPLES, is_alone=True)
        return ClusterFigures(
            copies=copies,
            delay=delay,
            burst=burst.operations / burst.seconds,
            closed=_OPERATIONS / closed.seconds,
            submit=percentiles(alone.submits),
            total=percentiles(alone.totals),
            syncs=syncs / _OPERATIONS,
            cpu={name: (after[name] - before[name]) * 1000 / _OPERATIONS for name in SERVICES},
            rss={name: usage.rss for name, usage in system.usage().items()} | {"broker": servers.usage().rss},
        )
