"""OASIS Repeatable Requests on a real broker."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from opstream_journal import Connection, announce_action
from tests.support.api.service import INPUT, JSON, Api, post, serving, spec, stored_messages
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

FIRST_SENT = "Tue, 24 Nov 2026 08:00:00 GMT"


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


def pair(request_id: str = "") -> dict[str, str]:
    """The headers of a repeatable request."""
    return {"Repeatability-Request-ID": request_id or str(uuid.uuid4()), "Repeatability-First-Sent": FIRST_SENT}


async def test_fifty_identical_requests_at_once(api: Api, broker: Broker, link: Connection) -> None:
    """Two replicas accept all of them as one operation, whose status can be read."""
    headers = pair()
    async with serving(broker.url) as other:
        answers = await asyncio.gather(*((api, other)[n % 2].submit(headers=headers) for n in range(50)))
    assert {(answer.status_code, answer.headers["Repeatability-Result"]) for answer in answers} == {(202, "accepted")}
    (operation_id,) = {answer.json()["id"] for answer in answers}
    assert await stored_messages(link) == 1
    assert answers[0].headers["Operation-Location"] == f"{api.url}/status/{operation_id}"
    assert (await api.status(operation_id)).json()["status"] == "NotStarted"


async def test_fifty_requests_for_one_pair_at_once(api: Api, link: Connection) -> None:
    """One is accepted, the others are rejected with the header that names another request."""
    headers = pair()
    answers = await asyncio.gather(*(api.submit(body={"title": str(n)}, headers=headers) for n in range(50)))
    accepted = [answer for answer in answers if answer.status_code == 202]
    rejected = [answer for answer in answers if answer.status_code == 400]
    assert (len(accepted), len(rejected)) == (1, 49)
    assert {answer.headers["Repeatability-Result"] for answer in rejected} == {"rejected"}
    errors = [answer.json()["error"] for answer in rejected]
    assert {(error["code"], error["target"]) for error in errors} == {("OperationIdReused", "Repeatability-Request-ID")}
    assert await stored_messages(link) == 1


async def test_another_pair_is_another_operation(api: Api) -> None:
    """The same input under another id, or with another date, is another request."""
    request_id = str(uuid.uuid4())
    later = pair(request_id) | {"Repeatability-First-Sent": "Tue, 24 Nov 2026 08:00:01 GMT"}
    answers = [await api.submit(headers=headers) for headers in (pair(request_id), later, pair())]
    assert len({answer.json()["id"] for answer in answers}) == 3


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Operation-Id": "mine"}, "InvalidHeader"),
        ({"Repeatability-First-Sent": "yesterday"}, "InvalidHeader"),
        ({"Repeatability-Request-ID": ""}, "InvalidHeader"),
        ({"Content-Type": "text/plain"}, "UnsupportedMediaType"),
    ],
)
async def test_a_refused_request_is_rejected(api: Api, link: Connection, changes: dict[str, str], code: str) -> None:
    """For any error the response says in OASIS terms that nothing was done."""
    answer = await api.submit(headers=pair() | changes)
    assert (answer.json()["error"]["code"], answer.headers["Repeatability-Result"]) == (code, "rejected")
    assert await stored_messages(link) == 0


async def test_a_wrong_input_may_be_corrected(api: Api) -> None:
    """A refused request does not use up its pair."""
    headers = pair()
    assert (await api.submit(body={}, headers=headers)).headers["Repeatability-Result"] == "rejected"
    assert (await api.submit(body=INPUT, headers=headers)).headers["Repeatability-Result"] == "accepted"


async def test_requests_without_the_pair_have_no_result(api: Api) -> None:
    """Without the pair, neither an accepted nor a refused request gets the header."""
    for body in (INPUT, {}):
        assert "Repeatability-Result" not in (await api.submit(body=body)).headers


async def test_without_a_broker_there_is_no_result(api: Api, broker: Broker) -> None:
    """A 503 neither accepts nor rejects, and names the operation id for a retry."""
    broker.stop()
    answer = await api.submit(headers=pair())
    assert answer.status_code == 503
    assert "Repeatability-Result" not in answer.headers
    error = answer.json()["error"]
    assert len(error["operationId"]) == 43
    assert "the same Repeatability headers" in error["message"]
    assert "Operation-Id" not in error["message"]


async def test_an_unknown_path_is_rejected(api: Api) -> None:
    """Also for a path that is no submit's."""
    answer = await api.submit("/book/%ZZ:upload-start", headers=pair())
    assert (answer.status_code, answer.headers["Repeatability-Result"]) == (400, "rejected")


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"Host": "evil.example"}, 421),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ("PUT", {}, 405),
        ("OPTIONS", {}, 405),
        ("PROPFIND", {}, 405),
        ("POST", {"Operation-Callback": "http://"}, 400),
    ],
)
async def test_what_is_refused_before_the_action_is_rejected(
    broker: Broker, link: Connection, method: str, headers: dict[str, str], status: int
) -> None:
    """By the host, the site or the method. A request without the pair has no such header."""
    async with serving(broker.url, allowed_hosts=()) as local:
        for sent in (pair(), pair() | {"Repeatability-First-Sent": "yesterday"}, {}):
            answer = await local.client.request(method, "/book/1:upload-start", headers=sent | headers)
            assert answer.status_code == status
            assert answer.headers.get("Repeatability-Result") == ("rejected" if sent else None)
            status_answer = await local.client.request(method, "/status/1:cancel", headers=sent | headers)
            assert "Repeatability-Result" not in status_answer.headers


async def test_the_header_is_spelled_as_in_the_contract(api: Api) -> None:
    """Some clients compare header names exactly."""
    lines = [f"{name}: {value}" for name, value in pair().items()]
    reply = await api.raw(post("/book/1:upload-start", b'{"title":"x"}', f"Content-Type: {JSON}", *lines))
    assert reply.header("Repeatability-Result") == "accepted"
