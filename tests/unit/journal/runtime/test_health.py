"""The health server: what it answers, that it listens on a port of its own, and that it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from opstream_journal import JournalError
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.health import HealthServer, PortInUse, listen

pytestmark = pytest.mark.unit


class Health:
    """A health server, and whether what it reports on is ready."""

    def __init__(self) -> None:
        self.is_ready = False
        self.sock = listen("127.0.0.1", 0, "--health-port")
        self.port: int = self.sock.getsockname()[1]
        self.conditions = Conditions()
        self.server = HealthServer(self.sock, lambda: self.is_ready, self.conditions)

    async def ask(self, request: bytes) -> tuple[int, str]:
        """Status and body of one request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(5):
                writer.write(request)
                answer = await reader.read()
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of a path."""
        return await self.ask(f"GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    health = Health()
    health.server.start()
    yield health
    await health.server.stop()


async def test_alive(health: Health) -> None:
    """A process that answers is alive, ready or not."""
    assert await health.get("/healthz") == (200, '{"status":"ok"}')


async def test_ready(health: Health) -> None:
    """Each probe reads the readiness again."""
    assert unnamed(await health.get("/readyz")) == "Starting"
    health.is_ready = True
    assert await health.get("/readyz?verbose=1") == (200, '{"status":"ready"}')
    health.is_ready = False
    assert unnamed(await health.get("/readyz")) == "NotWorking"


def unnamed(answer: tuple[int, str]) -> str:
    """The name of the one condition of a process that is not ready though nothing was reported; it has a next step."""
    status, body = answer
    (condition,) = msgspec.json.decode(body)["conditions"]
    assert (status, condition["isBlocking"], bool(condition["nextStep"])) == (503, True, True)
    return str(condition["name"])


async def test_conditions(health: Health) -> None:
    """A condition is shown, and only a blocking one makes a process that works not ready."""
    health.is_ready = True
    health.conditions.report("ClockSkew", "fast", "set it")
    status, body = await health.get("/readyz")
    assert status == 200
    assert msgspec.json.decode(body) == {
        "status": "ready",
        "conditions": [{"name": "ClockSkew", "message": "fast", "nextStep": "set it", "isBlocking": False}],
    }
    health.conditions.report("NoQuorum", "no leader", "start servers", is_blocking=True)
    status, body = await health.get("/readyz")
    assert (status, msgspec.json.decode(body)["status"]) == (503, "not ready")
    health.conditions.resolve("NoQuorum")
    assert (await health.get("/readyz"))[0] == 200


async def test_nothing_else(health: Health) -> None:
    """There is nothing else to see."""
    assert await health.get("/metrics") == (404, '{"status":"not found: /healthz or /readyz"}')


async def test_a_head_request(health: Health) -> None:
    """A probe that only wants the head gets it."""
    assert await health.ask(b"HEAD /healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n") == (200, "")


async def test_garbage(health: Health) -> None:
    """What is no HTTP is refused."""
    assert (await health.ask(b"nonsense\r\n\r\n"))[0] == 400


async def test_a_websocket(health: Health) -> None:
    """Who wants a websocket gets the plain answer."""
    upgrade = b"Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    assert await health.ask(b"GET /healthz HTTP/1.1\r\nHost: here\r\n" + upgrade + b"\r\n") == (200, '{"status":"ok"}')


async def test_signals_are_left_alone(health: Health) -> None:
    """The signals of the process are not the health server's."""
    before = signal.getsignal(signal.SIGTERM)
    await health.get("/healthz")
    assert signal.getsignal(signal.SIGTERM) is before


async def test_it_ends(health: Health) -> None:
    """A stop is over in bounded time, also with a connection that stays, and frees the port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", health.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    async with asyncio.timeout(5):
        await health.server.stop()
    writer.close()
    with listen("127.0.0.1", health.port, "--health-port"):
        assert health.sock.fileno() == -1


async def test_a_stop_before_it_began() -> None:
    """A server that was never started, or is stopped at once, closes its socket."""
    never, early = Health(), Health()
    await never.server.stop()
    early.server.start()
    await early.server.stop()
    assert (never.sock.fileno(), early.sock.fileno()) == (-1, -1)


def test_a_port_that_is_taken() -> None:
    """A port in use is an error of ours that names the option to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"can't listen on 127\.0\.0\.1:{port} .*: choose another with --port"):
            listen("127.0.0.1", port, "--port")
    with pytest.raises(PortInUse, match=r"192\.0\.2\.1 is not an address of this machine: change --host"):
        listen("192.0.2.1", 0, "--port")
    assert issubclass(PortInUse, JournalError)
