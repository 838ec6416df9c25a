"""An API replica ends, or stops for a while, during requests. Clients continue at another replica or retry, and nothing
is lost or done twice.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random

import httpx
import pytest

from tests.support.api.held_actions import HALF
from tests.support.api.replicated_system import (
    FIRST,
    PATIENCE,
    SystemClients,
    fragile_system,
    own_id,
    repeatable,
    system_clients,
)
from tests.support.api.stream_reader import BROKEN, CLEAN, Reader
from tests.support.broker.proxy import Proxy
from tests.support.broker.torn_proxy import TornProxy
from tests.support.system.services import System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

ENDS = [signal.SIGTERM, signal.SIGKILL]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with two replicas of the API."""
    with fragile_system(tmp_path_factory.mktemp("clients")) as system:
        yield system


@pytest.fixture
async def clients(system: System) -> AsyncIterator[SystemClients]:
    """Clients of the system, once it serves."""
    async with system_clients(system) as clients:
        yield clients


@pytest.mark.parametrize("number", ENDS)
async def test_held_requests(clients: SystemClients, number: signal.Signals) -> None:
    """A stopping replica responds to waiting requests with the current monitor, a killed one not at all. A retry at
    another replica gets the end.
    """
    first, second = clients.system.apis
    ids = [await clients.running("gated") for _ in range(5)]
    held = await clients.hold(first, ids * 10, wait=60)
    await clients.end(FIRST, number)
    answers = await asyncio.gather(*held, return_exceptions=True)
    if number is signal.SIGTERM:
        for answer in answers:
            assert isinstance(answer, httpx.Response)
            assert (answer.status_code, answer.json()["status"]) == (200, "Running")
            assert answer.headers["Retry-After"] == "1"
    else:
        assert all(isinstance(answer, httpx.TransportError) for answer in answers)
    again = await clients.hold(second, ids * 10, wait=60)
    clients.open(*ids)
    assert {(await one).json()["status"] for one in again} == {"Succeeded"}
    await clients.start(FIRST)
    await clients.load.poll(*ids)
    await clients.check()


