"""API processes with limits of callers, one of which is killed in a burst."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.system import kill_actions
from tests.support.system.processes import run
from tests.support.system.services import System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

LIMIT: Final = 3
APIS: Final = ("api", "api-2")
OPTIONS: Final = ("--auth", "keys", "--caller-requests", "500/s", "--caller-open-operations", str(LIMIT))


class LimitedSystem(System):
    """A system whose APIs limit each caller."""

    def _command(self, name: str) -> tuple[str, ...]:
        return (*super()._command(name), *(OPTIONS if name.startswith("api") else ()))


async def test_a_killed_api_leaves_no_count_behind(tmp_path: Path) -> None:
    """In a burst at two processes, one of which is killed, no more is stored than the limit of each allows. Both count
    the same afterwards, the new one too; once all has ended, exactly the limit may begin again."""
    kill_actions.write_module(tmp_path)
    with ExitStack() as stack:
        system = LimitedSystem(tmp_path, stack, "kill_actions", replicas=2)
        system.begin()
        made = run("apikey", "add", "--subject", "ann", "--scope", "submit,read,cancel", "--nats", system.nats)
        assert made.returncode == 0, made.stderr
        headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
        async with httpx.AsyncClient(trust_env=False, timeout=15, headers=headers) as http:

            async def submit(api: str, own_id: str) -> int:
                try:
                    answer = await http.post(
                        f"{system.url(api)}/kill:held", json={"number": 1}, headers={"Operation-Id": own_id}
                    )
                except httpx.TransportError:
                    return 0  # it was killed
                return answer.status_code

            async def answers_with(status: int, api: str, own_id: str) -> bool:
                return await submit(api, own_id) == status

            async def knows_the_key(api: str) -> bool:
                return (await http.get(f"{system.url(api)}/openapi.json")).status_code == 200

            for api in APIS:
                await eventually(lambda api=api: knows_the_key(api), within=5)
            numbers = itertools.count()
            names = [f"burst-{number}" for number in range(40)]
            burst = [asyncio.create_task(submit(APIS[number % 2], name)) for number, name in enumerate(names)]
            await asyncio.wait(burst, return_when=asyncio.FIRST_COMPLETED)
            system.kill("api-2")
            answers = Counter(await asyncio.gather(*burst))
            assert answers.keys() <= {202, 429, 0}, answers
            system.start("api-2")
            await asyncio.to_thread(system.wait_ready, "api-2")

            async def stored() -> list[str]:
                found = [(name, await http.get(f"{system.api}/status/{name}")) for name in names]
                return [name for name, answer in found if answer.status_code == 200]

            left = await stored()
            assert answers[202] <= len(left) <= LIMIT * len(APIS)
            assert len(left) >= LIMIT
            for api in APIS:
                assert await submit(api, f"more-{api}") == 429
            for name in left:
                assert (await http.post(f"{system.api}/status/{name}:cancel")).is_success

            async def has_ended(name: str) -> bool:
                return (await http.get(f"{system.api}/status/{name}")).json()["status"] == "Canceled"

            for name in left:
                await eventually(lambda name=name: has_ended(name), within=15)
            for number in range(LIMIT):
                # The other process hears of an end, or of a begin, some moments later.
                await eventually(lambda number=number: answers_with(202, APIS[number % 2], f"new-{number}"), within=5)
            for api in APIS:
                await eventually(lambda api=api: answers_with(429, api, f"over-{next(numbers)}"), within=5)
        assert system.complaints() == []
