"""The health server: what it answers, that it listens on a port of its own, and that it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from opstream_journal import JournalError
from opstream_journal.metrics.page import Metrics
from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.health import HealthServer, PortInUse, listen, listen_for_health

pytestmark = pytest.mark.unit


class Health:
    """A health server, and whether what it reports on is ready."""

    def __init__(self, *, is_address_chosen: bool = False) -> None:
        self.is_ready = False
        self.sock = listen_for_health("", 0)
        self.port: int = self.sock.getsockname()[1]
        self.conditions = Conditions()
        self.metrics = Metrics()
        self.server = HealthServer(
            self.sock,
            lambda: self.is_ready,
            self.conditions,
            metrics=self.metrics,
            is_address_chosen=is_address_chosen,
        )

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
    assert await health.get("/status") == (404, '{"status":"not found: /healthz, /readyz or /metrics"}')


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


async def test_metrics(health: Health) -> None:
    """The page says whether the process is ready, which conditions hold, and what it has mended."""
    health.is_ready = True
    health.conditions.count("rescheduled", 3)
    status, page = await health.get("/metrics")
    assert status == 200
    assert "\nopstream_ready 1\n" in page
    assert '\nopstream_mended_total{what="rescheduled"} 3\n' in page
    health.conditions.report("BrokerAway", "gone", "start it", is_blocking=True)
    _, page = await health.get("/metrics")
    assert "\nopstream_ready 0\n" in page
    assert '\nopstream_condition{condition="BrokerAway"} 1\n' in page


async def test_the_metric_is_the_answer_of_readyz() -> None:
    """Of a service with an answer of its own, also if nothing asks for /readyz; None is that of all services."""
    time = 0.0
    own: tuple[int, bytes] | None = None

    async def readiness() -> tuple[int, bytes] | None:
        return own

    metrics = Metrics(clock=lambda: time)
    with listen("127.0.0.1", 0, "--health-port") as sock:
        HealthServer(sock, lambda: True, metrics=metrics, readiness=readiness)
        for own, expected in ((None, 1), ((503, b"{}"), 0), ((200, b"{}"), 1)):  # noqa: B007 - `readiness` has it
            time += 60.0
            _, page = await metrics.page("")
            assert f"\nopstream_ready {expected}\n" in page.decode()


@pytest.mark.parametrize("client", [("192.0.2.7", 1234), ("2001:db8::7", 1234), ("", 0), None])
async def test_metrics_for_other_machines(client: tuple[str, int] | None) -> None:
    """Without a chosen address another machine gets the probes, and of the metrics only what to do."""
    shown = {is_chosen: await ask_as(client, "/metrics", is_chosen=is_chosen) for is_chosen in (False, True)}
    assert shown[False][0] == 403
    assert b"opstream_ready" not in shown[False][1]
    assert b"--health-host" in shown[False][1]
    assert shown[True][0] == 200
    assert (await ask_as(client, "/readyz", is_chosen=False))[0] == 503


@pytest.mark.parametrize("client", [("127.0.0.1", 1234), ("127.8.9.1", 1234), ("::1", 1234), ("::ffff:127.0.0.1", 1)])
async def test_metrics_for_this_machine(client: tuple[str, int]) -> None:
    """Each spelling of a loopback address is this machine."""
    assert (await ask_as(client, "/metrics", is_chosen=False))[0] == 200


async def test_a_header_makes_no_machine_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine stays one, whatever it sends, also where uvicorn was told to trust proxies."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    forged = (b"x-forwarded-for", b"127.0.0.1")
    assert (await ask_as(("192.0.2.7", 1234), "/metrics", forged, is_chosen=False))[0] == 403


async def ask_as(
    client: tuple[str, int] | None, path: str, *headers: tuple[bytes, bytes], is_chosen: bool
) -> tuple[int, bytes]:
    """The answer to a client of another address, by what uvicorn calls: a test has no other machine."""
    health = Health(is_address_chosen=is_chosen)
    health.sock.close()
    config = health.server._server.config
    config.load()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    scope = {"type": "http", "scheme": "http", "path": path, "client": client, "headers": [*headers]}
    await config.loaded_app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]
