"""What a server says about a request that it refuses, and which heads it takes: asked of a health server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest

from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.health import HealthServer, listen
from opstream_journal.runtime.request_head import is_host, malformed

pytestmark = pytest.mark.unit

GET: Final = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
POST: Final = GET.replace(b"GET", b"POST")
CHUNKED: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CLIENT_HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

CAUSES: Final = [
    (POST + b"Content-Length: x\r\n\r\n", "Content-Length is no whole number"),
    (POST + b"Content-Length: -1\r\n\r\n", "Content-Length is no whole number"),
    (POST + b"Content-Length: \r\n\r\n", "Content-Length is no whole number"),
    (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", "two Content-Length headers"),
    (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", "Content-Length is too large"),
    (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "send one of them"),
    (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "send one of them"),
    (POST + b"Transfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding other than 'chunked'"),
    (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", "Transfer-Encoding other than 'chunked'"),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "Transfer-Encoding other than 'chunked'"),
    (POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n", "alone and in HTTP/1.1"),
    (GET + b"X: a\r\n b\r\n\r\n", "in a second line"),
    (b"GET /healthz HTTP/1.1\r\n Host: a\r\n\r\n", "a space is in front of its first header"),
    (b"GET /healthz HTTP/1.1\nHost: a\n\n", "does not end with HTTP/1.1, CR and LF"),
    (GET + b"X: a\n\r\n", "CR and LF"),
    (GET + b"X: a\rb\r\n\r\n", "CR and LF"),
    (GET + b"X: a\x00b\r\n\r\n", "control character"),
    (GET + b"X : b\r\n\r\n", "space before the ':'"),
    (GET + b": b\r\n\r\n", "a name that is empty"),
    (GET + b"X\r\n\r\n", "no ':'"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "it is HTTP/2"),
    (b"GET /healthz HTTP/1.2\r\nHost: a\r\n\r\n", "neither HTTP/1.1 nor HTTP/1.0"),
    (b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", "neither HTTP/1.1 nor HTTP/1.0"),
    (b"GET /healthz HTTP/3\r\nHost: a\r\n\r\n", "neither HTTP/1.1 nor HTTP/1.0"),
    (b"GET /healthz\r\n\r\n", "neither HTTP/1.1 nor HTTP/1.0"),
    (b"GET /healthz FTP/1.1\r\nHost: a\r\n\r\n", "no HTTP/1.1 follows the path"),
    (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "its path has a space"),
    ("GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".encode(), "percent-encoded"),
    (b"GET healthz HTTP/1.1\r\nHost: a\r\n\r\n", "no path"),
    (b"GET ftp://a/healthz HTTP/1.1\r\nHost: a\r\n\r\n", "no path"),
    (b"GET /healthz#a HTTP/1.1\r\nHost: a\r\n\r\n", "write %23"),
    (CLIENT_HELLO, "it is TLS"),
    (b"get /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "no method of HTTP"),
    (b"NONSENSE\r\n\r\n", "no method of HTTP"),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT is a method for proxies"),
    (b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n" + GET, "CONNECT is a method for proxies"),
    (GET + b"Host: a\r\n\r\n", "two Host headers"),
    (b"GET /healthz HTTP/1.1\r\n\r\n", "needs a Host header"),
    (b"POST /healthz HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "needs a Host header"),
    (GET.replace(b" a\r", b" [::1\r") + b"\r\n", "Host header is no HOST"),
    (b"GET http://b/healthz HTTP/1.1\r\nHost: a\r\n\r\n", "another host than its Host header"),
    (b"GET http://a/healthz HTTP/1.0\r\n\r\n", "another host than its Host header"),
    (b"GET http://u@a/healthz HTTP/1.1\r\nHost: a\r\n\r\n", "another host than its Host header"),
    (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", "its URL has more than 8 KiB"),
    (GET + b"X: " + b"a" * 33_000 + b"\r\n\r\n", "more than 32 KiB"),
    (GET + b"a:b\r\n" * 5_500 + b"\r\n", "its head and trailers have more than 32 KiB"),
]
TAKEN: Final = [
    GET + b"\r\n",
    GET.replace(b" a\r", b"\r") + b"\r\n",  # an empty Host, as some load balancers send it
    GET.replace(b"GET ", b"GET http://a") + b"\r\n",
    GET.replace(b"GET ", b"GET HTTPS://A") + b"\r\n",
    b"GET /healthz HTTP/1.0\r\n\r\n",
    GET + b"a:b\r\n" * 5_000 + b"\r\n",
]
BODIES: Final = [
    b"zz\r\n",
    b"5\r\nabcdefgh\r\n",
    b"5\nabcde\n",
    b"5\r\nabcde\n0\r\n",
    b"f" * 20 + b"\r\n",
    b"5;a\x00=b\r\n",
    b"\r\n",
]
HOSTS: Final = ["a", "a.b-c_d", "a:80", "a:", "[::1]", "[::1]:80", "[::ffff:1.2.3.4]", "1.2.3.4:65535", "a.", ""]
NO_HOSTS: Final = [
    "[::1",
    "::1",
    "[127.0.0.1]",
    "[]",
    "[a]",
    "a b",
    "a/b",
    "a:b",
    "a:65536",
    "a:1:2",
    "u@a",
    "[::1]a",
    "ä",
]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The port of a health server."""
    sock = listen("127.0.0.1", 0, "--health-port")
    server = HealthServer(sock, lambda: True, Conditions())
    server.start()
    yield sock.getsockname()[1]
    await server.stop()


async def ask(port: int, sent: bytes) -> str:
    """The answer to a request on a connection of its own, as far as its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(5):
            writer.write(sent)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            (length,) = (line[15:] for line in head.lower().splitlines() if line.startswith("content-length:"))
            return head + (await reader.readexactly(int(length))).decode()
    finally:
        writer.close()


@pytest.mark.parametrize(("sent", "words"), CAUSES, ids=[words for _, words in CAUSES])
async def test_a_refusal_says_its_cause(port: int, sent: bytes, words: str) -> None:
    """And no other one."""
    answer = await ask(port, sent)
    assert answer.startswith("HTTP/1.1 400")
    assert "the request is refused: " in answer
    assert words in answer


@pytest.mark.parametrize("body", BODIES)
async def test_broken_chunks_are_named(port: int, body: bytes) -> None:
    """In place of an answer, since the request never ends."""
    assert "chunks of its body" in await ask(port, CHUNKED + body)


@pytest.mark.parametrize("sent", TAKEN, ids=lambda sent: sent[:40].decode())
async def test_what_is_valid_is_answered(port: int, sent: bytes) -> None:
    """Also what few clients send."""
    assert (await ask(port, sent)).startswith("HTTP/1.1 200")


def test_a_host_is_a_name_or_an_address_and_maybe_a_port() -> None:
    """RFC 9110, 7.2."""
    assert [host for host in HOSTS if not is_host(host.encode())] == []
    assert [host for host in NO_HOSTS if is_host(host.encode())] == []


def test_a_refusal_names_the_header() -> None:
    """Which the API shows as the target of the error."""
    assert malformed("it has two Host headers", target="Host").target == "Host"
