"""Unusual connections: pipelines, invalid HTTP, old versions, clients that do not read."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from opstream_api.http import responses
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Progressed, Succeeded
from tests.support.api.service import (
    JSON,
    Api,
    OperationStory,
    post,
    read_reply,
    serving,
    spec,
    started,
    stored_messages,
)
from tests.support.broker.server import Broker
from tests.support.system.wait import eventually

pytestmark = pytest.mark.broker

INPUT = b'{"title":"x"}'
SUBMIT = post("/book/1:upload-start", INPUT, f"Content-Type: {JSON}", "Operation-Id: mine")
LARGE = Succeeded(result=msgspec.Raw(b'"' + b"x" * 250_000 + b'"'))


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service whose catalog has one action."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        yield api


async def running(api: Api, journal: Journal) -> OperationStory:
    """An operation that a runner has started."""
    story = await OperationStory.of(journal, (await api.submit()).json()["id"])
    await story.append(started())
    return story


def get(path: str, *headers: str, version: str = "1.1") -> bytes:
    """The bytes of a GET."""
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: api.test", *headers, "", ""]).encode()


@pytest.mark.parametrize("header", ["Accept: text/event-stream", "Prefer: wait=60"])
@pytest.mark.parametrize("followers", [0, 1, 3])
async def test_a_pipeline_whose_client_disconnects(api: Api, journal: Journal, header: str, followers: int) -> None:
    """Requests behind a waiting one do not hide that the client has disconnected: the wait ends."""
    story = await running(api, journal)
    path = f"/status/{story.operation.id}"
    held = get(f"{path}/events" if "Accept" in header else path, header)
    async with api.connection() as (_, writer):
        writer.write(held + get(path) * followers)
        await eventually(lambda: len(api.watchers) == 1)
    await eventually(lambda: not len(api.watchers))


async def test_a_pipeline_without_end(api: Api, journal: Journal) -> None:
    """Too many requests behind a waiting one end the connection, and leave nothing."""
    story = await running(api, journal)
    path = f"/status/{story.operation.id}"
    async with api.connection() as (reader, writer):
        writer.write(get(path, "Prefer: wait=60") + get(path) * 50)
        assert await reader.read() == b""
    await eventually(lambda: not len(api.watchers))


async def test_a_pipeline_is_answered_in_order(api: Api, journal: Journal) -> None:
    """Requests behind a waiting one get their responses after it."""
    story = await running(api, journal)
    path = f"/status/{story.operation.id}"
    async with api.connection() as (reader, writer):
        writer.write(get(path, "Prefer: wait=60") + get("/healthz"))
        await eventually(lambda: len(api.watchers) == 1)
        await story.append(Succeeded(result=msgspec.Raw(b"1")))
        assert b'"Succeeded"' in (await read_reply(reader)).body
        assert (await read_reply(reader)).body == b'{"status":"ok"}'


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"\x00" * 50, b"GET / HTTP/9.9\r\n\r\n"])
async def test_garbage_after_a_submit(api: Api, link: Connection, garbage: bytes) -> None:
    """A stored submit gets its 202, whatever follows it on the connection; then the connection ends."""
    async with api.connection() as (reader, writer):
        writer.write(SUBMIT + garbage)
        reply = await read_reply(reader)
        assert (reply.status, msgspec.json.decode(reply.body)["id"]) == (202, "mine")
        assert await reader.read() == b""
    assert await stored_messages(link) == 1


async def test_garbage_instead_of_a_body(api: Api, link: Connection) -> None:
    """An invalid request is refused, and nothing is stored."""
    head = SUBMIT.replace(b"Content-Length: 13", b"Transfer-Encoding: chunked").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    reply = await api.raw(head + b"zz\r\n")
    assert reply.status == 400
    assert await stored_messages(link) == 0


async def test_an_invalid_request_behind_a_waiting_one(api: Api, journal: Journal) -> None:
    """The waiting request gets its own response, not that of the invalid one."""
    story = await running(api, journal)
    broken = b"POST /book:upload-start HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    async with api.connection() as (reader, writer):
        writer.write(get(f"/status/{story.operation.id}", "Prefer: wait=60") + broken)
        await eventually(lambda: len(api.watchers) == 1)
        await story.append(Succeeded(result=msgspec.Raw(b"1")))
        reply = await read_reply(reader)
        assert (reply.status, msgspec.json.decode(reply.body)["status"]) == (200, "Succeeded")
        assert await reader.read() == b""


@pytest.mark.parametrize("accept", ["text/event-stream", JSON])
async def test_an_old_client_gets_no_chunks(api: Api, journal: Journal, accept: str) -> None:
    """HTTP/1.0 gets a history of any length as one document with its length (RFC 9112, 6.1)."""
    story = await running(api, journal)
    for percent in range(60):
        await story.append(Progressed(percent=float(percent)))
    reply = await api.raw(get(f"/status/{story.operation.id}/events", f"Accept: {accept}", version="1.0"))
    assert "transfer-encoding" not in [name.lower() for name, _ in reply.headers]
    assert len(msgspec.json.decode(reply.body)["value"]) == 62


@pytest.mark.parametrize("what", ["", "/events"])
async def test_a_client_that_never_reads_is_dropped(
    api: Api, broker: Broker, journal: Journal, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A large response that the client does not read, or the last piece of a stream, is not kept forever."""
    monkeypatch.setattr(responses, "WRITE_TIMEOUT", 0.5)
    story = await running(api, journal)
    await story.append(LARGE)
    async with serving(broker.url, send_buffer=4096) as other:
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(("127.0.0.1", other.port))
            lazy.sendall(get(f"/status/{story.operation.id}{what}", "Accept: text/event-stream"))
            await eventually(lambda: other.connections == 1)
            await eventually(lambda: other.connections == 0, within=15)


@pytest.mark.parametrize("path", ["/status/x/", "//status/x", "/status/a:b/events", "/docs/", "/healthz/"])
async def test_a_readable_path_in_any_spelling(api: Api, path: str) -> None:
    """A path for reads refuses other methods, however many slashes it has."""
    answer = await api.client.put(f"{api.url}{path}")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_a_position_that_no_event_has(api: Api, journal: Journal) -> None:
    """The stream of a running operation can't continue after an event that does not exist."""
    story = await running(api, journal)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "999"}
    answer = await api.client.get(f"/status/{story.operation.id}/events", headers=headers)
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, "Last-Event-ID")
