"""The broker is gone or frozen: responses are quick and honest, and a request is stored once or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import httpx
import msgspec
import pytest

from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Succeeded
from tests.support.api.service import Api, OperationStory, serving, spec, started
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

LIMIT = 5.0
"""Seconds that a submit may take (contract.md)."""


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api
        if broker.is_paused:
            broker.resume()


async def timed(request: Callable[[], object]) -> tuple[httpx.Response, float]:
    """Return a response and the seconds that it took."""
    begin = time.monotonic()
    answer = await request()  # type: ignore[misc]
    assert isinstance(answer, httpx.Response)
    return answer, time.monotonic() - begin


def check_unavailable(answer: httpx.Response, operation_id: str | None = None) -> None:
    """503 with `Retry-After`, and with the id under which a submit can be sent again."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "JournalUnavailable")
    assert answer.headers["x-ms-error-code"] == "JournalUnavailable"
    assert int(answer.headers["Retry-After"]) > 0
    assert error.get("operationId") == operation_id


@pytest.mark.parametrize("is_frozen", [True, False], ids=["frozen", "stopped"])
async def test_the_broker_goes_away(
    api: Api, broker: Broker, link: Connection, journal: Journal, is_frozen: bool
) -> None:
    """Submits name their id within the limit and can be sent again. Ended operations stay readable, others get 503."""
    ended = await OperationStory.of(journal, (await api.submit()).json()["id"])
    await ended.append(started(), Succeeded(result=msgspec.Raw(b"{}")))
    assert (await api.status(ended.operation.id)).json()["status"] == "Succeeded"
    open_id = (await api.submit()).json()["id"]
    (broker.pause if is_frozen else broker.stop)()

    (named, named_seconds), (unnamed, _), (unknown, _), (open_one, _), (gone_one, _), (ready, _) = await asyncio.gather(
        timed(lambda: api.submit(headers={"Operation-Id": "mine"})),
        timed(api.submit),
        timed(lambda: api.submit("/cook:fry", headers={"Operation-Id": "other"})),
        timed(lambda: api.status(open_id)),
        timed(lambda: api.status("nonsense")),
        timed(lambda: api.client.get("/readyz")),
    )
    assert named_seconds < LIMIT
    check_unavailable(named, "mine")
    made_id = unnamed.json()["error"]["operationId"]
    check_unavailable(unnamed, made_id)
    check_unavailable(unknown, "other")
    for answer in (open_one, gone_one, ready):
        check_unavailable(answer)
    assert (await api.client.get("/healthz")).status_code == 200
    assert (await api.status(ended.operation.id)).json()["status"] == "Succeeded"

    if is_frozen:
        broker.resume()
    else:
        broker.start()
    assert await link.wait_connected(10)
    for operation_id in ("mine", made_id):
        answer = await until_accepted(api, operation_id)
        assert answer.json()["id"] == operation_id
        assert [event.position for event in await journal.events(operation_id)] == [1]
    assert (await api.status(open_id)).json()["status"] == "NotStarted"
    assert (await api.client.get("/readyz")).status_code == 200


async def test_readiness_names_the_cause(api: Api, broker: Broker) -> None:
    """Where the measurement of the journal fails, too, a blocking condition is the answer: it has the next step."""
    api.conditions.report("BrokerStoresNothing", "its disk is full", "free space", is_blocking=True)
    broker.pause()
    answer = await api.client.get("/readyz")
    check_unavailable(answer)
    error = answer.json()["error"]
    assert (error["target"], error["message"]) == ("BrokerStoresNothing", "its disk is full; next step: free space")


async def test_an_outage_has_the_shape_of_a_condition(api: Api, broker: Broker) -> None:
    """Whatever makes it not ready, `/readyz` has `conditions` with a blocking one, and its next step."""
    broker.pause()
    answer = await api.client.get("/readyz")
    check_unavailable(answer)
    assert answer.json()["status"] == "not ready"
    (shown,) = [one for one in answer.json()["conditions"] if one["isBlocking"]]
    assert shown["name"] == "JournalUnavailable"
    assert shown["nextStep"].startswith("start the broker")


async def until_accepted(api: Api, operation_id: str) -> httpx.Response:
    """Send the same request again as a client would, until it is accepted."""
    async with asyncio.timeout(15):
        while True:
            answer = await api.submit(headers={"Operation-Id": operation_id})
            if answer.status_code != 503:
                assert answer.status_code == 202
                return answer
