"""The bounds of every HTTP server of opstream, attacked on a health server: the API's are in tests/broker/api/http."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import time
from collections.abc import AsyncIterator

import pytest

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
