"""Unusual connections: pipelines, invalid HTTP, old versions, clients that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from opstream_api.http import responses
from opstream_journal import Connection, Journal, announce_action
from opstream_journal.runtime import http_server
from opstream_schemas.events import Progressed, Succeeded
from tests.support.api.endless_requests import ENDLESS, MOST, send_endlessly
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
@pytest.mark.parametrize("followers", [0, 1, 3, 200])
async def test_a_pipeline_whose_client_disconnects(api: Api, journal: Journal, header: str, followers: int) -> None:
    """Requests behind a waiting one do not hide that the client has disconnected: the wait ends."""
    story = await running(api, journal)
    path = f"/status/{story.operation.id}"
    held = get(f"{path}/events" if "Accept" in header else path, header)
    async with api.connection() as (_, writer):
        writer.write(held + get(path) * followers)
        await eventually(lambda: len(api.watchers) == 1)
    await eventually(lambda: not len(api.watchers))


async def test_a_pipeline_of_any_length_is_answered_in_order(
    api: Api, journal: Journal, link: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond what waits, no more is read until there is room; meanwhile the client's time does not run."""
    monkeypatch.setattr(http_server, "CHECK_TICKS", 1)
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(http_server, "BODY_SECONDS", 0.2)
    story = await running(api, journal)
    path = f"/status/{story.operation.id}"
    submits = [post("/book/1:upload-start", INPUT, f"Operation-Id: id-{number}") for number in range(60)]
    async with api.connection() as (reader, writer), api.connection() as (idle, _), asyncio.timeout(30):
        before = await stored_messages(link)
        writer.write(get(path, "Prefer: wait=60") + b"".join(submits) + get("/healthz") * 2000)
        await eventually(lambda: len(api.watchers) == 1)
        assert await idle.read() == b""  # a connection that does not go on is over its time
        assert await stored_messages(link) == before
        await story.append(Succeeded(result=msgspec.Raw(b"1")))
        assert b'"Succeeded"' in (await read_reply(reader)).body
        for number in range(60):
            reply = await read_reply(reader)
            assert (reply.status, reply.header("Operation-Id")) == (202, f"id-{number}")
        for _ in range(2000):
            assert (await read_reply(reader)).status == 200
        writer.write(get("/readyz"))
        assert (await read_reply(reader)).status == 200


async def test_a_pipeline_without_end_is_held_back(api: Api, journal: Journal) -> None:
    """The service keeps little of it: the client can't send further, until it is answered."""
    story = await running(api, journal)
    large = get("/healthz", f"X: {'x' * 30_000}")
    sent = 0
    async with api.connection() as (reader, writer):
        writer.write(get(f"/status/{story.operation.id}", "Prefer: wait=60"))
        while sent * len(large) < MOST:
            writer.write(large)
            sent += 1
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                break
        assert sent * len(large) < MOST
        await story.append(Succeeded(result=msgspec.Raw(b"1")))
        assert b'"Succeeded"' in (await read_reply(reader)).body
        for _ in range(sent):
            assert (await read_reply(reader)).status == 200


async def test_what_a_pipeline_is_not_answered_is_not_recorded(broker: Broker, link: Connection) -> None:
    """A stop answers those that wait; what the service has not read it does not do."""
    await announce_action(link, spec())
    async with serving(broker.url) as api:
        answer = await api.submit()
        submits = b"".join(post("/book/1:upload-start", INPUT, f"Operation-Id: id-{number}") for number in range(200))
        async with api.connection() as (reader, writer):
            writer.write(get(f"/status/{answer.json()['id']}", "Prefer: wait=60") + submits)
            await eventually(lambda: len(api.watchers) == 1)
            api.stop()
            answered = (await reader.read()).count(b"HTTP/1.1 202 ")
    assert 0 < answered < 100
    assert await stored_messages(link) == 1 + answered


async def test_an_invalid_request_behind_a_long_pipeline(api: Api, journal: Journal, link: Connection) -> None:
    """All before it are answered, and then the connection ends."""
    story = await running(api, journal)
    async with api.connection() as (reader, writer):
        requests = get(f"/status/{story.operation.id}", "Prefer: wait=60") + get("/healthz") * 200
        writer.write(requests + b"garbage\r\n\r\n" + SUBMIT)
        await eventually(lambda: len(api.watchers) == 1)
        before = await stored_messages(link)
        await story.append(Succeeded(result=msgspec.Raw(b"1")))
        assert (await reader.read()).count(b"HTTP/1.1 200 ") == 201
    assert await stored_messages(link) == before + 1


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


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: 13\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 13",
        b"Content-Length: 13\r\nContent-Length: 2",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: xchunked",
    ],
)
async def test_a_length_that_two_servers_read_in_two_ways(api: Api, link: Connection, lengths: bytes) -> None:
    """Such a request may hide another one from a proxy: it is refused, nothing is stored, and the connection ends."""
    async with api.connection() as (reader, writer):
        writer.write(SUBMIT.replace(b"Content-Length: 13", lengths) + SUBMIT)
        assert (await read_reply(reader)).status == 400
        assert await reader.read() == b""
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


