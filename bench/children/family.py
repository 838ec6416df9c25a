"""Runs one parent on real processes, and reads from the journal what became of it and of each child."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

import msgspec

from bench.harness import broker_state
from bench.harness.http_client import ACCEPTED, HttpConnection
from bench.harness.process_usage import BenchFailed, peak_memory
from bench.harness.system import SERVICES, BenchSystem
from opstream_journal import Journal
from opstream_schemas.children.lineage import ChildGroup
from opstream_schemas.events import RecordedEvent, Requested, Started, Succeeded, WaitBegun

ACTIONS: Final = "bench.children.page_actions"
CONCURRENCY: Final = 16
"""Of the runner, for each action."""
_IN_FLIGHT: Final = 64
_POLL_INTERVAL: Final = 0.2
_PATIENCE: Final = 1_800.0
_ONCE: Final = [Requested.name, Started.name, Succeeded.name]


class FamilyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one parent."""

    children: int
    max_parallel: int
    """0 for any number."""
    seconds: float
    """From the parent's request to its end."""
    begun: float
    """Seconds from the parent's request to that of the last child."""
    after: float
    """Seconds from the end of the last child to that of the parent."""
    waits: int
    """How often the parent looked at its children and waited on."""
    memory: dict[str, int]
    """By process: the most bytes so far."""

    @property
    def rate(self) -> float:
        """Return the children that ended in a second, on average."""
        return self.children / self.seconds


def measure_family(
    system: BenchSystem, count: int, max_parallel: int, show: Callable[[str], None] = lambda _: None
) -> FamilyFigures:
    """Run one parent on a system with a runner of `ACTIONS`.

    Args:
        system: it runs.
        count: of children.
        max_parallel: how many of them at once; 0 for any number.
        show: is told what it does.

    Raises:
        BenchFailed: a process ended; a child ran other than once; a result is not that of its child.
        LoadFailed: the parent has not succeeded.
    """
    parent = f"family-{count}-{max_parallel}"
    return asyncio.run(_measure(system, parent, count, max_parallel, show))


async def _measure(
    system: BenchSystem, parent: str, count: int, max_parallel: int, show: Callable[[str], None]
) -> FamilyFigures:
    api = await HttpConnection.open(system.port)
    api.head += f"Operation-Id: {parent}\r\n".encode()
    show(f"{count:,} children, {max_parallel or 'all'} at once")
    body = msgspec.json.encode({"count": count, "max_parallel": max_parallel})
    await api.send(api.post("/bench:book", body), ACCEPTED)
    until = time.monotonic() + _PATIENCE
    while not await api.has_succeeded(parent):
        system.check_processes()
        if time.monotonic() > until:
            raise BenchFailed(f"{parent} has not ended after {_PATIENCE:g} s")
        await asyncio.sleep(_POLL_INTERVAL)
    api.close()
    memory = {name: peak_memory(pid) for name, pid in system.pids.items() if name in SERVICES}
    show("reads the history of each")
    async with broker_state.connected(system.nats_url) as connection:
        journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)
        await journal.start()
        own = await journal.events(parent)
        result = own[-1].data
        if not isinstance(result, Succeeded) or bytes(result.result) != str(count).encode():
            raise BenchFailed(f"{parent} has other results than its {count} children: {result}")
        asked, ended = await _histories(journal, ChildGroup(name="children", count=count).child_ids(parent))
    return FamilyFigures(
        children=count,
        max_parallel=max_parallel,
        seconds=_seconds(own[0], own[-1]),
        begun=_seconds(own[0], asked),
        after=_seconds(ended, own[-1]),
        waits=sum(isinstance(event.data, WaitBegun) for event in own),
        memory=memory,
    )


async def _histories(journal: Journal, ids: Iterator[str]) -> tuple[RecordedEvent, RecordedEvent]:
    """Return the last request and the last end of these operations, each of which has run once.

    Raises:
        BenchFailed: one has not.
    """
    asked: list[RecordedEvent] = []
    ended: list[RecordedEvent] = []

    async def work() -> None:
        for one in ids:
            events = await journal.events(one)
            names = [event.data.name for event in events if event.data is not None]
            if names != _ONCE:
                raise BenchFailed(f"the child {one} has run other than once: {', '.join(names) or 'not at all'}")
            asked.append(events[0])
            ended.append(events[-1])

    await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))
    return max(asked, key=_time), max(ended, key=_time)


def _time(event: RecordedEvent) -> datetime:
    return event.time


def _seconds(one: RecordedEvent, other: RecordedEvent) -> float:
    return (other.time - one.time).total_seconds()
