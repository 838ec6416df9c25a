"""The part `recovery`: how long operations stand still whose runner was killed. Called by `runners.py`.

A lease begins anew with each heartbeat, three times in its length, so what is left of it at the kill differs from
operation to operation. The heartbeats are heard on their way to the broker: what comes after the lease is then known
for each operation, and that is opstream's (and the broker's) own part.
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

from bench import journal, wire
from bench.figures import Latency, percentiles
from bench.held import is_running
from bench.load import BODY
from bench.lost_actions import LEASES
from bench.system import RUNNER, BenchSystem
from bench.usage import BenchFailed
from opstream_journal import Journal
from opstream_runner.attempt.attempt import HEARTBEATS_PER_LEASE
from opstream_schemas import subjects
from opstream_schemas.events import EventData, RecordedEvent, Started, Succeeded
from opstream_schemas.names import Kind

ACTIONS: Final = "bench.lost_actions"

_POLL_PAUSE: Final = 0.05
_LIMIT: Final = 60.0
_STILL_ALIVE: Final = b"+WPI"
_SEQUENCE: Final = -4
"""Place of the stream sequence in the subject of an acknowledgement, from the end (NATS ADR-15)."""


class LostOperation(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one operation. Seconds since the epoch."""

    seen: float
    """Its first runner's last sign of life."""
    started: float
    """Its next attempt's `started`, which is set just before it is stored."""
    ended: float


class RecoveryFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How it went, for one lease."""

    lease: float
    """Seconds; the consumer's ack_wait."""
    operations: int
    """That ran on the runner which was killed."""
    next: Latency
    """From the kill to the next attempt."""
    left: Latency
    """From the kill until the lease has run out: what was left of it."""
    late: Latency
    """From then to the next attempt."""
    share: float
    """That the lease has in the time to the next attempt."""
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
    """Kill a runner for each lease; the one that took over is the next to be killed.

    Args:
        system: without a runner.
        operations: that run there then.

    Raises:
        BenchFailed: something did not start, or an operation was not lost, or did not recover.
        wire.LoadFailed: the API answered wrongly.
    """
    found = []
    system.start_runner(_name(0), concurrency=operations, actions=ACTIONS)
    for number, lease in enumerate(LEASES):
        kind = Kind("bench", f"lease-{lease:g}")
        # Heartbeats as unlike as those of operations that began at any time.
        operation_ids = asyncio.run(_begin(system.port, kind, operations, lease / HEARTBEATS_PER_LEASE))
        system.start_runner(_name(number + 1), concurrency=operations, actions=ACTIONS)
        found.append(asyncio.run(_kill_runner(system, _name(number), kind, lease, operation_ids)))
    system.stop(_name(len(LEASES)))
    return found


def _name(number: int) -> str:
    return f"{RUNNER}-{number}"


async def _begin(port: int, kind: Kind, count: int, seconds: float) -> list[str]:
    connection = await wire.HttpConnection.open(port)
    request = connection.post(f"/{kind.resource}/42:{kind.action}", BODY)
    operation_ids = []
    due = time.perf_counter()
    for _ in range(count):
        operation_ids.append(wire.decode_monitor(await connection.send(request, wire.ACCEPTED)).id)
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

    async with journal.connected(system.nats_url) as link:
        consumer = subjects.runner_consumer(kind)
        await link.nc.subscribe(f"$JS.ACK.{subjects.OPERATIONS_STREAM}.{consumer}.>", cb=note_sign)
        await link.nc.subscribe(subjects.action_events_filter(kind, Succeeded.name), cb=note_end)
        await asyncio.sleep(lease)  # each has given a sign by then
        killed = system.kill(victim)
        try:
            async with asyncio.timeout(_LIMIT):
                await is_over.wait()
        except TimeoutError:
            raise BenchFailed(f"{len(left)} operations had not recovered after {_LIMIT:g} s") from None
        system.check_processes()
        reads = Journal(link, max_msg_size=-1, clock=time.monotonic)
        await reads.start()
        return recovery_figures(
            lease, killed, [_lost_operation(await reads.events(one), signs) for one in operation_ids]
        )


def _lost_operation(events: Sequence[RecordedEvent], signs: Mapping[int, list[float]]) -> LostOperation:
    requested = events[0]
    starts, ends = _times(events, Started), _times(events, Succeeded)
    if len(starts) != 2 or len(ends) != 1:
        raise BenchFailed(
            f"operation {requested.operation_id} should have been lost once and then have succeeded, but there are "
            f"{', '.join(one.type for one in events)}"
        )
    seen = [at for at in signs.get(requested.sequence, []) if at < starts[1]]  # the second attempt may give some, too
    if not seen:
        raise BenchFailed(f"operation {requested.operation_id} gave no sign of life before it was lost")
    return LostOperation(seen=seen[-1], started=starts[1], ended=ends[0])


def _times(events: Sequence[RecordedEvent], data: type[EventData]) -> list[float]:
    return [one.time.timestamp() for one in events if isinstance(one.data, data)]
