"""The way from earlier versions to this one, as CHANGELOG.md tells it, process by process, while clients work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import httpx
import pytest

from bench.releases.sources import BEFORE, LAST
from tests.support.system.invariants import ENDED, Evidence, breaches, gather
from tests.support.system.load import Load
from tests.support.system.processes import run
from tests.support.system.services import BROKER
from tests.support.system.versions import UpgradableSystem
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

CLIENTS = 8
ACTIONS = ("quick", "quick", "slow", "thread", "fail")
ORDER = ("projector", "projector-2", "runner", "runner-2", "api", "api-2", BROKER)
"""Readers of events before their writers."""


@pytest.fixture(params=BEFORE, ids=lambda name: name.replace(" ", "-"))
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UpgradableSystem]:
    """A system of an earlier version that serves."""
    with ExitStack() as stack:
        system = UpgradableSystem(tmp_path, stack, before=request.param)
        system.begin()
        yield system


async def test_an_upgrade_under_load(system: UpgradableSystem) -> None:
    """No operation is lost, ends twice or goes backwards, and clients get responses of the contract only. Operations of
    before can be read; after `opstream rebuild` the view is that of this version, and the chains are whole."""
    async with Load(system.apis, Random(10)) as load:
        async with load.clients(CLIENTS, ACTIONS):
            await eventually(lambda: load.ended >= 3 * CLIENTS, within=30)
            before = {one for one, seen in load.polled.items() if seen and seen[-1]["status"] in ENDED}
            await asyncio.to_thread(system.provision)
            for name in ORDER:
                seen = load.ended
                await asyncio.to_thread(system.stop, name)
                system.start_upgraded(name)  # not in a thread: children die with the thread that started them
                await asyncio.to_thread(system.wait_ready, name)
                await eventually(lambda: load.ended >= seen + 2 * CLIENTS, within=30)  # noqa: B023
        await asyncio.to_thread(system.wait_ready, *system.names)
        assert await statuses(system, before) == {one: load.polled[one][-1]["status"] for one in before}
        rebuilt = await asyncio.to_thread(run, "rebuild", "--nats", system.nats, timeout=90)
        assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
        assert breaches(completed(system, load, await gather(system.nats))) == []
        assert load.problems == []
    await check_logs_and_stores(system)


async def test_a_rollback_under_load(tmp_path: Path) -> None:
    """After an upgrade from the last release every process goes back to it, in the reverse order: nothing is lost, ends
    twice or goes backwards, and what this version has stored can be read by the one before."""
    with ExitStack() as stack:
        system = UpgradableSystem(tmp_path, stack, before=LAST)
        system.begin()
        async with Load(system.apis, Random(11)) as load:
            async with load.clients(CLIENTS, ACTIONS):
                await eventually(lambda: load.ended >= 2 * CLIENTS, within=30)
                await asyncio.to_thread(system.provision)
                for name in ORDER:
                    await asyncio.to_thread(system.stop, name)
                    system.start_upgraded(name)
                    await asyncio.to_thread(system.wait_ready, name)
                seen = load.ended
                await eventually(lambda: load.ended >= seen + 2 * CLIENTS, within=30)
                between = {one for one, polled in load.polled.items() if polled and polled[-1]["status"] in ENDED}
                for name in reversed(ORDER):
                    await asyncio.to_thread(system.stop, name)
                    system.start_rolled_back(name)
                    await asyncio.to_thread(system.wait_ready, name)
                seen = load.ended
                await eventually(lambda: load.ended >= seen + 2 * CLIENTS, within=30)
            await asyncio.to_thread(system.wait_ready, *system.names)
            assert await statuses(system, between) == {one: load.polled[one][-1]["status"] for one in between}
            assert breaches(completed(system, load, await gather(system.nats))) == []
            assert load.problems == []
        await check_logs_and_stores(system)


def completed(system: UpgradableSystem, load: Load, evidence: Evidence) -> Evidence:
    """Add what clients saw; two members of an ended operation differ between old versions."""
    evidence.ignored = system.shown_otherwise
    return load.testify(evidence)


async def check_logs_and_stores(system: UpgradableSystem) -> None:
    """Check that no process has complained, that the view is that of the journal, and that its chains are whole."""
    assert [text for text in system.complaints() if "complains" in text] == []
    for check in ((), ("--chain",)):
        verified = await asyncio.to_thread(run, "verify", *check, "--nats", system.nats, timeout=90)
        assert verified.returncode == 0, verified.stdout + verified.stderr


async def statuses(system: UpgradableSystem, operation_ids: set[str]) -> dict[str, str]:
    """Return what the upgraded API says of operations of before."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        found = {}
        for one in operation_ids:
            response = await http.get(f"{system.api}/status/{one}")
            assert response.status_code == 200, response.text
            found[one] = response.json()["status"]
        return found
