"""The part `recovery`: how long operations wait after their runner was killed.

A lease restarts with each heartbeat, three times in its length, so the rest of it at the kill differs from operation to
operation. The benchmark listens to the heartbeats, so it knows when each lease ends; the time after that is opstream's
and the broker's own part.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from nats.aio.msg import Msg

from bench.harness import broker_state, http_client
from bench.harness.figures import Latency, percentiles
from bench.harness.process_usage import BenchFailed
from bench.harness.system import RUNNER, BenchSystem
from bench.reading.held_operations import is_running
from bench.runners.lost_actions import LEASES
from bench.throughput.load import BODY
from opstream_journal import Journal
from opstream_runner.attempt.attempt import HEARTBEATS_PER_LEASE
from opstream_schemas import subjects
from opstream_schemas.events import EventData, RecordedEvent, Started, Succeeded
from opstream_schemas.names import Kind

ACTIONS: Final = "bench.runners.lost_actions"

_POLL_PAUSE: Final = 0.05
_LIMIT: Final = 60.0
_STILL_ALIVE: Final = b"+WPI"
_SEQUENCE: Final = -4
"""Place of the stream sequence in the subject of an acknowledgement, from the end (NATS ADR-15)."""


class LostOperation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation that lost its runner. Seconds since the epoch."""

    seen: float
    """Its first runner's last sign of life."""
    started: float
    """The time in its next attempt's `started`, set just before that is stored."""
    ended: float


class RecoveryFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures for one lease."""

    lease: float
    """Seconds; the consumer's ack_wait."""
    operations: int
    """Operations that ran on the killed runner."""
    next: Latency
    """From the kill to the next attempt."""
    left: Latency
    """From the kill to the end of the lease."""
    late: Latency
    """From the end of the lease to the next attempt."""
    share: float
    """Share of the lease in the time to the next attempt."""
    span: float
    """Seconds from the first next attempt to the last."""
    ended: float
    """Seconds from the kill until all operations had ended."""


def recovery_figures(lease: float, killed: float, lost: Sequence[LostOperation]) -> RecoveryFigures:
    """The figures of operations whose runner was killed.

    Args:
        lease: seconds.
        killed: seconds since the epoch.
        lost: the operations.
    """
    started = [one.started - killed for one in lost]
    left = [one.seen + lease - killed for one in lost]
    return RecoveryFigures(
        lease=lease,
        operations=len(lost),
        next=percentiles(started),
        left=percentiles(left),
        late=percentiles(at - end for at, end in zip(started, left, strict=True)),
        share=statistics.fmean(left) / statistics.fmean(started),
        span=max(started) - min(started),
        ended=max(one.ended for one in lost) - killed,
    )


def measure_recovery(system: BenchSystem, operations: int) -> list[RecoveryFigures]:
    """Kill a runner for each lease; the one that took over is killed next.

    Args:
        system: without a runner.
        operations: number of operations that it runs.

    Raises:
        BenchFailed: something did not start, or an operation was not lost, or did not recover.
        http_client.LoadFailed: the API answered wrongly.
    """
    found = []
    system.start_runner(_name(0), concurrency=operations, actions=ACTIONS)
    for number, lease in enumerate(LEASES):
        kind = Kind("bench", f"lease-{lease:g}")
        # Submit over a heartbeat's interval, so that the heartbeats are spread over it.
        operation_ids = asyncio.run(_begin(system.port, kind, operations, lease / HEARTBEATS_PER_LEASE))
        system.start_runner(_name(number + 1), concurrency=operations, actions=ACTIONS)
        found.append(asyncio.run(_kill_runner(system, _name(number), kind, lease, operation_ids)))
    system.stop(_name(len(LEASES)))
    return found


def _name(number: int) -> str:
    return f"{RUNNER}-{number}"


async def _begin(port: int, kind: Kind, count: int, seconds: float) -> list[str]:
    connection = await http_client.HttpConnection.open(port)
    request = connection.post(f"/{kind.resource}/42:{kind.action}", BODY)
    operation_ids = []
    due = time.perf_counter()
    for _ in range(count):
        operation_ids.append(http_client.decode_monitor(await connection.send(request, http_client.ACCEPTED)).id)
        due += seconds / count
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    for operation_id in operation_ids:
        while not await is_running(connection, operation_id):  # noqa: ASYNC110 - HTTP has no event to wait for
            await asyncio.sleep(_POLL_PAUSE)
    connection.close()
    return operation_ids


async def _kill_runner(
    system: BenchSystem, victim: str, kind: Kind, lease: float, operation_ids: list[str]
) -> RecoveryFigures:
    signs: dict[int, list[float]] = defaultdict(list)
    left = set(operation_ids)
    is_over = asyncio.Event()

    async def note_sign(message: Msg) -> None:
        if message.data == _STILL_ALIVE:
            signs[int(message.subject.split(".")[_SEQUENCE])].append(time.time())

    async def note_end(message: Msg) -> None:
        left.discard(subjects.parse_event_subject(message.subject).operation_id)
        if not left:
            is_over.set()

    async with broker_state.connected(system.nats_url) as connection:
        consumer = subjects.runner_consumer(kind)
        await connection.nc.subscribe(f"$JS.ACK.{subjects.OPERATIONS_STREAM}.{consumer}.>", cb=note_sign)
        await connection.nc.subscribe(subjects.action_events_filter(kind, Succeeded.name), cb=note_end)
        await asyncio.sleep(lease)  # each operation has sent a heartbeat by then
        killed = system.kill(victim)
        try:
            async with asyncio.timeout(_LIMIT):
                await is_over.wait()
        except TimeoutError:
            raise BenchFailed(f"{len(left)} operations had not recovered after {_LIMIT:g} s") from None
        system.check_processes()
        reads = Journal(connection, max_msg_size=-1, clock=time.monotonic)
        await reads.start()
        return recovery_figures(
            lease, killed, [_lost_operation(await reads.events(one), signs) for one in operation_ids]
        )


def _lost_operation(events: Sequence[RecordedEvent], signs: Mapping[int, list[float]]) -> LostOperation:
    requested = events[0]
    starts, ends = _times(events, Started), _times(events, Succeeded)
    if len(starts) != 2 or len(ends) != 1:
        raise BenchFailed(
            f"operation {requested.operation_id} should have lost its runner once and then have succeeded, but its "
            f"events are {', '.join(one.type for one in events)}"
        )
    seen = [at for at in signs.get(requested.sequence, []) if at < starts[1]]  # the second attempt may send some, too
    if not seen:
        raise BenchFailed(f"operation {requested.operation_id} sent no heartbeat before its runner was killed")
    return LostOperation(seen=seen[-1], started=starts[1], ended=ends[0])


def _times(events: Sequence[RecordedEvent], data: type[EventData]) -> list[float]:
    return [one.time.timestamp() for one in events if isinstance(one.data, data)]
