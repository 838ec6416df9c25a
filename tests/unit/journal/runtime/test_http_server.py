"""The bounds of every HTTP server of opstream, attacked on a health server: the API's are in tests/broker/api/http."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opstream_journal.runtime import descriptors, http_server
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.health import HealthServer, listen
from tests.support.api.endless_requests import ENDLESS, MOST, send_endlessly
from tests.support.system.wait import eventually

pytestmark = pytest.mark.unit


@pytest.fixture
def conditions() -> Conditions:
    return Conditions()


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch, conditions: Conditions) -> AsyncIterator[int]:
    """The port of a health server that looks at its connections ten times a second."""
    monkeypatch.setattr(http_server, "CHECK_TICKS", 1)
    sock = listen("127.0.0.1", 0, "--health-port")
    server = HealthServer(sock, lambda: True, conditions)
    server.start()
    yield sock.getsockname()[1]
    await server.stop()


async def ask(port: int, sent: bytes) -> bytes:
    """What the server answers until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("part", ENDLESS)
async def test_a_request_without_end_is_dropped(port: int, part: str) -> None:
    """After little more than a head may have, and without work that grows with what is sent."""
    before = time.thread_time()
    async with asyncio.timeout(20):
        answer, sent = await send_endlessly(port, *ENDLESS[part])
    assert sent < MOST
    assert time.thread_time() - before < 1
    assert answer[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 200", b""}  # the probe is answered before its trailers
    assert (await ask(port, b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).startswith(
        b"HTTP/1.1 200"
    )


@pytest.mark.parametrize("held", [b"", b"GET /healthz HTTP/1.1\r\nHo", b"\r\n"])
async def test_a_probe_that_does_not_go_on_is_dropped(port: int, monkeypatch: pytest.MonkeyPatch, held: bytes) -> None:
    """An idle connection ends without a word, a half request with a 408."""
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.1)
    assert (await ask(port, held))[:12] == (b"HTTP/1.1 408" if held else b"")


async def test_too_many_connections_are_refused_and_reported(port: int, conditions: Conditions) -> None:
    """The condition ends with the connections, and says what to do."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(64)]
    await eventually(lambda: opened)
    assert (await ask(port, b"")).startswith(b"HTTP/1.1 503")
    [condition] = conditions.current
    assert condition.name == "TooManyConnections"
    assert "ulimit -n" in condition.next_step
    for _, writer in opened:
        writer.close()
    await eventually(lambda: not conditions.current)


async def test_a_process_without_file_descriptors_says_so_and_recovers(port: int, conditions: Conditions) -> None:
    """No connection can be accepted meanwhile, so the log is the only place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 3, hard))
    try:
        with contextlib.suppress(OSError):  # none is left
            while True:
                held.append(os.dup(0))
        await eventually(lambda: [one.name for one in conditions.current] == ["OutOfFileDescriptors"])
        assert conditions.is_blocked
        assert "nofile" in conditions.current[0].next_step
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await eventually(lambda: not conditions.current)
    assert (await ask(port, b"GET /readyz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


PROBE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
TARGETS = (
    "http:///x",
    "http://",
    "http://a:b/x",
    "http://a:99999/x",
    "http://[::1/x",
    "http://a@b@c/x",
    "a://",
    "?",
    "/#a",
)
MALFORMED = (
    *(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for target in TARGETS),
    b"GET http://a/healthz HTTP/1.1\r\nHost: b\r\n\r\n",
    PROBE + b"Host: b\r\n\r\n",
    PROBE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    PROBE + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/0.9\r\nHost: a\r\n\r\n",
)


@pytest.mark.parametrize("request_", MALFORMED)
async def test_a_malformed_head_is_refused_in_silence(
    port: int, caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    """Also as the second request of a connection, and without a word in the log."""
    assert (await ask(port, request_)).startswith(b"HTTP/1.1 400")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(5):
        writer.write(PROBE + b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(request_)
        assert b"HTTP/1.1 400" in await reader.read()
    writer.close()
    assert caplog.records == []


PIECES = (
    *(b"GET ", b"POST ", b"/healthz", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"Host: a", b"://", b"http"),
    *(b"@", b"[", b"#", b"?", b"%", b"\xff", b"Upgrade: h2c\r\nConnection: Upgrade", b"Content-Length: 3", b"abc"),
    *(b"Transfer-Encoding: chunked", b"3\r\nabc\r\n", b"0\r\n\r\n", b"Expect: 100-continue", b"PRI * HTTP/2.0"),
    *(b"CONNECT a:1", b"Connection: close", PROBE + b"\r\n", *MALFORMED),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.sampled_from(PIECES) | st.binary(max_size=5), min_size=1, max_size=12), at=st.integers(0, 200)
)
def test_any_bytes_end_in_a_response_or_a_close(caplog: pytest.LogCaptureFixture, pieces: list[bytes], at: int) -> None:
    """In one part or two; no exception escapes from a callback of the parser."""
    sent = b"".join(pieces)

    async def send() -> bytes:
        sock = listen("127.0.0.1", 0, "--health-port")
        server = HealthServer(sock, lambda: True, Conditions())
        server.start()
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        try:
            with contextlib.suppress(ConnectionError):
                for part in (sent[:at], sent[at:]):
                    writer.write(part)
                    await writer.drain()
                writer.write_eof()
                async with asyncio.timeout(10):
                    return await reader.read()
        finally:
            writer.close()
            await server.stop()
        return b""

    answer = asyncio.run(send())
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_the_limit_of_file_descriptors_is_raised() -> None:
    """As far as the system allows, and not beyond what an API needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
        descriptors.raise_limit()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert raised == (16_384 if hard == resource.RLIM_INFINITY else min(hard, 16_384))
        assert descriptors.connection_limit() == min(10_000, raised - 64)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
