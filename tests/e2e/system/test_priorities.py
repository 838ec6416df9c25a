"""Priorities in real processes: a saturated runner, kills, and the last release beside this one."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from opstream_schemas import subjects
from opstream_schemas.names import Kind
from opstream_schemas.operation.priority import PRIORITIES
from tests.support.system.invariants import breaches, gather
from tests.support.system.kill_actions import write_module
from tests.support.system.services import System
from tests.support.system.versions import UpgradableSystem
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

SEED: Final = int(os.environ.get("OPSTREAM_TEST_SEED") or secrets.randbits(32))
ACTION: Final = '''

@action("kill:queued", lease=LEASE, max_attempts=50{options})
async def queued(request: Work, ctx: ActionContext) -> Done:
    """Note that it begins, and work for a while."""
    with Path("data/begun").open("a", encoding="utf-8") as file:
        file.write(f"{{ctx.operation_id}}\\n")
    await asyncio.sleep(request.pause)
    return Done(request.number, ctx.attempt)
'''
WITH_PRIORITIES: Final = ACTION.format(options=', priority="normal"')
WITHOUT: Final = ACTION.format(options="")
FURTHER: Final = frozenset(subjects.runner_consumer(Kind("kill", "queued"), one) for one in ("high", "low"))
"""Durables that the last release does not read."""


class NarrowSystem(System):
    """A system whose runners run two attempts at once."""

    def _command(self, name: str) -> tuple[str, ...]:
        return (*super()._command(name), *(("--concurrency", "2") if name.startswith("runner") else ()))


async def submit(http: httpx.AsyncClient, operation_id: str, priority: str, pause: float) -> None:
    """Submit an operation, again and again while no API answers."""
    headers = {"Operation-Id": operation_id} | ({"Operation-Priority": priority} if priority else {})

    async def is_accepted() -> bool:
        try:
            answer = await http.post("/kill:queued", json={"number": 1, "pause": pause}, headers=headers)
        except httpx.TransportError:
            return False  # it was killed
        assert answer.status_code in {202, 503}, answer.text
        return answer.status_code == 202

    await eventually(is_accepted, within=30, poll=0.1)


async def submit_all(http: httpx.AsyncClient, count: int, pause: float) -> list[str]:
    """Submit operations of each priority, those of the lowest first; return their ids."""
    ids = []
    for priority in reversed(PRIORITIES):
        some = [f"{priority}-{number}" for number in range(count)]
        await asyncio.gather(*(submit(http, one, priority, pause) for one in some))
        ids += some
    return ids


async def ends(http: httpx.AsyncClient, ids: list[str], within: float) -> list[dict[str, Any]]:
    """Wait until all have ended, and return their statuses."""
    found: dict[str, dict[str, Any]] = {}

    async def has_ended(operation_id: str) -> bool:
        try:
            answer = await http.get(f"/status/{operation_id}")
        except httpx.TransportError:
            return False
        found[operation_id] = answer.json()
        return answer.status_code == 200 and found[operation_id]["status"] in {"Succeeded", "Failed"}

    for one in ids:
        await eventually(lambda one=one: has_ended(one), within=within, poll=0.1)
    return [found[one] for one in ids]


def begun(folder: Path) -> list[str]:
    """The operations whose attempts have begun, in order."""
    file = folder / "data" / "begun"
    return file.read_text(encoding="utf-8").split() if file.exists() else []


async def test_a_saturated_runner(tmp_path: Path) -> None:
    """While all three priorities wait, each begins as often as it is promised: low, too, which came first."""
    module = write_module(tmp_path)
    with (tmp_path / "kill_actions.py").open("a", encoding="utf-8") as file:
        file.write(WITH_PRIORITIES)
    (tmp_path / "data").mkdir(exist_ok=True)
    with ExitStack() as stack:
        system = NarrowSystem(tmp_path, stack, module)
        system.begin()
        async with httpx.AsyncClient(base_url=system.api, trust_env=False, timeout=10) as http:
            for number in range(2):
                await submit(http, f"blocker-{number}", "high", 4.0)
            await eventually(lambda: len(begun(tmp_path)) == 2, within=10)
            ids = await submit_all(http, 30, 0.02)
            assert len(begun(tmp_path)) == 2
            statuses = await ends(http, ids, within=30)
        assert {one["status"] for one in statuses} == {"Succeeded"}
        shares = Counter(one.partition("-")[0] for one in begun(tmp_path)[2:42])
        # Two slots take turns at the same time, so the one that asks first may begin second.
        assert shares == {"high": pytest.approx(24, abs=1), "normal": pytest.approx(12, abs=1), "low": 4}
        assert breaches(await gather(system.nats)) == []


async def test_kills_at_random(tmp_path: Path) -> None:
    """Services and broker are killed while operations of all priorities wait and run: each ends once."""
    module = write_module(tmp_path)
    with (tmp_path / "kill_actions.py").open("a", encoding="utf-8") as file:
        file.write(WITH_PRIORITIES)
    (tmp_path / "data").mkdir(exist_ok=True)
    print(f"OPSTREAM_TEST_SEED={SEED}")
    chosen = random.Random(SEED)
    with ExitStack() as stack:
        system = NarrowSystem(tmp_path, stack, module)
        system.begin()
        async with httpx.AsyncClient(base_url=system.api, trust_env=False, timeout=10) as http:
            submitting = asyncio.create_task(submit_all(http, 20, 0.1))
            for _ in range(6):
                await asyncio.sleep(chosen.uniform(0.2, 0.8))
                system.kill(chosen.choice(["api", "runner", "projector", "broker"]))
                await asyncio.to_thread(system.revive)
            ids = await submitting
            statuses = await ends(http, ids, within=60)
        assert {one["status"] for one in statuses} == {"Succeeded"}
        assert breaches(await gather(system.nats)) == []


async def test_beside_a_release_without(tmp_path: Path) -> None:
    """After the upgrade what waits begins by its priority. Then everything goes back while the runner is saturated:
    0.6.0 knows no priorities, and everything ends."""
    with ExitStack() as stack:
        system = UpgradableSystem(tmp_path, stack, before="0.6.0", replicas=1)
        for folder, text in ((tmp_path, WITH_PRIORITIES), (tmp_path / "before", WITHOUT)):
            with (folder / "kill_actions.py").open("a", encoding="utf-8") as file:
                file.write(text)
        system.begin()
        await asyncio.to_thread(system.provision)
        for name in ("projector", "runner", "api"):
            await asyncio.to_thread(system.stop, name)
            system.start_upgraded(name)
            await asyncio.to_thread(system.wait_ready, name)
        async with httpx.AsyncClient(base_url=system.api, trust_env=False, timeout=10) as http:
            blockers = [f"blocker-{number}" for number in range(40)]
            await asyncio.gather(*(submit(http, one, "normal", 1.0) for one in blockers))
            ids = await submit_all(http, 10, 0.1)
            for name in ("api", "runner", "projector"):
                await asyncio.to_thread(system.stop, name)
                system.start_rolled_back(name)
                await asyncio.to_thread(system.wait_ready, name)
            statuses = await ends(http, [*blockers, *ids], within=240)
        assert {one["status"] for one in statuses} == {"Succeeded"}
        found = breaches(await gather(system.nats, unread=FURTHER))
        # The last release folds no priority, so its snapshots have none.
        assert [one for one in found if ": invariant 5: the view has " not in one] == []
