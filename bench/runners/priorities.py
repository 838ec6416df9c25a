"""The part `priorities`: who begins how often and how soon at a saturated runner, and what priorities cost it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

import msgspec
import uuid_utils
from nats.aio.msg import Msg

from bench.harness import broker_state
from bench.harness.figures import Latency, percentiles
from bench.harness.process_usage import BenchFailed
from bench.harness.requests import make_request
from bench.harness.system import RUNNER, BenchSystem
from bench.throughput.load import BODY
from opstream_journal import NEW_OPERATION, Connection, Journal
from opstream_journal.stores.timers import queue_request
from opstream_schemas import subjects
from opstream_schemas.events import Started
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import first_event, initial
from opstream_schemas.operation.priority import PRIORITIES, Priority

ACTIONS: Final = "bench.runners.queued_actions"
QUEUED: Final = Kind("bench", "queued")
IN_ORDER: Final = Kind("bench", "in-order")
PROMPT: Final = Kind("bench", "prompt")
PLAIN: Final = Kind("bench", "plain")
SLOTS: Final = 4
FLOOD: Final = 1_500
"""Operations that wait already, of one priority."""
ARRIVALS: Final = 40
"""Operations that come while these wait."""
ARRIVAL_INTERVAL: Final = 0.05
"""Seconds between two of them."""
ROUNDS: Final = 5
"""Turns of each kind of load, one after the other, for what priorities cost."""

_IN_FLIGHT: Final = 64
_BUDGET: Final = 30.0
_PATIENCE: Final = 180.0
_NO_PRIORITY: Final = ""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """How long operations waited that came behind others."""

    behind: str
    """What waited already."""
    arrivals: str
    seconds: Latency


class PriorityFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures."""

    shares: dict[str, int]
    """By priority: of the attempts that began while all three waited."""
    gaps: dict[str, int]
    """By priority: the most attempts of others between two of it."""
    waits: list[Wait]
    rates: dict[str, list[float]]
    """By the priority of all operations ("" for an action without any): operations a second, of each round."""


class _Begins:
    """Who began, in order, as the runners say it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []
        self._more = asyncio.Event()

    async def note(self, message: Msg) -> None:
        """One message."""
        self.seen.append((message.subject.split(".")[1], time.monotonic()))
        self._more.set()

    async def wait_for(self, count: int) -> None:
        """Wait until this many have begun."""
        async with asyncio.timeout(_PATIENCE):
            while len(self.seen) < count:
                self._more.clear()
                await self._more.wait()


class _Load:
    """Requests operations, as the API does."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)

    async def start(self) -> None:
        """Open the journal."""
        await self._journal.start()

    async def request(self, kind: Kind, priority: str) -> str:
        """Request one; return its id, which begins with its priority."""
        now = datetime.now(UTC)
        data = msgspec.structs.replace(make_request(kind, BODY, now), priority=priority)
        event = first_event(f"{priority}_{_new_id()}", data, id=_new_id(), source="opstream/bench", time=now)
        recorded = await self._journal.append(kind, event, NEW_OPERATION, budget=_BUDGET)
        queue_request(self._connection, initial(recorded))
        return event.operation_id

    async def flood(self, kind: Kind, priority: str, count: int) -> None:
        """Request many at once."""
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                await self.request(kind, priority)

        async with asyncio.TaskGroup() as workers:
            for _ in range(_IN_FLIGHT):
                workers.create_task(work())
        await self._connection.nc.flush()


def measure_priorities(system: BenchSystem, say: Callable[[str], None]) -> PriorityFigures:
    """Measure on a system without a runner.

    Raises:
        BenchFailed: a process did not start, or something did not begin.
    """
    # Started once before, so that the consumers exist while the queues are filled.
    system.start_runner(RUNNER, concurrency=SLOTS, actions=ACTIONS)
    system.stop(RUNNER)
    try:
        return asyncio.run(_measure(system, say))
    except TimeoutError as error:
        raise BenchFailed("operations did not begin in time") from error


