"""Clients that submit, repeat, poll and cancel as the README says, during all disturbances.

    async with Clients(system.apis, seed=7, jobs=JOBS) as clients:
        async with clients.busy(12):
            …                          # disturb everything
        # each has seen its operations end
    assert clients.problems == []

What a client does depends only on the seed and its number, so a seed repeats it, but not its timing.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, Self

import httpx
import msgspec

from tests.support.chaos.jobs import RESOURCE, Job
from tests.support.system.invariants import ENDED, Promise

PATIENCE: Final = 180.0
"""Seconds without an answer, or with a status that does not change, until a client gives up on an operation: many
leases, restarts and a busy machine."""
_POLL: Final = 0.05
_PAUSE: Final = 0.1
_MOMENT: Final = 0.3
"""Maximum seconds between a status and the client's cancel request."""
_ACCEPTED: Final = 202
_SENT: Final = "Tue, 24 Nov 2026 08:00:00 GMT"


class ClientView(msgspec.Struct):
    """A client's record of one operation."""

    job: Job
    promise: Promise
    is_accepted: bool = False
    """True after a 202."""
    is_canceled: bool = False
    """True after a cancel request."""
    sent: int = 0
    """Number of submits with its id."""
    seen: list[dict[str, Any]] = []
    """Statuses that differ from the one before, in order."""
    code: str = ""
    """The code of the final error response."""


