"""The health port of a process: `/healthz`, `/readyz` and `/metrics`. No client of the API needs it.

`/healthz` answers while the event loop runs; `/readyz` says whether the process does its job now, and what is wrong
around it (`conditions`). Both go to every address, since probes come from other hosts. `/metrics` goes to this machine
only, unless the operator has chosen the port's address (docs/adr/0048).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec
import uvicorn

from opstream_journal.errors import JournalError
from opstream_journal.metrics.instruments import Gauges, Instrument, ReadCounts
from opstream_journal.metrics.page import Metrics

from .conditions import Condition, Conditions
from .http_server import BoundedProtocol, BoundedServer

AsgiMessage = MutableMapping[str, Any]
AsgiReceive = Callable[[], Awaitable[AsgiMessage]]
AsgiSend = Callable[[AsgiMessage], Awaitable[None]]

Readiness = Callable[[], Awaitable[tuple[int, bytes] | None]]
"""Answers `/readyz`: the status code and the JSON; None for the answer that all services share."""

_ALL_ADDRESSES: Final = "0.0.0.0"  # noqa: S104 - probes come from other hosts
"""Where health is served if no address was chosen."""

_OK: Final = 200
_STOP_TIMEOUT: Final = 1
_MAX_CONNECTIONS: Final = 64
"""More than all probes and scrapers of one process need."""


_STARTING: Final = Condition(
    name="Starting",
    message="this process does not work yet: it connects to the broker, or makes sure that it has what it needs there",
    next_step="wait; if it can't begin, it ends, and its last line says why and what to do",
    is_blocking=True,
)
_NOT_WORKING: Final = Condition(
    name="NotWorking",
    message="this process takes no work now: it stops, or waits for something that its log names",
    next_step="read its log; a process that stops ends by itself",
    is_blocking=True,
)
"""For whatever no part of the process has reported."""


_JSON: Final = "application/json"
_NOT_FOUND: Final = b'{"status":"not found: /healthz, /readyz or /metrics"}'
_REFUSED: Final = msgspec.json.encode(
    {
        "status": "forbidden: /metrics is shown to this machine only, since no address was chosen for the health port; "
        "next step: start the service with --health-host, e.g. --health-host 0.0.0.0 for all addresses"
    }
)


class PortInUse(JournalError):
    """The process can't listen on a TCP port."""