@pytest.mark.parametrize("number", ENDS)
async def test_streams(clients: SystemClients, number: signal.Signals) -> None:
    """Streams end with the replica, cleanly if it stops. Readers continue at another replica, or at the same one after
    its restart.
    """
    first, second = clients.system.apis
    ids = [await clients.running("flow", pause=0.02) for _ in range(2)]
    readers = [Reader(clients.http, [first, api], one) for api in (first, second) for one in ids * 5]
    async with clients.reading(*readers):
        await eventually(lambda: all(len(reader.events) > HALF // 2 for reader in readers), within=PATIENCE)
        await clients.end(FIRST, number)
        await clients.start(FIRST)
        await eventually(lambda: all(reader.is_connected for reader in readers), within=PATIENCE)
        clients.open(*ids)
    end = CLEAN if number is signal.SIGTERM else BROKEN
    # Who comes back to a replica that is about to be gone may be turned away without an answer.
    refused = [reader.ends[1:-1] for reader in readers]
    assert [[reader.ends[0], reader.ends[-1]] for reader in readers] == [[end, CLEAN]] * len(readers)
    assert all(set(between) <= {BROKEN} for between in refused[:10])
    assert refused[10:] == [[]] * 10
    await clients.load.poll(*ids)
    await clients.check(*readers)


async def test_streams_that_break_within_events(clients: SystemClients) -> None:
    """Wherever a connection breaks, the reader reconnects with the last whole event, and misses none."""
    operation_id = await clients.running("flow")
    clients.open(operation_id)
    random = Random(4)
    async with TornProxy(clients.system.port(FIRST), lambda: random.randint(1000, 8000)) as proxy:
        reader = Reader(clients.http, [http_url(proxy)], operation_id)
        async with clients.reading(reader):
            pass
    assert reader.torn > 5
    await clients.load.poll(operation_id)
    await clients.check(reader)


def http_url(proxy: Proxy) -> str:
    """Return the URL of a replica's HTTP port."""
    return proxy.url.replace("nats://", "http://")


@pytest.mark.parametrize("naming", [own_id, repeatable])
async def test_a_submit_whose_response_is_lost(clients: SystemClients, naming: Callable[[], dict[str, str]]) -> None:
    """The replica is killed once the request is stored and before the client knows. A retry finds the one operation,
    which is done once.
    """
    promise, headers = clients.promise("mark"), naming()
    async with Proxy(clients.system.port(FIRST)) as proxy:
        proxy.mute()
        asked = asyncio.create_task(clients.submit(http_url(proxy), promise, headers))
        (operation_id,) = await eventually(lambda: clients.marks(promise.input["number"]), within=PATIENCE)
        assert (await clients.status(clients.system.apis[1], operation_id)).status_code == 200
        clients.system.kill(FIRST)
        proxy.cut()
        with pytest.raises(httpx.TransportError):
            await asked
        await clients.start(FIRST)
        again = await clients.submit(http_url(proxy), promise, headers)
    assert (again.status_code, again.json()["id"]) == (202, operation_id)
    assert headers.get("Operation-Id", operation_id) == operation_id
    assert again.headers.get("Repeatability-Result") == ("accepted" if naming is repeatable else None)
    clients.load.promised[operation_id] = promise
    await clients.load.poll(operation_id)
    assert (await clients.check()).requests(operation_id) == 1
    assert clients.marks(promise.input["number"]) == [operation_id]


async def test_a_cancel_whose_response_is_lost(clients: SystemClients) -> None:
    """After a retry of a cancel to a killed replica, the cancel request is stored once, and so is the end of what had
    not started.
    """
    second = clients.system.apis[1]
    running = await clients.running("gated")
    clients.system.freeze("runner")
    waiting = await clients.load.submit("gated")
    wished = {running: ["requested", "started", "cancel-requested"], waiting: ["requested", "canceled"]}
    async with Proxy(clients.system.port(FIRST)) as proxy:
        proxy.mute()
        asked = [asyncio.create_task(clients.cancel(http_url(proxy), one)) for one in wished]
        for one, names in wished.items():
            await clients.reach_events(second, one, names)
        clients.system.kill(FIRST)
        proxy.cut()
        lost = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(one, httpx.TransportError) for one in lost)
        await clients.start(FIRST)
        again = [await clients.cancel(http_url(proxy), one) for one in wished]
    assert [(one.status_code, one.json()["status"]) for one in again] == [(200, "Running"), (200, "Canceled")]
    clients.system.thaw("runner")
    await clients.load.poll(*wished)
    await clients.check()
    assert await clients.events(second, running) == [*wished[running], "canceled"]
    assert await clients.events(second, waiting) == wished[waiting]


async def test_a_frozen_replica(clients: SystemClients) -> None:
    """A client that gives up gets everything from another replica. One that waits gets the right response once the
    replica continues.
    """
    first, second = clients.system.apis
    ids = [await clients.running("gated") for _ in range(5)]
    flow = await clients.running("flow", pause=0.02)
    readers = [Reader(clients.http, [first], flow) for _ in range(5)]
    promise, headers = clients.promise("mark"), own_id()
    async with clients.reading(*readers):
        patient = await clients.hold(first, ids * 2, wait=60)
        hasty = await clients.hold(first, ids, wait=60, patience=3)
        clients.system.freeze(FIRST)
        asked = asyncio.create_task(clients.submit(first, promise, headers))
        given_up = await asyncio.gather(*hasty, return_exceptions=True)
        assert all(isinstance(one, httpx.ReadTimeout) for one in given_up)
        again = await clients.submit(second, promise, headers)
        assert again.status_code == 202
        held = await clients.hold(second, ids, wait=60)
        clients.open(*ids, flow)
        assert {(await one).json()["status"] for one in held} == {"Succeeded"}
        assert not any(one.done() for one in (*patient, asked))
        clients.system.thaw(FIRST)
        assert {(await one).json()["status"] for one in patient} == {"Succeeded"}
        assert ((await asked).status_code, (await asked).json()["id"]) == (202, again.json()["id"])
    clients.load.promised[again.json()["id"]] = promise
    await clients.load.poll(*ids, flow, again.json()["id"])
    await clients.check(*readers)
    assert clients.marks(promise.input["number"]) == [again.json()["id"]]
