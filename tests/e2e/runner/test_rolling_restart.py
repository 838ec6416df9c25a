"""A deployment: runners are restarted one after the other while clients work, and no client notices."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import httpx
import pytest

from opstream_schemas.events import Progressed, RecordedEvent, Started
from tests.support.journal.journals import linked, opened
from tests.support.system.invariants import breaches, gather
from tests.support.system.kill_actions import write_module
from tests.support.system.services import System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

CLIENTS = 12
ROUNDS = 3
GAP = 2.0
"""Seconds between two completions; on a machine that does nothing else it is less than one."""
DONE = ("requested", "started", "succeeded")
TROUBLE = re.compile(r"^\S+ (?:ERROR|CRITICAL) |^Traceback|releas(?:ed|ing)", re.MULTILINE)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two of each service."""
    folder = tmp_path_factory.mktemp("rolling")
    with ExitStack() as stack:
        system = System(folder, stack, write_module(folder), replicas=2)
        system.begin()
        yield system


class Clients:
    """Clients that submit one operation after the other, wait for each, and note when and how it ended."""

    def __init__(self, system: System) -> None:
        self.ids: list[str] = []
        self.completed: list[float] = []
        self.statuses: set[str] = set()
        self._apis = itertools.cycle(system.apis)
        self._is_over = False

    @contextlib.asynccontextmanager
    async def working(self, count: int) -> AsyncIterator[None]:
        """Run this many clients at once; they finish what they have submitted."""
        async with httpx.AsyncClient(trust_env=False, timeout=40) as http, asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._work(http))
            yield
            self._is_over = True

    async def _work(self, http: httpx.AsyncClient) -> None:
        while not self._is_over:
            api = next(self._apis)
            answer = await http.post(f"{api}/kill:slow", json={"number": len(self.ids), "pause": 0.05})
            assert answer.status_code == 202, answer.text
            operation_id = answer.json()["id"]
            self.ids.append(operation_id)
            shown = answer.json()
            while shown["status"] in {"NotStarted", "Running"}:
                waited = await http.get(f"{api}/status/{operation_id}", headers={"Prefer": "wait=30"})
                assert waited.status_code == 200, waited.text
                shown = waited.json()
            self.completed.append(time.monotonic())
            self.statuses.add(shown["status"])

    def longest_gap(self) -> float:
        """Return the longest time without a completion, in seconds."""
        return max(later - earlier for earlier, later in itertools.pairwise(sorted(self.completed)))


def steps(history: list[RecordedEvent]) -> list[str]:
    """An operation's events, without its progress."""
    return [event.data.name for event in history if event.data and not isinstance(event.data, Progressed)]


async def restart(system: System, name: str) -> None:
    """Restart a runner as a deployment does: stop it, wait, start it, wait."""
    process = system.processes[name]
    process.send(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 20) == 0
    system.start(name)  # not in a thread: children die with the thread that started them
    await asyncio.to_thread(system.wait_ready, name)


async def test_a_rolling_restart(system: System) -> None:
    """Three rounds over two runners under load: no operation fails, no attempt is cut short, every operation ends once,
    and completions never pause for long."""
    clients = Clients(system)
    async with clients.working(CLIENTS):
        await eventually(lambda: len(clients.completed) >= CLIENTS, within=20)
        for _ in range(ROUNDS):
            for name in ("runner", "runner-2"):
                seen = len(clients.completed)
                await restart(system, name)
                await eventually(lambda: len(clients.completed) >= seen + 3 * CLIENTS, within=20)  # noqa: B023
    assert clients.statuses == {"Succeeded"}
    assert clients.longest_gap() < GAP
    async with linked(system.nats) as link:
        journal = await opened(link)
        histories = [await journal.events(one) for one in clients.ids]
    assert {tuple(steps(one)) for one in histories} == {DONE}
    starts = {event.data.runner for one in histories for event in one if isinstance(event.data, Started)}
    assert len(starts) >= 2 * ROUNDS  # each of them at work, the last ones perhaps too briefly
    assert breaches(await gather(system.nats)) == []
    assert [process.output for _, process in system.runs if TROUBLE.search(process.output)] == []
