"""Health over HTTP for processes that serve nothing else (runner, projector, webhooks): `/healthz` and `/readyz`.

`/healthz` answers while the event loop runs; `/readyz` says whether the process does its job now, and what is wrong
around it (`conditions`).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec
import uvicorn

from opstream_journal.errors import JournalError

from .conditions import Condition, Conditions
from .http_server import BoundedProtocol, BoundedServer

AsgiMessage = MutableMapping[str, Any]
AsgiReceive = Callable[[], Awaitable[AsgiMessage]]
AsgiSend = Callable[[AsgiMessage], Awaitable[None]]

ALL_ADDRESSES: Final = "0.0.0.0"  # noqa: S104 - probes come from other hosts
"""Where health is served by default."""

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


class HealthServer:
    """Serves health on one port, inside the running loop and without touching signals.

    Args:
        sock: from `listen`.
        is_ready: returns True if the process does its job.
        conditions: what `/readyz` shows besides; a blocking one makes the process not ready. None for no conditions.
    """

    def __init__(self, sock: socket.socket, is_ready: Callable[[], bool], conditions: Conditions | None = None) -> None:
        self._is_ready = is_ready
        self._conditions = conditions or Conditions()
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
        self._sock.close()

    async def _respond(self, scope: MutableMapping[str, Any], _receive: AsgiReceive, send: AsgiSend) -> None:
        status, body = self._probe(str(scope["path"]))
        headers = [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _probe(self, path: str) -> tuple[int, bytes]:
        if path == "/healthz":
            return 200, b'{"status":"ok"}'
        if path == "/readyz":
            is_working, is_blocked = self._is_ready(), self._conditions.is_blocked
            is_ready = is_working and not is_blocked
            self._has_worked = self._has_worked or is_working
            shown = {"status": "ready" if is_ready else "not ready", **self._conditions.members()}
            if not is_working and not is_blocked:
                unnamed = _NOT_WORKING if self._has_worked else _STARTING
                shown["conditions"] = [*self._conditions.current, unnamed]
            return (200 if is_ready else 503), msgspec.json.encode(shown)
        return 404, b'{"status":"not found: /healthz or /readyz"}'
