"""Clients that submit, repeat, poll and cancel as the README says, whatever answers them or does not.

    async with Clients(system.apis, seed=7, jobs=JOBS) as clients:
        async with clients.busy(12):
            …                          # disturb everything
        # each has seen the end of what it submitted
    assert clients.problems == []

What each client does is drawn from the seed and its own number alone, so that a seed repeats it, if not its moments.
Callers: `tests/chaos`.
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

PATIENCE: Final = 90.0
"""Seconds until a client gives an operation up: many leases, restarts and a busy machine."""
_POLL: Final = 0.05
_PAUSE: Final = 0.1
_MOMENT: Final = 0.3
"""Seconds at most between what a client saw and its wish for the end."""
_ACCEPTED: Final = 202


class ClientView(msgspec.Struct):
    """What clients know of one operation."""

    job: Job
    promise: Promise
    is_accepted: bool = False
    """Answered with 202."""
    is_canceled: bool = False
    """Somebody asked for its end."""
    sent: int = 0
    """Requests under its id."""
    seen: list[dict[str, Any]] = []
    """Status monitors that differ from the one before, in order."""
    code: str = ""
    """Of the error with which it was refused for good."""


class Clients:
    """Clients of some replicas of the API; each request goes to any of them.

    Args:
        apis: base URLs.
        seed: what they do is drawn from it.
        jobs: what there is to do.
    """

    def __init__(self, apis: Sequence[str], *, seed: int, jobs: Sequence[Job]) -> None:
        self.told: dict[str, ClientView] = {}
        """By operation id."""
        self.problems: list[str] = []
        """Answers that the contract does not have."""
        self.answers: Counter[int] = Counter()
        """Answers to submits by HTTP status, 0 for none."""
        self._apis = apis
        self._seed = seed
        self._jobs = jobs
        self._numbers = itertools.count(1)
        self._is_over = asyncio.Event()
        self._http = httpx.AsyncClient(trust_env=False, timeout=10)

    @property
    def ended(self) -> int:
        """How many operations clients have seen end."""
        return sum(bool(told.seen) and told.seen[-1]["status"] in ENDED for told in self.told.values())

    @asynccontextmanager
    async def busy(self, count: int) -> AsyncIterator[None]:
        """Have clients do one operation after the other; at the end they finish what they have begun."""
        self._is_over.clear()
        async with asyncio.TaskGroup() as group:
            for number in range(1, count + 1):
                group.create_task(self._be_client(number))
            try:
                yield
            finally:
                self._is_over.set()

    async def do(self, operation_id: str, job: Job, random: Random) -> ClientView:
        """See one operation from its submit to its end."""
        told = ClientView(job, job.draw(next(self._numbers), random))
        self.told[operation_id] = told
        await self.submit(operation_id, random)
        if not told.is_accepted:
            return told
        if random.random() < 0.2:
            await self._send_again(operation_id, random)
        if random.random() < 0.1:
            await self._send_another(operation_id, random)
        if random.random() < job.cancels:
            begun = {"Running"} if job.waits_to_run else {"Running", "NotStarted"}
            moment = random.uniform(0, _MOMENT)
            await self._poll(operation_id, random, ENDED | begun)
            await asyncio.sleep(moment)
            await self._cancel(operation_id, random)
        await self._poll(operation_id, random, ENDED)
        return told

    async def submit(self, operation_id: str, random: Random) -> None:
        """Send a request until it is accepted, or refused for good."""
        told = self.told[operation_id]
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            answer = await self._post(operation_id, told.promise, random)
            if answer is None or answer.status_code == 503:
                if answer is not None and answer.json()["error"].get("operationId") != operation_id:
                    self.problems.append(f"submit of {operation_id}: {answer.status_code} {answer.text}")
                await asyncio.sleep(_PAUSE)
                continue
            if answer.status_code == _ACCEPTED:
                told.is_accepted = True
                self._check_accepted(operation_id, answer)
            else:
                told.code = _code(answer)
                if told.code not in told.job.refusals:
                    self.problems.append(f"submit of {operation_id}: {answer.status_code} {answer.text}")
            return
        self.problems.append(f"submit of {operation_id}: not answered in {PATIENCE:g} s")

    async def _be_client(self, number: int) -> None:
        random = Random(f"{self._seed} client {number}")
        weights = [job.weight for job in self._jobs]
        for count in itertools.count(1):
            if self._is_over.is_set():
                return
            (job,) = random.choices(self._jobs, weights)
            await self.do(f"chaos-{self._seed}-{number}-{count}", job, random)

    async def _send_again(self, operation_id: str, random: Random) -> None:
        told = self.told[operation_id]
        answer = await self._post(operation_id, told.promise, random)
        if answer is not None and answer.status_code != 503:
            if answer.status_code != _ACCEPTED:
                self.problems.append(f"{operation_id} sent again: {answer.status_code} {answer.text}")
            else:
                self._check_accepted(operation_id, answer)

    async def _send_another(self, operation_id: str, random: Random) -> None:
        another = Promise(f"{RESOURCE}:quick", {"number": -1})
        answer = await self._post(operation_id, another, random)
        if answer is not None and answer.status_code != 503 and _code(answer) != "OperationIdReused":
            self.problems.append(f"{operation_id} for another request: {answer.status_code} {answer.text}")

    async def _cancel(self, operation_id: str, random: Random) -> None:
        told = self.told[operation_id]
        told.is_canceled = True
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                answer = await self._http.post(
                    f"{random.choice(self._apis)}/status/{operation_id}:cancel", json={"reason": "chaos"}
                )
            except httpx.TransportError:
                await asyncio.sleep(_PAUSE)
                continue
            if answer.status_code == 200 or _code(answer) == "OperationFinished":
                return
            if answer.status_code != 503:
                self.problems.append(f"cancel of {operation_id}: {answer.status_code} {answer.text}")
                return
            await asyncio.sleep(_PAUSE)
        self.problems.append(f"cancel of {operation_id}: not answered in {PATIENCE:g} s")

    async def _poll(self, operation_id: str, random: Random, wanted: frozenset[str]) -> None:
        told = self.told[operation_id]
        until = time.monotonic() + PATIENCE
        while not told.seen or told.seen[-1]["status"] not in wanted:
            if time.monotonic() > until:
                self.problems.append(f"{operation_id}: still {told.seen[-1:]} after {PATIENCE:g} s")
                return
            try:
                answer = await self._http.get(f"{random.choice(self._apis)}/status/{operation_id}")
            except httpx.TransportError:
                await asyncio.sleep(_PAUSE)
                continue
            if answer.status_code == 200:
                monitor = answer.json()
                if not told.seen or told.seen[-1] != monitor:
                    told.seen.append(monitor)
            elif answer.status_code != 503:
                self.problems.append(f"{operation_id}: status {answer.status_code} {answer.text}")
                return
            await asyncio.sleep(_POLL)

    async def _post(self, operation_id: str, promise: Promise, random: Random) -> httpx.Response | None:
        resource, _, action = promise.kind.partition(":")
        target = f"{resource}/{promise.resource_id}:{action}" if promise.resource_id else promise.kind
        self.told[operation_id].sent += 1
        try:
            answer = await self._http.post(
                f"{random.choice(self._apis)}/{target}", json=promise.input, headers={"Operation-Id": operation_id}
            )
        except httpx.TransportError:
            self.answers[0] += 1
            return None
        self.answers[answer.status_code] += 1
        return answer

    def _check_accepted(self, operation_id: str, answer: httpx.Response) -> None:
        is_ours = answer.json()["id"] == operation_id
        if not is_ours or not answer.headers["Operation-Location"].endswith(f"/status/{operation_id}"):
            self.problems.append(f"submit of {operation_id}: {answer.headers} {answer.text}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()


def _code(answer: httpx.Response) -> str:
    code: str = answer.json().get("error", {}).get("code", "")
    return code