async def test_an_old_client_gets_no_chunks(api: Api, journal: Journal) -> None:
    """HTTP/1.0 gets a history of any length as one document with its length (RFC 9112, 6.1)."""
    story = await running(api, journal)
    for percent in range(60):
        await story.append(Progressed(percent=float(percent)))
    reply = await api.raw(get(f"/status/{story.operation.id}/events", f"Accept: {JSON}", version="1.0"))
    assert "transfer-encoding" not in [name.lower() for name, _ in reply.headers]
    assert len(msgspec.json.decode(reply.body)["value"]) == 62


async def test_an_old_client_follows_a_stream_that_ends_with_the_connection(api: Api, journal: Journal) -> None:
    """nginx speaks HTTP/1.0 to its upstreams unless told otherwise; it passes on what comes, as it comes."""
    story = await running(api, journal)
    async with api.connection() as (reader, writer):
        writer.write(get(f"/status/{story.operation.id}/events", "Accept: text/event-stream", version="1.0"))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b"content-type: text/event-stream" in head
        assert b"transfer-encoding" not in head
        assert b"content-length" not in head
        assert b"connection: close" in head
        assert b"x-accel-buffering: no" in head
        first = await reader.readuntil(b"requested.v1")
        assert first.startswith(b"retry: 1000\n\n")  # no length of a chunk before it
        await story.append(Succeeded(result=msgspec.Raw(b"1")))
        rest = await reader.read()
        assert b"succeeded.v1" in rest
        assert rest.endswith(b"\n\n")


