"""The documents and their page on a real service: current, and served by itself."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import pytest

from opstream_journal import Connection, announce_action
from opstream_schemas.names import Kind
from tests.support.api.service import UPLOAD, Api, serving, spec
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service with one action."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


async def test_the_document_changes_as_actions_come(api: Api, link: Connection) -> None:
    """The next response after an announcement has the new action, or the new version of one."""

    async def submits() -> dict[str, str]:
        paths = (await api.client.get("/openapi.json")).json()["paths"]
        found = {path: item["post"]["summary"] for path, item in paths.items() if "post" in item}
        return {
            path: summary
            for path, summary in found.items()
            if not path.startswith(("/status/", "/schedules", "/actions", "/webhooks/", "/subscribers/", "/payloads"))
        }

    assert await submits() == {
        "/book/{id}:upload-start": "Test book:upload-start",
        "/book:upload-start": "Test book:upload-start",
    }
    await announce_action(link, spec(Kind("author", "greet")))
    assert list(await submits()) == [
        "/author/{id}:greet",
        "/author:greet",
        "/book/{id}:upload-start",
        "/book:upload-start",
    ]
    await announce_action(link, spec(UPLOAD, version=2, input_type=int))
    document = (await api.client.get("/openapi.json")).json()
    assert document["components"]["schemas"]["book.upload-start.input"] == {"type": "integer"}
    assert "version 2" in document["paths"]["/book:upload-start"]["post"]["description"]


async def test_the_events_document_changes_as_actions_come(api: Api, link: Connection) -> None:
    """The next response after an announcement has channels of a new action, and the new types of a new version."""

    async def typed() -> list[str]:
        channels = (await api.client.get("/asyncapi.json")).json()["channels"]
        return [name for name in channels if name.count(".") == 2]

    assert await typed() == ["book.upload-start.requested", "book.upload-start.succeeded"]
    await announce_action(link, spec(Kind("author", "greet")))
    assert (await typed())[:2] == ["author.greet.requested", "author.greet.succeeded"]
    await announce_action(link, spec(UPLOAD, version=2, input_type=int))
    document = (await api.client.get("/asyncapi.json")).json()
    assert document["components"]["schemas"]["book.upload-start.input"] == {"type": "integer"}
    assert "version 2" in document["channels"]["book.upload-start.requested"]["description"]


async def test_the_events_document_without_the_broker(broker: Broker, api: Api) -> None:
    """It has the known actions, and names no broker."""
    broker.kill()
    answer = await api.client.get("/asyncapi.json")
    assert answer.status_code == 200
    assert "book.upload-start.succeeded" in answer.json()["channels"]
    assert broker.url.rpartition(":")[2] not in answer.text


async def test_both_documents_are_answered_alike(api: Api) -> None:
    """HEAD has the headers of GET, and other methods get 405 with `Allow`."""
    for path, version in (("/openapi.json", "openapi"), ("/asyncapi.json", "asyncapi")):
        answer = await api.client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json()[version].startswith("3.")
        head = await api.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == answer.headers["content-length"]
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            refused = await api.client.request(method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD"), (method, path)
            assert refused.json()["error"]["code"] == "MethodNotAllowed"


async def test_the_page_and_its_files(api: Api) -> None:
    """Unencoded, with gzip, and 304 for a current client; HEAD has the same headers without a body."""
    page = await api.client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "x-ms-request-id" in page.headers
    path = "/docs/swagger-ui-bundle.js"
    plain = await api.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    packed = await api.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n".encode())
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 3
    again = await api.client.get(path, headers={"If-None-Match": packed.header("ETag")})
    assert (again.status_code, again.content) == (304, b"")
    head = await api.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(packed.body)


async def test_a_slash_at_the_end(api: Api) -> None:
    """It redirects to the page itself, also behind a prefix, since the page's links are relative to that path."""
    answer = await api.client.get("/docs/")
    assert (answer.status_code, answer.headers["location"]) == (308, "../docs")
    assert (await api.client.get("/docs/", follow_redirects=True)).url.path == "/docs"


async def test_other_files_are_not_found(api: Api) -> None:
    """With the contract's body."""
    for path in ("/docs/nothing.js", "/docs/docs", "/docs/a/b", "/docs/..%2Fdocs", "/docs/%00"):
        answer = await api.client.get(path)
        assert (answer.status_code, answer.headers["x-ms-error-code"]) == (404, "NotFound"), path
        assert answer.json()["error"]["code"] == "NotFound"


async def test_other_methods_are_refused(api: Api) -> None:
    """With the contract's body and the allowed methods."""
    for path in ("/docs", "/docs/init.js", "/docs/nothing.js"):
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            answer = await api.client.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD"), (method, path)
            assert answer.json()["error"]["code"] == "MethodNotAllowed"
