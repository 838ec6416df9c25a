"""Submits on a real broker: the responses and the stored events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import RecordedEvent, Requested, Succeeded, Trace
from opstream_schemas.names import Kind
from opstream_schemas.status_monitor import request_hash
from tests.support.api.service import (
    INPUT,
    JSON,
    UPLOAD,
    Api,
    OperationStory,
    post,
    serving,
    spec,
    started,
    stored_messages,
)
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FINISH = Kind("book", "upload-finish")


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has two actions."""
    await announce_action(link, spec(retry_after=3))
    await announce_action(link, spec(FINISH, version=7))
    async with serving(broker.url) as api:
        yield api


async def only_event(journal: Journal, operation_id: str) -> RecordedEvent:
    """Return the one event of an operation."""
    (event,) = await journal.events(operation_id)
    return event


async def test_a_submit_is_accepted(api: Api) -> None:
    """202, the URL of the status, `Retry-After`, and the monitor with its first members in order."""
    answer = await api.submit()
    body = answer.json()
    assert answer.status_code == 202
    assert list(body)[:2] == ["id", "status"]
    assert UUID7.fullmatch(body["id"])
    assert (body["status"], body["kind"], body["resourceId"]) == ("NotStarted", "book:upload-start", "42")
    assert not body.keys() & {"result", "error", "attempt", "startedAt", "finishedAt"}
    assert answer.headers["Operation-Location"] == f"{api.url}/status/{body['id']}"
    assert answer.headers["Operation-Id"] == body["id"]
    assert answer.headers["Retry-After"] == "3"
    assert answer.headers["Content-Type"] == "application/json"
    followed = await api.client.get(answer.headers["Operation-Location"])
    assert (followed.status_code, followed.json()) == (200, body)


async def test_the_request_is_recorded(api: Api, journal: Journal) -> None:
    """One event, with everything that the runner and an auditor need, and the input byte for byte."""
    body = b' { "files" : [ ] , "title":"M\\u00fcller" } \n'
    answer = await api.client.post(
        "/book/b%C3%BCcher:upload-start",
        content=body,
        headers={
            "Content-Type": JSON,
            "Operation-Id": "my-id",
            "traceparent": PARENT,
            "tracestate": "a=1",
            "X-Unknown": "tolerated",
        },
    )
    assert answer.status_code == 202
    event = await only_event(journal, "my-id")
    data = event.data
    assert isinstance(data, Requested)
    assert (event.position, event.previous_hash, event.source) == (1, "", "opstream/api")
    assert (data.resource, data.action, data.resource_id) == ("book", "upload-start", "bücher")
    assert (data.action_version, data.caller) == (1, "")
    assert bytes(data.input) == body.strip()
    assert data.request_hash == request_hash(UPLOAD, "bücher", {"title": "Müller", "files": []}, "")
    assert data.trace == Trace(traceparent=PARENT, tracestate="a=1")
    assert data.deadline == event.time + timedelta(days=1)
    assert data.retention == 86_400


async def test_an_action_without_a_resource(api: Api, journal: Journal) -> None:
    """`POST /{resource}:{action}` has no resource id."""
    answer = await api.submit("/book:upload-finish?api-version=2026-01-01")
    event = await only_event(journal, answer.json()["id"])
    assert answer.status_code == 202
    assert "resourceId" not in answer.json()
    assert isinstance(event.data, Requested)
    assert (event.data.resource_id, event.data.action, event.data.action_version) == ("", "upload-finish", 7)


async def test_the_largest_body_is_stored(api: Api, journal: Journal) -> None:
    """A body of exactly the limit of an event, with the longest id and trace, is in the event."""
    title = "x" * (256 * 1024 - len('{"title":""}'))
    headers = {"Operation-Id": "i" * 64, "traceparent": PARENT, "tracestate": "s" * 512}
    answer = await api.submit(f"/book/{'ü' * 256}:upload-start", {"title": title}, headers)
    assert answer.status_code == 202
    event = await only_event(journal, "i" * 64)
    assert isinstance(event.data, Requested)
    assert len(bytes(event.data.input)) == 256 * 1024


async def test_the_same_request_again_is_the_same_operation(api: Api, journal: Journal) -> None:
    """Key order and whitespace do not matter; nothing is stored twice."""
    headers = {"Operation-Id": "again"}
    first = await api.submit(headers=headers)
    other_order = dict(reversed(INPUT.items()))
    second = await api.submit(body=other_order, headers=headers)
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["Operation-Location"] == first.headers["Operation-Location"]
    await only_event(journal, "again")


async def test_the_same_request_again_shows_the_real_status(api: Api, journal: Journal) -> None:
    """A client that repeats its request late finds the operation running, then ended."""
    headers = {"Operation-Id": "late"}
    await api.submit(headers=headers)
    story = await OperationStory.of(journal, "late")
    await story.append(started())
    running = await api.submit(headers=headers)
    assert (running.status_code, running.json()["status"], running.headers["Retry-After"]) == (202, "Running", "3")
    await story.append(Succeeded(result=msgspec.Raw(b'{"transaction":"t"}')))
    finished = await api.submit(headers=headers)
    assert (finished.status_code, finished.json()["status"]) == (202, "Succeeded")
    assert finished.json()["result"] == {"transaction": "t"}
    assert "Retry-After" not in finished.headers


async def test_an_id_belongs_to_one_request(api: Api, journal: Journal) -> None:
    """Another input, resource or action with the id is refused and leaves no event."""
    headers = {"Operation-Id": "taken"}
    await api.submit(headers=headers)
    others: list[tuple[str, Any]] = [
        ("/book/42:upload-start", {"title": "Ulysses"}),
        ("/book/43:upload-start", INPUT),
        ("/book:upload-start", INPUT),
        ("/book/42:upload-finish", INPUT),
    ]
    for path, body in others:
        answer = await api.submit(path, body, headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "OperationIdReused")
    await only_event(journal, "taken")


