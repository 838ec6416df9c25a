"""Clients that submit and poll as the README says, while a test kills processes.

    async with Load(system.apis, Random(7)) as load:
        async with load.clients(8, ["quick", "slow"]):
            system.kill("runner")
        …                       # they have polled their operations to the end
        assert load.problems == []

They record accepted requests and the statuses that they saw, for `tests/support/system/invariants.py`.
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
"""Seconds until a client gives up on an operation: several leases, restarts and a busy machine."""
_POLL: Final = 0.05
_PAUSE: Final = 0.1


class Load:
    """Clients of some replicas of the API; each request goes to any of them.

    Args:
        apis: base URLs.
        random: decides what clients do.
    """

    def __init__(self, apis: Sequence[str], random: Random) -> None:
        self.promised: dict[str, Promise] = {}
        self.polled: dict[str, list[dict[str, Any]]] = {}
        self.problems: list[str] = []
        """Responses that the contract does not allow."""
        self.unavailable = 0
        """Number of responses 503 to submits."""
        self._apis = apis
        self._random = random
        self._numbers = itertools.count(1)
        self._is_over = asyncio.Event()
        self._http = httpx.AsyncClient(trust_env=False, timeout=10)

    @property
    def ended(self) -> int:
        """Number of operations that clients have seen end."""
        return sum(bool(seen) and seen[-1]["status"] in ENDED for seen in self.polled.values())

    @property
    def headers(self) -> dict[str, str]:
        """With the API key of the clients, if they have one."""
        return {"Authorization": self._http.headers["Authorization"]} if "Authorization" in self._http.headers else {}

    def use_key(self, key: str) -> None:
        """Send an API key with each request from now on."""
        self._http.headers["Authorization"] = f"Bearer {key}"

    def testify(self, evidence: Evidence) -> Evidence:
        """Add the clients' records to the evidence, under the ids by which operations are stored."""
        stored = evidence.stored_ids()
        evidence.promised |= {stored.get(one, one): promise for one, promise in self.promised.items()}
        evidence.polled |= {stored.get(one, one): seen for one, seen in self.polled.items()}
        return evidence

    @asynccontextmanager
    async def clients(self, count: int, actions: Sequence[str], *, pause: float = 0.1) -> AsyncIterator[None]:
        """Run clients that submit and poll, one operation after another; at the end they finish their last ones."""
        self._is_over.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._be_client(actions, pause))
            try:
                yield
            finally:
                self._is_over.set()

    async def submit(self, action: str, operation_id: str = "", *, pause: float = 0.0) -> str:
        """Submit one operation until it is accepted; return its id, empty if it may or may not be stored."""
        promise = Promise(f"{RESOURCE}:{action}", {"number": next(self._numbers), "pause": pause})
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            try:
                response = await self._post(promise, operation_id)
            except httpx.TransportError:
                if not operation_id:
                    return ""  # it may be stored or not, under an unknown id
                await asyncio.sleep(_PAUSE)
                continue
            if response.status_code != 503:
                return self._accepted(promise, response, operation_id)
            operation_id = self._refused(response, operation_id)
            await asyncio.sleep(_PAUSE)
        self.problems.append(f"submit of {operation_id!r}: not accepted in {_PATIENCE:g} s")
        return ""

    async def poll(self, *operation_ids: str) -> None:
        """Poll operations to their ends at the same time."""
        await asyncio.gather(*map(self._poll, operation_ids))

    async def reach(self, operation_id: str, status: str) -> None:
        """Poll until an operation has a status, or has ended."""
        await self._poll(operation_id, ENDED | {status})

    async def send_again(self, operation_id: str) -> None:
        """Send the same request again: it must be accepted as the same operation, or not at all."""
        response = await self._send(self.promised[operation_id], operation_id)
        if response is not None and (response.status_code != 202 or response.json()["id"] != operation_id):
            self.problems.append(f"{operation_id} sent again: {response.status_code} {response.text}")

    async def send_another(self, operation_id: str) -> None:
        """Send another request with the same id: it must be refused."""
        another = Promise(f"{RESOURCE}:quick", {"number": -1})
        response = await self._send(another, operation_id)
        if response is not None and (response.status_code, _code(response)) != (400, "OperationIdReused"):
            self.problems.append(f"{operation_id} for another request: {response.status_code} {response.text}")

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
                response = await self._http.get(f"{self._random.choice(self._apis)}/status/{operation_id}")
            except httpx.TransportError:
                await asyncio.sleep(_PAUSE)
                continue
            if response.status_code == 200:
                seen.append(response.json())
            elif response.status_code != 503:
                self.problems.append(f"{operation_id}: status {response.status_code} {response.text}")
                return
            await asyncio.sleep(_POLL)

    async def _send(self, promise: Promise, operation_id: str) -> httpx.Response | None:
        try:
            response = await self._post(promise, operation_id)
        except httpx.TransportError:
            return None
        return None if response.status_code == 503 else response

    async def _post(self, promise: Promise, operation_id: str) -> httpx.Response:
        headers = {"Operation-Id": operation_id} if operation_id else {}
        url = f"{self._random.choice(self._apis)}/{promise.kind}"
        return await self._http.post(url, json=promise.input, headers=headers)

    def _accepted(self, promise: Promise, response: httpx.Response, operation_id: str) -> str:
        if response.status_code != 202:
            self.problems.append(f"submit of {promise}: {response.status_code} {response.text}")
            return ""
        given: str = response.json()["id"]
        if (operation_id and given != operation_id) or not response.headers["Operation-Location"].endswith(given):
            self.problems.append(f"submit under {operation_id!r}: {response.headers} {response.text}")
        self.promised[given] = promise
        return given

    def _refused(self, response: httpx.Response, operation_id: str) -> str:
        self.unavailable += 1
        named: str = response.json()["error"].get("operationId", "")
        if not named or (operation_id and named != operation_id) or "Retry-After" not in response.headers:
            self.problems.append(f"submit under {operation_id!r}: {response.headers} {response.text}")
        return named

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()


def _code(response: httpx.Response) -> str:
    code: str = response.json().get("error", {}).get("code", "")
    return code
