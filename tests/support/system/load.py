"""Clients that do what the README tells clients to do, while things are killed around them. Callers: `tests/e2e`.

    async with Load(system.apis, Random(7)) as load:
        async with load.clients(8, ["quick", "slow"]):
            system.kill("runner")
        …                       # they have polled what they submitted to its end
        assert load.problems == []

What they were promised and what they saw is kept, for `tests/support/system/invariants.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, Self

import httpx

from tests.support.system.invariants import ENDED, Evidence, Promise

RESOURCE: Final = "kill"
_PATIENCE: Final = 45.0
"""Seconds until a client gives an operation up: several leases, restarts and a busy machine."""
_POLL: Final = 0.05
_PAUSE: Final = 0.1


class Load:
    """Clients of some replicas of the API; each request goes to any of them.

    Args:
        apis: base URLs.
        random: draws what clients do.
    """

    def __init__(self, apis: Sequence[str], random: Random) -> None:
        self.promised: dict[str, Promise] = {}
        self.polled: dict[str, list[dict[str, Any]]] = {}
        self.problems: list[str] = []
        """Answers that the contract does not have."""
        self.unavailable = 0
        """Answers 503 to submits."""
        self._apis = apis
        self._random = random
        self._numbers = itertools.count(1)
        self._is_over = asyncio.Event()
        self._http = httpx.AsyncClient(trust_env=False, timeout=10)

    @property
    def ended(self) -> int:
        """How many operations clients have seen end."""
        return sum(bool(seen) and seen[-1]["status"] in ENDED for seen in self.polled.values())

    def testify(self, evidence: Evidence) -> Evidence:
        """Add what clients know."""
        evidence.promised |= self.promised
        evidence.polled |= self.polled
        return evidence

    @asynccontextmanager
    async def clients(self, count: int, actions: Sequence[str], *, pause: float = 0.1) -> AsyncIterator[None]:
        """Have clients submit and poll, one operation after the other; at the end they finish what they have begun."""
        self._is_over.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._be_client(actions, pause))
            try:
                yield
            finally:
                self._is_over.set()

    async def submit(self, action: str, operation_id: str = "", *, pause: float = 0.0) -> str:
        """Submit one operation, again and again until it is accepted; its id, empty for one of unknown fate."""
        promise = Promise(f"{RESOURCE}:{action}", {"number": next(self._numbers), "pause": pause})
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            try:
                answer = await self._post(promise, operation_id)
            except httpx.TransportError:
                if not operation_id:
                    return ""  # it may be stored or not, under an id that nobody told
                await asyncio.sleep(_PAUSE)
                continue
            if answer.status_code != 503:
                return self._accepted(promise, answer, operation_id)
            operation_id = self._refused(answer, operation_id)
            await asyncio.sleep(_PAUSE)
        self.problems.append(f"submit of {operation_id!r}: not accepted in {_PATIENCE:g} s")
        return ""

    async def poll(self, *operation_ids: str) -> None:
        """Poll operations to their ends, each by a client of its own."""
        await asyncio.gather(*map(self._poll, operation_ids))

    async def reach(self, operation_id: str, status: str) -> None:
        """Poll until an operation has a status, or has ended."""
        await self._poll(operation_id, ENDED | {status})

    async def send_again(self, operation_id: str) -> None:
        """Send a request again as it was: it has to be accepted as the same operation, or not at all."""
        answer = await self._send(self.promised[operation_id], operation_id)
        if answer is not None and (answer.status_code != 202 or answer.json()["id"] != operation_id):
            self.problems.append(f"{operation_id} sent again: {answer.status_code} {answer.text}")

    async def send_another(self, operation_id: str) -> None:
        """Send another request under the same id: it has to be refused."""
        another = Promise(f"{RESOURCE}:quick", {"number": -1})
        answer = await self._send(another, operation_id)
        if answer is not None and (answer.status_code, _code(answer)) != (400, "OperationIdReused"):
            self.problems.append(f"{operation_id} for another request: {answer.status_code} {answer.text}")

    async def _be_client(self, actions: Sequence[str], pause: float) -> None:
        while not self._is_over.is_set():
            own_id = f"own-{uuid.uuid4()}" if self._random.random() < 0.7 else ""
            steps = self._random.uniform(0, 2 * pause)
            operation_id = await self.submit(self._random.choice(actions), own_id, pause=steps)
            if not operation_id:
                continue
            if self._random.random() < 0.2:
                await self.send_again(operation_id)
            if self._random.random() < 0.2:
                await self.send_another(operation_id)
            await self._poll(operation_id)

    async def _poll(self, operation_id: str, wanted: frozenset[str] = ENDED) -> None:
        seen = self.polled.setdefault(operation_id, [])
        until = time.monotonic() + _PATIENCE
        while not seen or seen[-1]["status"] not in wanted:
            if time.monotonic() > until:
                self.problems.append(f"{operation_id}: still {seen[-1:]} after {_PATIENCE:g} s")
                return
            try:
                answer = await self._http.get(f"{self._random.choice(self._apis)}/status/{operation_id}")
            except httpx.TransportError:
                await asyncio.sleep(_PAUSE)
                continue
            if answer.status_code == 200:
                seen.append(answer.json())
            elif answer.status_code != 503:
                self.problems.append(f"{operation_id}: status {answer.status_code} {answer.text}")
                return
            await asyncio.sleep(_POLL)

    async def _send(self, promise: Promise, operation_id: str) -> httpx.Response | None:
        try:
            answer = await self._post(promise, operation_id)
        except httpx.TransportError:
            return None
        return None if answer.status_code == 503 else answer

    async def _post(self, promise: Promise, operation_id: str) -> httpx.Response:
        headers = {"Operation-Id": operation_id} if operation_id else {}
        url = f"{self._random.choice(self._apis)}/{promise.kind}"
        return await self._http.post(url, json=promise.input, headers=headers)

    def _accepted(self, promise: Promise, answer: httpx.Response, operation_id: str) -> str:
        if answer.status_code != 202:
            self.problems.append(f"submit of {promise}: {answer.status_code} {answer.text}")
            return ""
        given: str = answer.json()["id"]
        if (operation_id and given != operation_id) or not answer.headers["Operation-Location"].endswith(given):
            self.problems.append(f"submit under {operation_id!r}: {answer.headers} {answer.text}")
        self.promised[given] = promise
        return given

    def _refused(self, answer: httpx.Response, operation_id: str) -> str:
        self.unavailable += 1
        named: str = answer.json()["error"].get("operationId", "")
        if not named or (operation_id and named != operation_id) or "Retry-After" not in answer.headers:
            self.problems.append(f"submit under {operation_id!r}: {answer.headers} {answer.text}")
        return named

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()


def _code(answer: httpx.Response) -> str:
    code: str = answer.json().get("error", {}).get("code", "")
    return code
