"""The way from earlier versions to this one, as CHANGELOG.md tells it, process by process, while clients work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Final

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
APIS = ("api", "api-2")
RUNNERS = ("runner", "runner-2")
HELD = 3


USUAL: Final = (next(iter(BEFORE)), LAST)
"""The first release and the last two; the others take a quarter of a minute each, and `make upgrades` has them."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Come from the usual releases, or from all that there were."""
    if "system" in metafunc.fixturenames:
        releases = BEFORE if metafunc.config.getoption("all_releases") else USUAL
        metafunc.parametrize("system", releases, indirect=True, ids=lambda name: name.replace(" ", "-"))


@pytest.fixture
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


async def test_authentication_is_switched_on_and_rolled_back(tmp_path: Path) -> None:
    """After an upgrade from the last release the APIs ask for keys, together. Clients that have a key without a tenant
    submit and poll across that moment, and each operation is one. What was open ends, and is read by a key with
    `read:all` and no tenant; clients with keys work. Then all goes back while operations of a tenant are open:
    they end, too, under their stored ids."""
    with ExitStack() as stack:
        system = UpgradableSystem(tmp_path, stack, before=LAST)
        system.begin()
        async with Load(system.apis, Random(12)) as anyone, Load(system.apis, Random(13)) as shop:
            async with anyone.clients(CLIENTS, ACTIONS):
                await asyncio.to_thread(system.provision)
                for name in ORDER[:-1]:  # the broker is the same
                    await replace(system, name)
                seen = anyone.ended
                await eventually(lambda: anyone.ended >= seen + 2 * CLIENTS, within=30)
            ended = {one for one, polled in anyone.polled.items() if polled and polled[-1]["status"] in ENDED}
            open_ones = {await anyone.submit("held", f"open-{number}") for number in range(HELD)}

            operator = add_key(system, "--subject", "ops", "--scope", "submit", "--scope", "read:all")
            shop.use_key(
                add_key(system, "--tenant", "acme", "--subject", "shop", "--scope", "submit", "--scope", "read")
            )
            anyone.use_key(operator)  # before the switch no API looks at it
            async with anyone.clients(CLIENTS, ACTIONS):  # they submit and poll across the switch
                seen = anyone.ended
                await eventually(lambda: anyone.ended >= seen + CLIENTS, within=30)
                await switch_apis(system, "--auth", "keys")
                seen = anyone.ended
                await eventually(lambda: anyone.ended >= seen + 2 * CLIENTS, within=30)
            await check_foreign(system, shop, open_ones)
            await asyncio.gather(*(anyone.reach(one, "Running") for one in open_ones))
            assert {anyone.polled[one][-1]["status"] for one in open_ones} == {"Running"}
            async with shop.clients(CLIENTS, ACTIONS):
                for name in RUNNERS:
                    await asyncio.to_thread(system.kill, name)  # what it holds is held for ever
                    system.start(name)
                await asyncio.to_thread(system.wait_ready, *RUNNERS)
                await anyone.poll(*open_ones)
                seen = shop.ended
                await eventually(lambda: shop.ended >= seen + 2 * CLIENTS, within=30)
            assert await statuses(system, ended, operator) == {one: anyone.polled[one][-1]["status"] for one in ended}

            of_shop = {await shop.submit("held", f"shop-{number}") for number in range(HELD)}
            await asyncio.gather(*(shop.reach(one, "Running") for one in of_shop))
            await go_back(system)
            async with anyone.clients(CLIENTS, ACTIONS):  # with a key at which no API looks now
                seen = anyone.ended
                await eventually(lambda: anyone.ended >= seen + 2 * CLIENTS, within=30)
            evidence = await gather(system.nats)
            stored = evidence.stored_ids()
            assert shop.promised.keys() <= stored.keys()
            assert set((await statuses(system, {stored[one] for one in of_shop})).values()) == {"Succeeded"}

            rebuilt = await asyncio.to_thread(run, "rebuild", "--nats", system.nats, timeout=90)
            assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
            evidence = await gather(system.nats)
            assert breaches(shop.testify(completed(system, anyone, evidence))) == []
            assert (anyone.problems, shop.problems) == ([], [])
        await check_logs_and_stores(system)


async def replace(system: UpgradableSystem, name: str) -> None:
    """Stop one, and start it as a process of this version."""
    await asyncio.to_thread(system.stop, name)
    system.start_upgraded(name)
    await asyncio.to_thread(system.wait_ready, name)


async def go_back(system: UpgradableSystem) -> None:
    """Replace all services by those of the version before, the APIs together, while runners hold what never ends."""
    for name in APIS:
        await asyncio.to_thread(system.stop, name)
    for name in reversed(ORDER[:-1]):
        if name in RUNNERS:
            await asyncio.to_thread(system.kill, name)
        elif name not in APIS:
            await asyncio.to_thread(system.stop, name)
        system.start_rolled_back(name)
    await asyncio.to_thread(system.wait_ready, *system.names)


async def switch_apis(system: UpgradableSystem, *options: str) -> None:
    """Stop all APIs, and start them with other options."""
    for name in APIS:
        await asyncio.to_thread(system.stop, name)
    system.auth = options
    for name in APIS:
        system.start(name)
    await asyncio.to_thread(system.wait_ready, *APIS)


def add_key(system: UpgradableSystem, *options: str) -> str:
    """Make an API key as an operator does."""
    done = run("apikey", "add", *options, "--nats", system.nats)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def check_foreign(system: UpgradableSystem, shop: Load, operation_ids: set[str]) -> None:
    """Check that each API refuses requests without a key, and shows a tenant nothing of before."""
    headers = dict(shop.headers)
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        for api in system.apis:
            for one in operation_ids:
                assert (await http.get(f"{api}/status/{one}")).status_code == 401
                assert (await http.get(f"{api}/status/{one}", headers=headers)).status_code == 404


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


async def statuses(system: UpgradableSystem, operation_ids: set[str], key: str = "") -> dict[str, str]:
    """Return what the API says of operations of before."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(trust_env=False, timeout=10, headers=headers) as http:
        found = {}
        for one in operation_ids:
            response = await http.get(f"{system.api}/status/{one}")
            assert response.status_code == 200, response.text
            found[one] = response.json()["status"]
        return found