class Clients:
    """Clients of some replicas of the API; each request goes to any of them.

    Args:
        apis: base URLs.
        seed: decides what they do.
        jobs: what they may do.
        patience: seconds without an answer, or with an unchanged status, until a client gives up on an operation.
    """

    def __init__(self, apis: Sequence[str], *, seed: int, jobs: Sequence[Job], patience: float = PATIENCE) -> None:
        self.told: dict[str, ClientView] = {}
        """By operation id."""
        self.problems: list[str] = []
        """Responses that the contract does not allow."""
        self.answers: Counter[int] = Counter()
        """Number of responses to submits by HTTP status; 0 means none."""
        self.polls = 0
        """Number of statuses that clients got."""
        self._apis = apis
        self._seed = seed
        self._jobs = jobs
        self._patience = patience
        self._numbers = itertools.count(1)
        self._is_over = asyncio.Event()
        self._http = httpx.AsyncClient(trust_env=False, timeout=10)

    @property
    def ended(self) -> int:
        """Number of operations that clients have seen end."""
        return sum(bool(view.seen) and view.seen[-1]["status"] in ENDED for view in self.told.values())

    @asynccontextmanager
    async def busy(self, count: int) -> AsyncIterator[None]:
        """Run clients, each with one operation after another; at the end they finish their last ones."""
        self._is_over.clear()
        async with asyncio.TaskGroup() as group:
            for number in range(1, count + 1):
                group.create_task(self._be_client(number))
            try:
                yield
            finally:
                self._is_over.set()

    async def do(self, operation_id: str, job: Job, random: Random) -> ClientView:
        """Follow one operation from its submit to its end."""
        view = ClientView(job, job.draw(next(self._numbers), random))
        self.told[operation_id] = view
        await self.submit(operation_id, random)
        if not view.is_accepted:
            return view
        if random.random() < 0.2:
            await self._send_again(operation_id, random)
        if random.random() < 0.1:
            await self._send_another(operation_id, random)
        for number in range(1, job.signals + 1):
            await self._signal(operation_id, number, random)
        if random.random() < job.cancels:
            begun = {"Running"} if job.waits_to_run else {"Running", "NotStarted"}
            moment = random.uniform(0, _MOMENT)
            await self._poll(operation_id, random, ENDED | begun)
            await asyncio.sleep(moment)
            await self.cancel(operation_id, random)
        await self._poll(operation_id, random, ENDED)
        return view

    async def submit(self, operation_id: str, random: Random) -> None:
        """Send a request until it is accepted or finally refused."""
        view = self.told[operation_id]
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            response = await self._post(operation_id, view.promise, random)
            if response is None or response.status_code == 503:
                if response is not None and response.json()["error"].get("operationId") != operation_id:
                    self.problems.append(f"submit of {operation_id}: {response.status_code} {response.text}")
                await asyncio.sleep(_PAUSE)
                continue
            if response.status_code == _ACCEPTED:
                view.is_accepted = True
                self._check_accepted(operation_id, response)
            else:
                view.code = _code(response)
                if view.code not in view.job.refusals:
                    self.problems.append(f"submit of {operation_id}: {response.status_code} {response.text}")
            return
        self.problems.append(f"submit of {operation_id}: not answered in {self._patience:g} s")

    async def _signal(self, operation_id: str, number: int, random: Random) -> None:
        """Send a signal until there is an answer, mostly before it is waited for; each repetition is the same one."""
        headers = {"Repeatability-Request-ID": f"{operation_id}-{number}", "Repeatability-First-Sent": _SENT}
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            try:
                response = await self._http.post(
                    f"{random.choice(self._apis)}/status/{operation_id}:signal/answer-{number}",
                    json=number * 10,
                    headers=headers,
                )
            except httpx.TransportError:
                await asyncio.sleep(_PAUSE)
                continue
            if response.status_code == 200:
                return
            if response.status_code != 503:
                self.problems.append(f"signal {number} of {operation_id}: {response.status_code} {response.text}")
                return
            await asyncio.sleep(_PAUSE)
        self.problems.append(f"signal {number} of {operation_id}: not answered in {self._patience:g} s")

    async def cancel(self, operation_id: str, random: Random) -> None:
        """Ask for a cancel until there is an answer."""
        view = self.told[operation_id]
        view.is_canceled = True
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            try:
                response = await self._http.post(
                    f"{random.choice(self._apis)}/status/{operation_id}:cancel", json={"reason": "chaos"}
                )
            except httpx.TransportError:
                await asyncio.sleep(_PAUSE)
                continue
            if response.status_code == 200 or _code(response) == "OperationFinished":
                return
            if response.status_code != 503:
                self.problems.append(f"cancel of {operation_id}: {response.status_code} {response.text}")
                return
            await asyncio.sleep(_PAUSE)
        self.problems.append(f"cancel of {operation_id}: not answered in {self._patience:g} s")

    async def _be_client(self, number: int) -> None:
        random = Random(f"{self._seed} client {number}")
        weights = [job.weight for job in self._jobs]
        for count in itertools.count(1):
            if self._is_over.is_set():
                return
            (job,) = random.choices(self._jobs, weights)
            await self.do(f"chaos-{self._seed}-{number}-{count}", job, random)

    async def _send_again(self, operation_id: str, random: Random) -> None:
        view = self.told[operation_id]
        response = await self._post(operation_id, view.promise, random)
        if response is not None and response.status_code != 503:
            if response.status_code != _ACCEPTED:
                self.problems.append(f"{operation_id} sent again: {response.status_code} {response.text}")
            else:
                self._check_accepted(operation_id, response)

    async def _send_another(self, operation_id: str, random: Random) -> None:
        another = Promise(f"{RESOURCE}:quick", {"number": -1})
        response = await self._post(operation_id, another, random)
        if response is not None and response.status_code != 503 and _code(response) != "OperationIdReused":
            self.problems.append(f"{operation_id} for another request: {response.status_code} {response.text}")

    async def _poll(self, operation_id: str, random: Random, wanted: frozenset[str]) -> None:
        view = self.told[operation_id]
        until = time.monotonic() + self._patience
        while not view.seen or view.seen[-1]["status"] not in wanted:
            if time.monotonic() > until:
                self.problems.append(f"{operation_id}: still {view.seen[-1:]}, unchanged for {self._patience:g} s")
                return
            try:
                response = await self._http.get(f"{random.choice(self._apis)}/status/{operation_id}")
            except httpx.TransportError:
                await asyncio.sleep(_PAUSE)
                continue
            if response.status_code == 200:
                self.polls += 1
                monitor = response.json()
                if not view.seen or view.seen[-1] != monitor:
                    view.seen.append(monitor)
                    # An attempt that is killed each time before it ends is bad luck, and what is stuck changes nothing.
                    until = time.monotonic() + self._patience
            elif response.status_code != 503:
                self.problems.append(f"{operation_id}: status {response.status_code} {response.text}")
                return
            await asyncio.sleep(_POLL)

    async def _post(self, operation_id: str, promise: Promise, random: Random) -> httpx.Response | None:
        resource, _, action = promise.kind.partition(":")
        target = f"{resource}/{promise.resource_id}:{action}" if promise.resource_id else promise.kind
        view = self.told[operation_id]
        view.sent += 1
        headers = {"Operation-Id": operation_id}
        priorities = view.job.priorities if promise.kind == view.promise.kind else ()
        if priorities:  # the same each time that it is sent
            headers["Operation-Priority"] = priorities[promise.input["number"] % len(priorities)]
        try:
            response = await self._http.post(
                f"{random.choice(self._apis)}/{target}", json=promise.input, headers=headers
            )
        except httpx.TransportError:
            self.answers[0] += 1
            return None
        self.answers[response.status_code] += 1
        return response

    def _check_accepted(self, operation_id: str, response: httpx.Response) -> None:
        is_ours = response.json()["id"] == operation_id
        if not is_ours or not response.headers["Operation-Location"].endswith(f"/status/{operation_id}"):
            self.problems.append(f"submit of {operation_id}: {response.headers} {response.text}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()


def _code(response: httpx.Response) -> str:
    code: str = response.json().get("error", {}).get("code", "")
    return code