async def _measure(system: BenchSystem, say: Callable[[str], None]) -> PriorityFigures:
    async with broker_state.connected(system.nats_url) as connection:
        load = _Load(connection)
        await load.start()
        shares, gaps = await _measure_shares(system, connection, load)
        say(f"while all wait: {shares}; between two of a priority at most {gaps} others")
        waits = []
        for kind, behind, arriving in (
            (IN_ORDER, _NO_PRIORITY, _NO_PRIORITY),
            (QUEUED, Priority.NORMAL, Priority.HIGH),
            (QUEUED, Priority.LOW, Priority.NORMAL),
            (QUEUED, Priority.HIGH, Priority.LOW),
        ):
            waits.append(await _measure_wait(system, connection, load, kind, behind, arriving))
            say(f"{waits[-1].arrivals} behind {waits[-1].behind}: {waits[-1].seconds}")
        rates = await _measure_rates(system, connection, load)
        say(f"operations/s: {rates}")
        return PriorityFigures(shares=shares, gaps=gaps, waits=waits, rates=rates)


async def _measure_shares(
    system: BenchSystem, connection: Connection, load: _Load
) -> tuple[dict[str, int], dict[str, int]]:
    for priority in reversed(PRIORITIES):
        await load.flood(QUEUED, priority, FLOOD)
    # The highest has the most turns, so its queue is empty first; until shortly before, all three wait.
    counted = int(FLOOD / 0.6 * 0.95)
    async with _running(system, connection, QUEUED) as begins:
        await begins.wait_for(3 * FLOOD)
    order = [one.partition("_")[0] for one, _ in begins.seen[:counted]]
    return dict(Counter(order)), {str(one): _longest_gap(order, one) for one in PRIORITIES}


async def _measure_wait(
    system: BenchSystem, connection: Connection, load: _Load, kind: Kind, behind: str, arriving: str
) -> Wait:
    await load.flood(kind, behind, FLOOD)
    asked: dict[str, float] = {}
    async with _running(system, connection, kind) as begins:
        await begins.wait_for(SLOTS)
        for _ in range(ARRIVALS):
            at = time.monotonic()
            asked[await load.request(kind, arriving)] = at
            await asyncio.sleep(ARRIVAL_INTERVAL)
        await begins.wait_for(FLOOD + ARRIVALS)
    times = percentiles(at - asked[one] for one, at in begins.seen if one in asked)
    return Wait(behind=f"{FLOOD:,} {behind or 'others'}", arrivals=arriving or "without priorities", seconds=times)


async def _measure_rates(system: BenchSystem, connection: Connection, load: _Load) -> dict[str, list[float]]:
    sides: Sequence[tuple[Kind, str]] = ((PLAIN, _NO_PRIORITY), *((PROMPT, one) for one in PRIORITIES))
    rates: dict[str, list[float]] = {str(one): [] for _, one in sides}
    for number in range(ROUNDS):
        for kind, priority in sides if number % 2 == 0 else sides[::-1]:
            await load.flood(kind, priority, FLOOD)
            async with _running(system, connection, kind) as begins:
                await begins.wait_for(FLOOD)
            first, last = begins.seen[0][1], begins.seen[-1][1]
            rates[str(priority)].append(FLOOD / (last - first))
    return rates


@asynccontextmanager
async def _running(system: BenchSystem, connection: Connection, kind: Kind) -> AsyncIterator[_Begins]:
    """A runner, and who begins at it."""
    begins = _Begins()
    subscription = await connection.nc.subscribe(subjects.action_events_filter(kind, Started.name), cb=begins.note)
    await connection.nc.flush()
    await asyncio.to_thread(system.start_runner, RUNNER, concurrency=SLOTS, actions=ACTIONS, is_awaited=False)
    try:
        yield begins
    finally:
        await asyncio.to_thread(system.stop, RUNNER)
        await subscription.unsubscribe()


def _longest_gap(order: Sequence[str], priority: Priority) -> int:
    places = [index for index, one in enumerate(order) if one == priority]
    return max((after - before - 1 for before, after in pairwise(places)), default=len(order))


def _new_id() -> str:
    return str(uuid_utils.uuid7())
