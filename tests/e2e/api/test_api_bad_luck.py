"""An API replica ends, or stops for a while, in the middle of what it does for clients: they go on at another one, or
ask again, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random

import httpx
import pytest

from tests.support.api.held_actions import HALF
from tests.support.api.replicated_system import FIRST, PATIENCE, Luck, fragile_system, lucky, own_id, repeatable
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
    with fragile_system(tmp_path_factory.mktemp("luck")) as system:
        yield system


@pytest.fixture
async def luck(system: System) -> AsyncIterator[Luck]:
    """Clients of it, once it serves."""
    async with lucky(system) as luck:
        yield luck


@pytest.mark.parametrize("number", ENDS)
async def test_held_requests(luck: Luck, number: signal.Signals) -> None:
    """A replica that is told to stop answers who waits with the monitor as it is, a killed one not at all; asked
    again, another one tells the end."""
    first, second = luck.system.apis
    ids = [await luck.running("gated") for _ in range(5)]
    held = await luck.hold(first, ids * 10, wait=60)
    await luck.end(FIRST, number)
    answers = await asyncio.gather(*held, return_exceptions=True)
    if number is signal.SIGTERM:
        for answer in answers:
            assert isinstance(answer, httpx.Response)
            assert (answer.status_code, answer.json()["status"]) == (200, "Running")
            assert answer.headers["Retry-After"] == "1"
    else:
        assert all(isinstance(answer, httpx.TransportError) for answer in answers)
    again = await luck.hold(second, ids * 10, wait=60)
    luck.open(*ids)
    assert {(await one).json()["status"] for one in again} == {"Succeeded"}
    await luck.start(FIRST)
    await luck.load.poll(*ids)
    await luck.check()


@pytest.mark.parametrize("number", ENDS)
async def test_streams(luck: Luck, number: signal.Signals) -> None:
    """Streams end with the replica, in order if it is told to stop; readers go on where they were, at another one or
    at the same one started again."""
    first, second = luck.system.apis
    ids = [await luck.running("flow", pause=0.02) for _ in range(2)]
    readers = [Reader(luck.http, [first, api], one) for api in (first, second) for one in ids * 5]
    async with luck.reading(*readers):
        await eventually(lambda: all(len(reader.events) > HALF // 2 for reader in readers), within=PATIENCE)
        await luck.end(FIRST, number)
        await luck.start(FIRST)
        await eventually(lambda: all(reader.is_connected for reader in readers), within=PATIENCE)
        luck.open(*ids)
    end = CLEAN if number is signal.SIGTERM else BROKEN
    # Who comes back to a replica that is about to be gone may be turned away without an answer.
    refused = [reader.ends[1:-1] for reader in readers]
    assert [[reader.ends[0], reader.ends[-1]] for reader in readers] == [[end, CLEAN]] * len(readers)
    assert all(set(between) <= {BROKEN} for between in refused[:10])
    assert refused[10:] == [[]] * 10
    await luck.load.poll(*ids)
    await luck.check(*readers)


async def test_streams_that_break_within_events(luck: Luck) -> None:
    """Wherever a connection breaks, the reader comes back with the last whole event, and misses none."""
    operation_id = await luck.running("flow")
    luck.open(operation_id)
    random = Random(4)
    async with TornProxy(luck.system.port(FIRST), lambda: random.randint(1000, 8000)) as proxy:
        reader = Reader(luck.http, [http_url(proxy)], operation_id)
        async with luck.reading(reader):
            pass
    assert reader.torn > 5
    await luck.load.poll(operation_id)
    await luck.check(reader)


def http_url(proxy: Proxy) -> str:
    """Where it takes HTTP."""
    return proxy.url.replace("nats://", "http://")


@pytest.mark.parametrize("naming", [own_id, repeatable])
async def test_a_submit_whose_answer_is_lost(luck: Luck, naming: Callable[[], dict[str, str]]) -> None:
    """Killed once the request is recorded and before the client knows, and asked again the same, the replica finds
    the one operation, which is done once."""
    promise, headers = luck.promise("mark"), naming()
    async with Proxy(luck.system.port(FIRST)) as proxy:
        proxy.mute()
        asked = asyncio.create_task(luck.submit(http_url(proxy), promise, headers))
        (operation_id,) = await eventually(lambda: luck.marks(promise.input["number"]), within=PATIENCE)
        assert (await luck.status(luck.system.apis[1], operation_id)).status_code == 200
        luck.system.kill(FIRST)
        proxy.cut()
        with pytest.raises(httpx.TransportError):
            await asked
        await luck.start(FIRST)
        again = await luck.submit(http_url(proxy), promise, headers)
    assert (again.status_code, again.json()["id"]) == (202, operation_id)
    assert headers.get("Operation-Id", operation_id) == operation_id
    assert again.headers.get("Repeatability-Result") == ("accepted" if naming is repeatable else None)
    luck.load.promised[operation_id] = promise
    await luck.load.poll(operation_id)
    assert (await luck.check()).requests(operation_id) == 1
    assert luck.marks(promise.input["number"]) == [operation_id]


async def test_a_cancel_whose_answer_is_lost(luck: Luck) -> None:
    """Asked again after the replica was killed, the wish stands once, and so does the end of what had not begun."""
    second = luck.system.apis[1]
    running = await luck.running("gated")
    luck.system.freeze("runner")
    waiting = await luck.load.submit("gated")
    wished = {running: ["requested", "started", "cancel-requested"], waiting: ["requested", "canceled"]}
    async with Proxy(luck.system.port(FIRST)) as proxy:
        proxy.mute()
        asked = [asyncio.create_task(luck.cancel(http_url(proxy), one)) for one in wished]
        for one, names in wished.items():
            await luck.reach_events(second, one, names)
        luck.system.kill(FIRST)
        proxy.cut()
        lost = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(one, httpx.TransportError) for one in lost)
        await luck.start(FIRST)
        again = [await luck.cancel(http_url(proxy), one) for one in wished]
    assert [(one.status_code, one.json()["status"]) for one in again] == [(200, "Running"), (200, "Canceled")]
    luck.system.thaw("runner")
    await luck.load.poll(*wished)
    await luck.check()
    assert await luck.events(second, running) == [*wished[running], "canceled"]
    assert await luck.events(second, waiting) == wished[waiting]


async def test_a_frozen_replica(luck: Luck) -> None:
    """Who loses patience gets all from another one; who does not is answered rightly once it goes on."""
    first, second = luck.system.apis
    ids = [await luck.running("gated") for _ in range(5)]
    flow = await luck.running("flow", pause=0.02)
    readers = [Reader(luck.http, [first], flow) for _ in range(5)]
    promise, headers = luck.promise("mark"), own_id()
    async with luck.reading(*readers):
        patient = await luck.hold(first, ids * 2, wait=60)
        hasty = await luck.hold(first, ids, wait=60, patience=3)
        luck.system.freeze(FIRST)
        asked = asyncio.create_task(luck.submit(first, promise, headers))
        given_up = await asyncio.gather(*hasty, return_exceptions=True)
        assert all(isinstance(one, httpx.ReadTimeout) for one in given_up)
        again = await luck.submit(second, promise, headers)
        assert again.status_code == 202
        held = await luck.hold(second, ids, wait=60)
        luck.open(*ids, flow)
        assert {(await one).json()["status"] for one in held} == {"Succeeded"}
        assert not any(one.done() for one in (*patient, asked))
        luck.system.thaw(FIRST)
        assert {(await one).json()["status"] for one in patient} == {"Succeeded"}
        assert ((await asked).status_code, (await asked).json()["id"]) == (202, again.json()["id"])
    luck.load.promised[again.json()["id"]] = promise
    await luck.load.poll(*ids, flow, again.json()["id"])
    await luck.check(*readers)
    assert luck.marks(promise.input["number"]) == [again.json()["id"]]
