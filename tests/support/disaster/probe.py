"""Measures what a client notices: how long submits are refused, and how long an operation takes to its end.

async with Probe(system.apis, clients) as probe:
    ...  # a disaster
print(probe.outages, probe.slowest)
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Final, Self

import httpx

from tests.support.chaos.clients import Clients, ClientView
from tests.support.chaos.jobs import JOBS
from tests.support.system.invariants import ENDED, Promise

_PAUSE: Final = 0.1
_QUICK: Final = next(job for job in JOBS if job.action == "quick")
_TIMEOUT: Final = 6.0
"""Seconds for one submit; the API decides within five."""


class Probe:
    """One client that submits a quick operation ten times a second, and one that follows them to their ends.

    A submit counts as refused if each API refuses it, so that a balancer in front of them would not help.

    Args:
        apis: base URLs.
        clients: where its operations are recorded.
        prefix: of its operation ids.
    """

    def __init__(self, apis: Sequence[str], clients: Clients, prefix: str) -> None:
        self.outages: list[float] = []
        """Seconds from the first refused submit to the next one that is served."""
        self.slowest = 0.0
        """Most seconds from a 202 to the end."""
        self.longest = 0.0
        """Most seconds until a submit was answered with 202."""
        self._apis = apis
        self._clients = clients
        self._prefix = prefix
        self._accepted: dict[str, float] = {}
        self._refused_since: float | None = None
        self._http = httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_refused(self) -> bool:
        """True if the last submit was refused."""
        return self._refused_since is not None

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._submit_repeatedly()), asyncio.create_task(self._follow_repeatedly())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._refused_since is not None:
            self.outages.append(time.monotonic() - self._refused_since)
        await self._http.aclose()

    async def _submit_repeatedly(self) -> None:
        for number in itertools.count(1):
            begin = time.monotonic()
            if await self._submit(f"{self._prefix}-{number}", number):
                self.longest = max(self.longest, time.monotonic() - begin)
                if self._refused_since is not None:
                    self.outages.append(time.monotonic() - self._refused_since)
                    self._refused_since = None
            elif self._refused_since is None:
                self._refused_since = begin
            await asyncio.sleep(_PAUSE)

    async def _submit(self, operation_id: str, number: int) -> bool:
        view = ClientView(_QUICK, Promise("chaos:quick", {"number": number}))
        self._clients.told[operation_id] = view
        first = number % len(self._apis)
        for api in (*self._apis[first:], *self._apis[:first]):
            view.sent += 1
            try:
                response = await self._http.post(
                    f"{api}/chaos:quick", json=view.promise.input, headers={"Operation-Id": operation_id}
                )
            except httpx.TransportError:
                continue
            if response.status_code == 202:
                view.is_accepted = True
                self._accepted[operation_id] = time.monotonic()
                return True
            if response.status_code != 503:
                self._clients.problems.append(f"submit of {operation_id}: {response.status_code} {response.text}")
        return False

    async def _follow_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            if not self._accepted:
                continue
            operation_id, since = self._accepted.popitem()
            self._accepted.clear()
            while not await self._has_ended(operation_id):
                self.slowest = max(self.slowest, time.monotonic() - since)
                await asyncio.sleep(_PAUSE)
            self.slowest = max(self.slowest, time.monotonic() - since)

    async def _has_ended(self, operation_id: str) -> bool:
        view = self._clients.told[operation_id]
        for api in self._apis:
            try:
                response = await self._http.get(f"{api}/status/{operation_id}")
            except httpx.TransportError:
                continue
            if response.status_code == 200:
                self._clients.polls += 1
                monitor = response.json()
                if not view.seen or view.seen[-1] != monitor:
                    view.seen.append(monitor)
                return monitor["status"] in ENDED
        return False
