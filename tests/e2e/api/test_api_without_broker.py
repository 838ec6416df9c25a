"""The broker is killed or frozen during requests, and comes back. In between there is a clear 503 or a stream that
waits, and nothing is lost or done twice.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial

import httpx
import pytest

from opstream_api.operations.history import PING_INTERVAL
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
from tests.support.api.stream_reader import CLEAN, Reader
from tests.support.system.services import BROKER, System
from tests.support.system.wait import eventually

pytestmark = pytest.mark.e2e

WAITING = "the journal does not answer, waiting"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with two replicas of the API."""
    with fragile_system(tmp_path_factory.mktemp("clients")) as system:
        yield system


@pytest.fixture
async def clients(system: System) -> AsyncIterator[SystemClients]:
    """Clients of it, once it serves."""
    async with system_clients(system) as clients:
        yield clients


def check_unavailable(answer: httpx.Response, *, submit: bool = False) -> str:
    """Check a 503 of the contract. Only that to a submit names an operation id."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "JournalUnavailable")
    assert answer.headers["x-ms-error-code"] == "JournalUnavailable"
    assert int(answer.headers["Retry-After"]) > 0
    operation_id: str = error.get("operationId", "")
    assert bool(operation_id) == submit
    return operation_id


def take_away(clients: SystemClients, number: signal.Signals) -> None:
    """Kill or freeze the broker."""
    if number is signal.SIGKILL:
        clients.system.kill(BROKER)
    else:
        clients.system.freeze(BROKER)


def give_back(clients: SystemClients, number: signal.Signals) -> None:
    """Start the broker again on its data, or let it continue."""
    if number is signal.SIGKILL:
        clients.system.start(BROKER)
    else:
        clients.system.thaw(BROKER)


async def stream_of(clients: SystemClients, api: str, operation_id: str) -> httpx.Response:
    """Return the events of a new reader."""
    return await clients.http.get(f"{api}/status/{operation_id}/events", headers={"Accept": "text/event-stream"})


async def until_available(ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Return the first response that is no 503; after each 503 the client waits for `Retry-After`."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await ask()
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(int(answer.headers["Retry-After"]))


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGKILL, 20), (signal.SIGSTOP, 5)])
async def test_the_broker_is_away(clients: SystemClients, number: signal.Signals, seconds: int) -> None:
    """For some seconds: a short wait gets a 503, a long one the end, a reader all events. A submit or cancel gets a
    503, and its retry is done once.
    """
    first, second = clients.system.apis
    gated, victim = await clients.running("gated"), await clients.running("gated")
    flow = await clients.running("flow")
    readers = [Reader(clients.http, [api], flow) for api in (first, second) * 5]
    asked = [(clients.promise("quick"), headers) for headers in ({}, own_id(), repeatable())]
    async with clients.load.clients(4, ["quick"]), clients.reading(*readers):
        await eventually(lambda: all(len(reader.events) > HALF for reader in readers), within=PATIENCE)
        patient = [one for api in (first, second) for one in await clients.hold(api, [gated], wait=60)]
        brief = [one for api in (first, second) for one in await clients.hold(api, [gated], wait=5)]
        (outage,) = await clients.hold(first, [gated], wait=seconds)
        take_away(clients, number)
        refused = await asyncio.gather(*(clients.submit(first, *one) for one in asked))
        ids = [check_unavailable(answer, submit=True) for answer in refused]
        for answer in await asyncio.gather(
            clients.cancel(second, victim),
            clients.status(first, gated),
            stream_of(clients, second, flow),
            *brief,
            outage,
        ):
            check_unavailable(answer)
        assert not any(one.done() for one in patient)
        if seconds > PING_INTERVAL:
            assert all(WAITING in reader.comments for reader in readers)
        give_back(clients, number)
        for operation_id, (promise, headers) in zip(ids, asked, strict=True):
            again = headers or {"Operation-Id": operation_id}
            accepted = await until_available(partial(clients.submit, second, promise, again))
            assert (accepted.status_code, accepted.json()["id"]) == (202, operation_id)
            clients.load.promised[operation_id] = promise
        assert (await until_available(partial(clients.cancel, first, victim))).status_code == 200
        clients.open(gated, flow)
        assert {(await one).json()["status"] for one in patient} == {"Succeeded"}
    assert [reader.ends for reader in readers] == [[CLEAN]] * len(readers)
    assert clients.load.unavailable > 0
    await clients.load.poll(*ids, gated, victim, flow)
    evidence = await clients.check(*readers)
    assert [evidence.requests(one) for one in ids] == [1] * len(ids)
    assert [clients.load.polled[one][-1]["status"] for one in (gated, victim, flow)] == [
        "Succeeded",
        "Canceled",
        "Succeeded",
    ]


async def test_a_replica_stops_while_the_broker_is_frozen(clients: SystemClients) -> None:
    """It responds to waiting requests with a 503, ends streams cleanly, and exits in time. At another replica, once the
    broker continues, clients get the outcomes.
    """
    first, second = clients.system.apis
    gated, flow = await clients.running("gated"), await clients.running("flow")
    readers = [Reader(clients.http, [first, second], flow) for _ in range(5)]
    promise, headers = clients.promise("mark"), own_id()
    async with clients.reading(*readers):
        await eventually(lambda: all(len(reader.events) > HALF for reader in readers), within=PATIENCE)
        held = await clients.hold(first, [gated] * 10, wait=60)
        clients.system.freeze(BROKER)
        asked = await clients.leave(first, promise, headers)
        await clients.end(FIRST, signal.SIGTERM, within=10)
        for answer in [await one for one in held]:
            check_unavailable(answer)
        assert check_unavailable(await asked, submit=True) == headers["Operation-Id"]
        await eventually(lambda: all(reader.ends for reader in readers))
        clients.system.thaw(BROKER)
        again = await until_available(partial(clients.submit, second, promise, headers))
        assert (again.status_code, again.json()["id"]) == (202, headers["Operation-Id"])
        clients.load.promised[again.json()["id"]] = promise
        clients.open(gated, flow)
        assert (await clients.status(second, gated, wait=60)).json()["status"] == "Succeeded"
    assert {(reader.ends[0], reader.ends[-1]) for reader in readers} == {(CLEAN, CLEAN)}
    await clients.load.poll(again.json()["id"], gated, flow)
    assert (await clients.check(*readers)).requests(again.json()["id"]) == 1
    assert clients.marks(promise.input["number"]) == [again.json()["id"]]