HELD = [
    ("no byte", b"", 0),
    ("half a request line", b"GET /heal", 408),
    ("half a head", b"GET /healthz HTTP/1.1\r\nHost: a\r\n", 408),
    ("empty lines", b"\r\n\r\n", 408),
    ("half a body", SUBMIT[:-3], 408),
    ("half a chunked body", SUBMIT.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", 408),
    ("the body of a refused path", post("/none", b"").replace(b"Length: 0", b"Length: 9"), 0),
]


@pytest.mark.parametrize(("held", "status"), [one[1:] for one in HELD], ids=[one[0] for one in HELD])
async def test_a_client_that_does_not_go_on_is_dropped(
    api: Api, link: Connection, monkeypatch: pytest.MonkeyPatch, held: bytes, status: int
) -> None:
    """Whatever it keeps back, its connection ends after a time, and nothing is recorded (slowloris)."""
    monkeypatch.setattr(http_server, "CHECK_TICKS", 1)
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(http_server, "BODY_SECONDS", 0.2)
    async with api.connection() as (reader, writer), asyncio.timeout(5):
        writer.write(held)
        if b"/none" in held:
            assert (await read_reply(reader)).status == 404
        if status:
            reply = await read_reply(reader)
            assert (reply.status, reply.header("x-ms-error-code")) == (status, "RequestTimeout")
        assert await reader.read() == b""
    assert await stored_messages(link) == 0
    await eventually(lambda: api.connections <= 1)  # that of the httpx client


async def test_trickled_bytes_gain_no_time(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte now and then, of a head or of a body, does not keep a connection."""
    monkeypatch.setattr(http_server, "CHECK_TICKS", 1)
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(http_server, "BODY_SECONDS", 0.5)
    for held in (b"GET / HTTP/1.1\r\nX: ", post("/book/1:upload-start").replace(b"Length: 0", b"Length: 200000")):
        async with api.connection() as (reader, writer), asyncio.timeout(8):
            writer.write(held)
            reading = asyncio.create_task(reader.read())
            while not reading.done():
                writer.write(b"x")
                await asyncio.wait([reading], timeout=0.05)
            assert reading.result().startswith(b"HTTP/1.1 408 ")


async def test_what_waits_or_streams_is_not_timed(api: Api, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limits are the client's: a request that has arrived takes as long as it takes."""
    monkeypatch.setattr(http_server, "CHECK_TICKS", 1)
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(http_server, "BODY_SECONDS", 0.2)
    story = await running(api, journal)
    path = f"/status/{story.operation.id}"
    async with api.connection() as (reader, writer), api.connection() as (events, follower):
        writer.write(get(path, "Prefer: wait=60"))
        follower.write(get(f"{path}/events", "Accept: text/event-stream"))
        await events.readuntil(b"requested.v1")
        async with api.connection() as (idle, _), asyncio.timeout(5):
            assert await idle.read() == b""  # a later connection is over its time
        await story.append(Succeeded(result=msgspec.Raw(b"1")))
        assert b'"Succeeded"' in (await read_reply(reader)).body
        await events.readuntil(b"succeeded.v1")


async def test_a_half_head_behind_a_waiting_request(
    api: Api, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waiting request gets its response, and then the connection ends."""
    monkeypatch.setattr(http_server, "CHECK_TICKS", 1)
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.2)
    story = await running(api, journal)
    async with api.connection() as (reader, writer), api.connection() as (idle, _), asyncio.timeout(8):
        writer.write(get(f"/status/{story.operation.id}", "Prefer: wait=60") + b"GET / HTT")
        await eventually(lambda: len(api.watchers) == 1)
        assert await idle.read() == b""
        await story.append(Succeeded(result=msgspec.Raw(b"1")))
        assert b'"Succeeded"' in (await read_reply(reader)).body
        assert await reader.read() == b""


async def test_a_full_service_refuses_and_recovers(broker: Broker, link: Connection) -> None:
    """A connection too many gets a 503, but for probes; the operator gets a condition, which ends with them."""
    async with serving(broker.url, max_connections=4) as api, api.connection() as (held, writer):

        async def conditions() -> list[str]:
            writer.write(get("/readyz"))
            shown = msgspec.json.decode((await read_reply(held)).body)
            return [one["name"] for one in shown.get("conditions", [])]

        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(api.connection())
            for sent, status in (
                (get("/healthz"), 200),
                (get("/readyz?a=1"), 200),
                (get("/status/1"), 503),
                (b"", 503),
            ):
                async with api.connection() as (reader, probe):
                    probe.write(sent)
                    reply = await read_reply(reader)
                    assert reply.status == status
                    if status == 503:
                        assert reply.header("x-ms-error-code") == "TooManyConnections"
                        assert reply.header("Retry-After") == "1"
                    assert await reader.read() == b""  # a probe has no second request
            assert await conditions() == ["TooManyConnections"]

        async def is_over() -> bool:
            return not await conditions()

        await eventually(is_over)


async def test_the_reserve_for_probes_ends(broker: Broker, link: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it a connection is refused at once, whatever it would ask; who keeps one silent loses it soon."""
    monkeypatch.setattr(http_server, "PROBE_SECONDS", 60.0)
    async with serving(broker.url, max_connections=2) as api, contextlib.AsyncExitStack() as stack:
        for _ in range(2 + http_server.PROBE_RESERVE):
            await stack.enter_async_context(api.connection())
        async with api.connection() as (reader, _):
            assert (await read_reply(reader)).header("x-ms-error-code") == "TooManyConnections"


@pytest.mark.parametrize("part", ENDLESS)
async def test_a_request_without_end_is_dropped(api: Api, link: Connection, part: str) -> None:
    """After little more than a head may have. Nothing is recorded, and the service goes on."""
    start, piece = ENDLESS[part]
    async with asyncio.timeout(20):
        answer, sent = await send_endlessly(
            api.port, start.replace(b"POST /healthz", b"POST /book:upload-start"), piece
        )
    assert sent < MOST
    assert answer.startswith(b"HTTP/1.1 400")
    assert (await api.client.get("/healthz")).status_code == 200
    assert await stored_messages(link) == 0


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


@pytest.mark.parametrize("path", ["/status/a:b/events", "/docs", "/docs/", "/docs/page.css", "/healthz"])
async def test_a_readable_path_refuses_other_methods(api: Api, path: str) -> None:
    """And says which it takes."""
    answer = await api.client.put(f"{api.url}{path}")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_a_position_that_no_event_has(api: Api, journal: Journal) -> None:
    """The stream of a running operation can't continue after an event that does not exist."""
    story = await running(api, journal)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "999"}
    answer = await api.client.get(f"/status/{story.operation.id}/events", headers=headers)
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, "Last-Event-ID")


async def half_closed(api: Api, request: bytes) -> bytes:
    """Send a request, close this side, and read what comes until the other side is closed, too."""
    async with api.connection() as (reader, writer):
        writer.write(request)
        writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()


async def test_a_client_that_sends_no_more_is_answered(api: Api, journal: Journal) -> None:
    """It may still read: submits, cancels and reads are answered, and then the connection ends."""
    story = await running(api, journal)
    assert (await half_closed(api, SUBMIT)).startswith(b"HTTP/1.1 202 ")
    assert b'"status":"Running"' in await half_closed(api, get(f"/status/{story.operation.id}"))
    pipeline = get("/healthz") + get(f"/status/{story.operation.id}")
    assert (await half_closed(api, pipeline)).count(b"HTTP/1.1 200 ") == 2
    assert (await half_closed(api, post(f"/status/{story.operation.id}:cancel"))).startswith(b"HTTP/1.1 200 ")
    await eventually(lambda: not api.connections or api.connections == 1)


async def test_a_client_that_sends_no_more_does_not_wait_for_long(
    api: Api, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most clients whose end is seen are gone, so a wait for one ends, and the connection with it."""
    monkeypatch.setattr(http_server, "HALF_CLOSED_SECONDS", 0.2)
    story = await running(api, journal)
    assert await half_closed(api, get(f"/status/{story.operation.id}", "Prefer: wait=60")) == b""
    await eventually(lambda: not len(api.watchers))


async def test_half_a_request_is_not_answered(api: Api) -> None:
    """What is missing never comes."""
    assert await half_closed(api, SUBMIT[:-3]) == b""