class Weighing(msgspec.Struct):
    """An input with numbers."""

    weight: float
    tags: list[float] = []


async def test_a_repetition_may_write_its_numbers_in_another_way(api: Api, link: Connection, journal: Journal) -> None:
    """By either key, it is the same request; another value, or one of another resource, is not."""
    kind = Kind("book", "weigh")
    await announce_action(link, spec(kind, input_type=Weighing))
    pair = {"Repeatability-Request-ID": "weighing", "Repeatability-First-Sent": "Tue, 24 Nov 2026 08:00:00 GMT"}
    for key in ({"Operation-Id": "weighing"}, pair):
        headers = {"Content-Type": JSON, **key}
        first = await api.client.post("/book/1:weigh", content=b'{"weight": 1, "tags": [1e2]}', headers=headers)
        for body in (
            b'{"weight": 1, "tags": [1e2]}',
            b'{"weight":1.0,"tags":[100]}',
            b'{"tags": [100.00], "weight": 10e-1}',
        ):
            again = await api.client.post("/book/1:weigh", content=body, headers=headers)
            assert (again.status_code, again.json()) == (202, first.json())
        for path, body in (
            ("/book/1:weigh", b'{"weight": 1.5, "tags": [1e2]}'),
            ("/book/1:weigh", b'{"weight": 1}'),
            ("/book/2:weigh", b'{"weight": 1.0, "tags": [1e2]}'),
        ):
            other = await api.client.post(path, content=body, headers=headers)
            assert (other.status_code, other.json()["error"]["code"]) == (400, "OperationIdReused")
    assert await stored_messages(link) == 2
    data = (await only_event(journal, "weighing")).data
    assert isinstance(data, Requested)
    assert bytes(data.input) == b'{"weight": 1, "tags": [1e2]}'


@pytest.mark.parametrize(
    ("body", "target"),
    [
        (b'{"weight": 1, "weight": 2}', "weight"),
        (b'{"weight": "1"}', "weight"),
        (b'{"weight": 1e400}', "weight"),
        (b'{"weight": 1, "tags": [1, true]}', "tags[1]"),
    ],
)
async def test_what_the_runner_could_not_decode_is_refused(
    api: Api, link: Connection, body: bytes, target: str
) -> None:
    """It leaves no event."""
    await announce_action(link, spec(Kind("book", "weigh"), input_type=Weighing))
    answer = await api.client.post("/book/1:weigh", content=body, headers={"Content-Type": JSON})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["target"]) == (400, "InvalidInput", target)
    assert await stored_messages(link) == 0


async def test_fifty_identical_submits_at_once(api: Api, link: Connection) -> None:
    """All are accepted, as one operation."""
    answers = await asyncio.gather(*(api.submit(headers={"Operation-Id": "crowd"}) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert {answer.json()["id"] for answer in answers} == {"crowd"}
    assert await stored_messages(link) == 1


async def test_fifty_requests_for_one_id_at_once(api: Api, link: Connection) -> None:
    """One is accepted, the others get the error."""
    answers = await asyncio.gather(
        *(api.submit(body={"title": f"Book {number}"}, headers={"Operation-Id": "prize"}) for number in range(50))
    )
    assert sorted(answer.status_code for answer in answers) == [202] + [400] * 49
    codes = {answer.headers.get("x-ms-error-code") for answer in answers}
    assert codes == {None, "OperationIdReused"}
    assert await stored_messages(link) == 1


async def test_an_action_announced_later_is_known(api: Api, link: Connection) -> None:
    """The catalog is read again before an action is called unknown."""
    kind = Kind("author", "import")
    assert (await api.submit("/author:import")).json()["error"]["code"] == "UnknownAction"
    await announce_action(link, spec(kind))
    assert (await api.submit("/author:import")).status_code == 202
    assert "/author/{id}:import" in (await api.client.get("/openapi.json")).json()["paths"]


async def test_an_announced_action_is_described_at_once(api: Api, link: Connection) -> None:
    """The document is as new as the catalog, without waiting for a notification."""
    for number in range(20):
        await announce_action(link, spec(Kind("author", f"import-{number}")))
        assert f"/author/{{id}}:import-{number}" in (await api.client.get("/openapi.json")).json()["paths"]


async def test_the_document_without_a_broker(api: Api, broker: Broker) -> None:
    """While the broker is unreachable, the known actions are described."""
    broker.stop()
    assert "/book/{id}:upload-start" in (await api.client.get("/openapi.json")).json()["paths"]


async def test_links_start_with_the_public_url(broker: Broker, link: Connection) -> None:
    """Behind a proxy, the request's own `Host` is that of the proxy's upstream."""
    await announce_action(link, spec())
    async with serving(broker.url, public_url="https://api.example/books/") as api:
        answer = await api.raw(post("/book:upload-start", b'{"title":"x"}', "Operation-Id: one", host="upstream:8080"))
    assert (answer.status, answer.header("Operation-Location")) == (202, "https://api.example/books/status/one")


async def test_forwarding_headers_are_not_trusted(api: Api) -> None:
    """Any client could send them."""
    headers = ("X-Forwarded-Proto: https", "X-Forwarded-Host: evil.test", "Forwarded: host=evil.test")
    answer = await api.raw(post("/book:upload-start", b'{"title":"x"}', "Operation-Id: one", *headers))
    assert answer.header("Operation-Location") == "http://api.test/status/one"