def listen(host: str, port: int, option: str) -> socket.socket:
    """Return a listening socket; with port 0 on a free port.

    Raises:
        PortInUse: the port can't be used; the message names the option to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            message = f"{host} is not an address of this machine: change {option.replace('port', 'host')}"
        else:
            message = f"can't listen on {host}:{port} ({error.strerror}): choose another with {option}"
        raise PortInUse(message) from error
    return sock


def listen_for_health(host: str, port: int, option: str = "--health-port") -> socket.socket:
    """Return a socket for a `HealthServer`; an empty host is every address.

    Raises:
        PortInUse: as `listen`.
    """
    return listen(host or _ALL_ADDRESSES, port, option)


class HealthServer:
    """Serves health on one port, inside the running loop and without touching signals.

    Args:
        sock: from `listen_for_health`.
        is_ready: returns True if the process does its job.
        conditions: what `/readyz` shows besides; a blocking one makes the process not ready. None for no conditions.
        metrics: what `/metrics` shows; None for no such path.
        is_address_chosen: other machines may read `/metrics`, if they reach the port.
        readiness: answers `/readyz` of a service that has an answer of its own; None for another one.
    """

    def __init__(
        self,
        sock: socket.socket,
        is_ready: Callable[[], bool],
        conditions: Conditions | None = None,
        *,
        metrics: Metrics | None = None,
        is_address_chosen: bool = False,
        readiness: Readiness | None = None,
    ) -> None:
        self._is_ready = is_ready
        self._conditions = conditions or Conditions()
        self._metrics = metrics
        self._is_address_chosen = is_address_chosen
        self._readiness = readiness
        self._own: tuple[int, bytes] | None = None
        """The last answer of `readiness`."""
        if metrics is not None:
            metrics.add(*health_instruments(self._is_answer_ready, self._conditions))
            if readiness is not None:
                metrics.refresh_with(self._read_readiness)
        self._sock = sock
        self._server = BoundedServer(
            uvicorn.Config(
                self._respond,
                http=BoundedProtocol,
                interface="asgi3",  # uvicorn would mistake a bound method for an ASGI 2 application
                ws="none",
                log_config=None,
                access_log=False,
                lifespan="off",
                proxy_headers=False,  # or a header could make any machine this one, for `/metrics`
                timeout_graceful_shutdown=_STOP_TIMEOUT,
            ),
            self._conditions,
            max_connections=_MAX_CONNECTIONS,
        )
        self._task: asyncio.Task[None] | None = None
        self._has_worked = False

    def start(self) -> None:
        """Begin to serve."""
        self._task = asyncio.create_task(self._server.serve([self._sock]), name="health")

    async def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._metrics is not None:
            await self._metrics.stop()
        self._sock.close()

    async def _respond(self, scope: MutableMapping[str, Any], _receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["path"] == "/metrics" and self._metrics is not None:
            status, media_type, body = await self._show_metrics(self._metrics, scope)
        else:
            media_type = _JSON
            status, body = await self._probe(str(scope["path"]))
        headers = [(b"Content-Type", media_type.encode()), (b"Content-Length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _show_metrics(self, metrics: Metrics, scope: MutableMapping[str, Any]) -> tuple[int, str, bytes]:
        if not self._is_address_chosen and not _is_local(scope):
            return 403, _JSON, _REFUSED
        accept = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
        media_type, body = await metrics.page(accept)
        return 200, media_type, body

    def _is_answer_ready(self) -> bool:
        """Return what `/readyz` answers, as far as it is known without I/O."""
        is_refused = self._own is not None and self._own[0] != _OK
        return self._is_ready() and not self._conditions.is_blocked and not is_refused

    async def _read_readiness(self) -> None:
        self._own = None if self._readiness is None else await self._readiness()

    async def _probe(self, path: str) -> tuple[int, bytes]:
        if path == "/healthz":
            return 200, b'{"status":"ok"}'
        if path == "/readyz":
            await self._read_readiness()
            if self._own is not None:
                return self._own
            is_working, is_blocked = self._is_ready(), self._conditions.is_blocked
            is_ready = is_working and not is_blocked
            self._has_worked = self._has_worked or is_working
            shown = {"status": "ready" if is_ready else "not ready", **self._conditions.members()}
            if not is_working and not is_blocked:
                unnamed = _NOT_WORKING if self._has_worked else _STARTING
                shown["conditions"] = [*self._conditions.current, unnamed]
            return (200 if is_ready else 503), msgspec.json.encode(shown)
        return 404, _NOT_FOUND


def health_instruments(is_ready: Callable[[], bool], conditions: Conditions) -> list[Instrument]:
    """Return the instruments of a process's health.

    Args:
        is_ready: as `/readyz`.
        conditions: of the process.
    """
    return [
        Gauges(
            "opstream_ready",
            "1 if this process does its job now, as /readyz says; otherwise 0.",
            read=lambda: [((), int(is_ready()))],
        ),
        Gauges(
            "opstream_condition",
            "1 for each condition that /readyz of this process shows now.",
            "condition",
            read=lambda: [((one.name,), 1) for one in conditions.current],
        ),
        ReadCounts(
            "opstream_mended",
            "What this process has mended since its start, by the counters of /readyz.",
            "what",
            read=lambda: [((name,), number) for name, number in conditions.counters.items()],
        ),
    ]


def _is_local(scope: MutableMapping[str, Any]) -> bool:
    """Return True if a request comes from this machine."""
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address is not None and (mapped or address).is_loopback
