"""HTTP itself, byte for byte: header names, request ids, connections, incomplete bodies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from opstream_api.openapi.shared import CLIENT_ID_PATTERN
from opstream_journal import Connection, Journal, announce_action
from opstream_schemas.events import Requested
from tests.support.api.service import JSON, Api, post, read_reply, serving, spec, stored_messages
from tests.support.broker.server import Broker

pytestmark = pytest.mark.broker

PATH = "/book/42:upload-start"
VALID = b'{"title":"x"}'
LIMIT = 4096
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


def request_head(*headers: str) -> bytes:
    """The head of a submit of JSON."""
    return "\r\n".join([f"POST {PATH} HTTP/1.1", "Host: a", f"Content-Type: {JSON}", *headers, "", ""]).encode()


@pytest.fixture
async def api(broker: Broker, link: Connection) -> AsyncIterator[Api]:
    """A service with a small limit for bodies."""
    await announce_action(link, spec())
    async with serving(broker.url, body_limit=LIMIT) as api:
        yield api


async def test_headers_are_spelled_as_in_the_contract(api: Api) -> None:
    """Some clients compare header names exactly."""
    reply = await api.raw(post(PATH, VALID))
    names = [name for name, _ in reply.headers]
    assert reply.status == 202
    assert {"Operation-Location", "Retry-After", "Content-Type", "x-ms-request-id"} <= set(names)
    assert len({name.lower() for name in names}) == len(names)
    status = await api.raw(
        f"GET /status/{reply.header('Operation-Location')[-36:]} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    )
    assert {"Retry-After", "Content-Type", "x-ms-request-id"} <= {name for name, _ in status.headers}


async def test_every_response_has_its_own_request_id(api: Api) -> None:
    """The client's own id is echoed beside it, if it is valid."""
    sent = GET.replace(b"Host", b"x-ms-client-request-id: mine 1\r\nHost")
    first, second = await api.raw(sent), await api.raw(sent)
    assert first.header("x-ms-request-id") != second.header("x-ms-request-id")
    assert first.header("x-ms-client-request-id") == "mine 1"
    silly = await api.raw(GET.replace(b"Host", b"x-ms-client-request-id: m\xfcll\r\nHost"))
    assert "x-ms-client-request-id" not in [name for name, _ in silly.headers]


async def test_which_ids_of_a_client_are_echoed(api: Api) -> None:
    """Those of which the document has the pattern; the others are ignored, and two are none."""
    for value in ("x", "~ !", "x" * 128, "x" * 129, "m\xfcll", "a\tb", ""):
        reply = await api.raw(GET.replace(b"Host", f"x-ms-client-request-id: {value}\r\nHost".encode("latin-1")))
        assert reply.status == 200
        echoed = [found for name, found in reply.headers if name == "x-ms-client-request-id"]
        assert echoed == ([value] if re.fullmatch(CLIENT_ID_PATTERN, value) else [])
    twice = await api.raw(GET.replace(b"Host", b"x-ms-client-request-id: a\r\nX-ms-client-request-id: a\r\nHost"))
    assert "x-ms-client-request-id" not in [name for name, _ in twice.headers]


async def test_a_connection_is_used_again(api: Api) -> None:
    """After successes and errors, also after a body that was too large."""
    async with api.connection() as (reader, writer):
        for sent, status in (
            (post(PATH, VALID), 202),
            (post(PATH, b"x" * (LIMIT + 1)), 413),
            (post(PATH, b"{"), 400),
            (GET, 200),
        ):
            writer.write(sent)
            assert (await read_reply(reader)).status == status


async def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    """Each gets its own response."""
    async with api.connection() as (reader, writer):
        writer.write(post(PATH, VALID) + GET + post(PATH, b"{"))
        assert [(await read_reply(reader)).status for _ in range(3)] == [202, 200, 400]


async def test_a_body_in_chunks(api: Api) -> None:
    """Its length need not be declared."""
    head = request_head("Transfer-Encoding: chunked")
    reply = await api.raw(head, b'5\r\n{"tit\r\n', b'8\r\nle":"x"}\r\n', b"0\r\n\r\n")
    assert reply.status == 202


async def test_a_body_without_end_ends_the_connection(api: Api) -> None:
    """The response comes before the last chunk, since there is none."""
    async with api.connection() as (reader, writer):
        writer.write(b"POST /book:upload-start HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(33)))
        reply = await read_reply(reader)
        assert (reply.status, reply.header("x-ms-error-code")) == (413, "PayloadTooLarge")
        assert await reader.read() == b""


async def test_a_client_that_asks_first(api: Api) -> None:
    """With `Expect: 100-continue` it gets the error before it sends its body."""
    for length, status in ((LIMIT + 1, 413), (len(VALID), 202)):
        async with api.connection() as (reader, writer):
            writer.write(request_head("Expect: 100-continue", f"Content-Length: {length}"))
            if status == 202:
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(VALID)
            assert (await read_reply(reader)).status == status


async def test_a_client_that_disconnects_requested_nothing(api: Api, link: Connection) -> None:
    """Half a body is not stored, even if the half is JSON."""
    async with api.connection() as (_, writer):
        writer.write(post(PATH, VALID).replace(f"Length: {len(VALID)}".encode(), b"Length: 500"))
        await writer.drain()
    assert (await api.raw(post(PATH, VALID))).status == 202
    assert await stored_messages(link) == 1


async def test_clients_that_offer_http2(api: Api, journal: Journal) -> None:
    """Java's client offers it with each first request. It gets HTTP/1.1, and its input is not lost."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQ")
    sent = post(PATH, VALID, *offer, "Operation-Id: whole")
    assert (await api.raw(sent)).status == 202
    async with api.connection() as (reader, writer):
        for part in (sent[:30], sent[30:-5], sent[-5:], GET):
            writer.write(part)
            await writer.drain()
        assert [(await read_reply(reader)).status for _ in range(2)] == [202, 200]
    (event,) = await journal.events("whole")
    assert isinstance(event.data, Requested)
    assert bytes(event.data.input) == VALID


async def test_an_offer_to_upgrade_in_chunks_that_is_to_be_closed(api: Api) -> None:
    """The other headers of such a request still apply."""
    head = request_head("Connection: close, Upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked")
    async with api.connection() as (reader, writer):
        writer.write(head + b"d\r\n" + VALID + b"\r\n0\r\n\r\n")
        assert (await read_reply(reader)).status == 202
        assert await reader.read() == b""


async def test_http_1_0(api: Api) -> None:
    """Old probes still use it."""
    async with api.connection() as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await read_reply(reader)).body == b'{"status":"ok"}'
        assert await reader.read() == b""


async def test_head_of_an_error(api: Api) -> None:
    """The headers are those of the error with a body."""
    async with api.connection() as (reader, writer):
        writer.write(b"HEAD /status/nonsense HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        reply = await read_reply(reader, has_body=False)
        assert (reply.status, reply.header("x-ms-error-code")) == (404, "OperationNotFound")
        assert (await read_reply(reader)).status == 200


async def test_many_connections_at_once(api: Api) -> None:
    """Each gets its response."""
    replies = await asyncio.gather(*(api.raw(post(PATH, VALID)) for _ in range(50)))
    assert {reply.status for reply in replies} == {202}
