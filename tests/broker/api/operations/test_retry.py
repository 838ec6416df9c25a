"""Doing an operation again, on a real broker without a runner: the tests append a runner's events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from opstream_api.http.callback_header import CallbackPolicy
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Canceled, EventData, Failed, Requested, Succeeded
from tests.support.api.service import (
    INPUT,
    JSON,
    Api,
    OperationStory,
    UploadStarted,
    failure,
    serving,
    spec,
    started,
    stored_messages,
)
from tests.support.broker.server import Broker
from tests.support.journal.journals import begin
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

FAILED = Failed(error=failure())


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec())
    async with serving(broker.url, callbacks=CallbackPolicy.parse(["hooks.test"])) as api:
        yield api


async def submitted(api: Api, journal: Journal, *datas: EventData, own: str = "one", **headers: str) -> OperationStory:
    """A new operation; a `_` in the name of a header is a `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    assert (await api.submit(headers={"Operation-Id": own, **named})).status_code == 202
    story = await OperationStory.of(journal, own)
    await story.append(*datas)
    return story


async def retry(api: Api, operation_id: str = "one", **more: Any) -> httpx.Response:
    """POST a retry."""
    return await api.client.post(f"/status/{operation_id}:retry", **more)


async def requested(journal: Journal, operation_id: str) -> Requested:
    """The request of an operation."""
    data = (await journal.events(operation_id))[0].data
    assert isinstance(data, Requested)
    return data


def error(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    found = answer.json()["error"]
    assert answer.headers["x-ms-error-code"] == found["code"]
    return answer.status_code, found["code"]


async def test_a_follow_up(api: Api, journal: Journal) -> None:
    """A new operation with the same input, resource, labels and callback. Both name the other."""
    await submitted(
        api, journal, started(), FAILED, Operation_Label="team=press", Operation_Callback="https://hooks.test/x"
    )
    before = await api.status("one")
    assert "retriedBy" not in before.json()
    answer = await retry(api)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Operation-Location"] == f"{api.url}/status/one-retry-1"
    assert answer.headers["Operation-Id"] == "one-retry-1"
    assert "Retry-After" in answer.headers
    monitor = answer.json()
    assert (monitor["id"], monitor["status"], monitor["retryOf"]) == ("one-retry-1", "NotStarted", "one")
    assert monitor["labels"] == {"team": "press"}
    first, again = await requested(journal, "one"), await requested(journal, "one-retry-1")
    assert (again.input, again.resource_id, again.callback) == (first.input, "42", "https://hooks.test/x")
    assert again.deadline > first.deadline
    after = await api.client.get("/status/one", headers={"If-None-Match": before.headers["ETag"]})
    assert (after.status_code, after.json()["retriedBy"]) == (200, "one-retry-1")
    unchanged = await api.client.get("/status/one", headers={"If-None-Match": after.headers["ETag"]})
    assert unchanged.status_code == 304
    assert "retriedBy" not in (await api.status("one-retry-1")).json()


async def test_a_second_retry_is_the_same(api: Api, journal: Journal, broker: Broker, link: Connection) -> None:
    """Twice, many times at once, from two services, and when it has ended: one follow-up, the same answer."""
    await submitted(api, journal, started(), FAILED)
    before = await stored_messages(link)
    async with serving(broker.url) as other:
        answers = await asyncio.gather(*(retry(one) for one in (api, other) * 5))
        assert {answer.status_code for answer in answers} == {202}
        assert {answer.json()["id"] for answer in answers} == {"one-retry-1"}
        assert await stored_messages(link) == before + 1
        story = await OperationStory.of(journal, "one-retry-1")
        await story.append(started(), Succeeded(result=msgspec.Raw(msgspec.json.encode(UploadStarted("t")))))
        ended = await retry(other)
    assert (ended.status_code, ended.json()["status"]) == (202, "Succeeded")
    assert ended.headers["Operation-Id"] == "one-retry-1"


async def test_a_follow_up_that_failed_has_its_own(api: Api, journal: Journal) -> None:
    """And so on; the first one still has the first."""
    await submitted(api, journal, started(), FAILED)
    await retry(api)
    await (await OperationStory.of(journal, "one-retry-1")).append(Canceled())
    second = await retry(api, "one-retry-1")
    assert (second.json()["id"], second.json()["retryOf"]) == ("one-retry-2", "one-retry-1")
    assert (await retry(api)).json()["id"] == "one-retry-1"
    monitor = (await api.status("one-retry-1")).json()
    assert (monitor["retryOf"], monitor["retriedBy"]) == ("one", "one-retry-2")


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ((), "is NotStarted: wait for its end, or cancel it"),
        ((started(),), "is Running: wait for its end, or cancel it"),
        ((started(), Succeeded(result=msgspec.Raw(b"null"))), "has succeeded, so there is nothing to do again"),
    ],
)
async def test_what_can_not_be_done_again(
    api: Api, journal: Journal, link: Connection, events: tuple[EventData, ...], message: str
) -> None:
    """It is refused, the error says what to do, and nothing is recorded."""
    await submitted(api, journal, *events)
    before = await stored_messages(link)
    answer = await retry(api)
    assert error(answer) == (409, "OperationNotRetriable")
    assert answer.json()["error"]["message"].startswith(f"operation one {message}")
    assert await stored_messages(link) == before


async def test_requests_that_are_none(api: Api, journal: Journal) -> None:
    """An unknown operation, another method, a body with something in it, a query."""
    await submitted(api, journal, Canceled())
    assert error(await retry(api, "two")) == (404, "OperationNotFound")
    assert error(await api.client.get("/status/one:retry")) == (405, "MethodNotAllowed")
    assert (await api.client.get("/status/one:retry")).headers["Allow"] == "POST"
    assert error(await retry(api, json={"input": INPUT})) == (400, "InvalidInput")
    assert error(await retry(api, content=b"{}")) == (415, "UnsupportedMediaType")
    assert error(await retry(api, params={"force": "1"})) == (400, "InvalidParameter")
    assert error(await retry(api, headers={"Origin": "https://evil.test"})) == (403, "CrossSiteRequest")
    assert (await retry(api, content=b" {} ", headers={"Content-Type": JSON})).status_code == 202


async def test_an_id_that_another_request_has(api: Api, journal: Journal) -> None:
    """No client takes the follow-up's id. What did so when 0.5.0 let it is not overwritten, nor taken for it."""
    await submitted(api, journal, started(), FAILED)
    assert error(await api.submit(headers={"Operation-Id": "one-retry-1"})) == (400, "InvalidHeader")
    await begin(journal, "one-retry-1")
    answer = await retry(api)
    assert error(answer) == (409, "OperationNotRetriable")
    assert "the id one-retry-1 belongs to another request" in answer.json()["error"]["message"]
    assert "retriedBy" not in (await api.status("one")).json()


async def test_the_present_version_takes_the_input_or_not(api: Api, journal: Journal, link: Connection) -> None:
    """The input is checked by the action as it is now; what it does not take is refused as in a submit."""

    class Narrow(msgspec.Struct, forbid_unknown_fields=True):
        title: int

    async def is_known() -> bool:
        return "(version 2)" in (await api.client.get("/openapi.json")).text

    await submitted(api, journal, started(), FAILED)
    await announce_action(link, spec(version=2, input_type=Narrow))
    await eventually(is_known, within=15)
    answer = await retry(api)
    assert error(answer) == (400, "InvalidInput")
    assert answer.json()["error"]["target"] == "title"


async def test_a_status_without_the_broker(api: Api, journal: Journal, broker: Broker) -> None:
    """What has ended can be read as before, without what follows up on it."""
    await submitted(api, journal, started(), FAILED)
    await retry(api)
    assert (await api.status("one")).json()["retriedBy"] == "one-retry-1"
    broker.pause()
    try:
        answer = await api.status("one")
    finally:
        broker.resume()
    assert (answer.status_code, answer.json()["status"]) == (200, "Failed")
    assert "retriedBy" not in answer.json()
