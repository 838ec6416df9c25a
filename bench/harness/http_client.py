"""HTTP on raw sockets, for the clients of the benchmark.

A small keep-alive client on httptools: the usual ones need more time for a request than the server, and would dominate
the figures on a machine with few cores.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self, TypeVar

import httptools
import msgspec
import uvloop

HOST: Final = "127.0.0.1"
ACCEPTED: Final = 202
OK: Final = 200
NOT_MODIFIED: Final = 304

_Task = TypeVar("_Task", bound=msgspec.Struct)


class LoadFailed(Exception):
    """A response was not the expected one."""


class Monitor(msgspec.Struct):
    """The members of a status that the benchmark reads."""

    id: str
    status: str


decode_monitor: Final = msgspec.json.Decoder(Monitor).decode


class HttpConnection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self, port: int, key: str = "") -> None:
        self.head = f"Host: {HOST}:{port}\r\n".encode()
        if key:
            self.head += f"Authorization: Bearer {key}\r\n".encode()
        self.answered_at = 0.0
        """When the last response was complete, in seconds since the epoch."""
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._response: asyncio.Future[bytes] | None = None
        self._transport: Any = None

    @classmethod
    async def open(cls, port: int, key: str = "") -> Self:
        """Connect to the API; an API key goes with each request."""
        _, connection = await asyncio.get_running_loop().create_connection(lambda: cls(port, key), HOST, port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_exception(LoadFailed(f"the API closed the connection: {exc}"))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self._response is not None
        self.answered_at = time.time()
        self._response.set_result(self._body)

    def get(self, target: str, headers: bytes = b"") -> bytes:
        """The bytes of a GET. Each header ends with CRLF."""
        return b"GET %s HTTP/1.1\r\n%s%s\r\n" % (target.encode(), self.head, headers)

    def post(self, target: str, body: bytes) -> bytes:
        """The bytes of a POST of JSON."""
        return b"POST %s HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            target.encode(),
            self.head,
            len(body),
            body,
        )

    async def send(self, request: bytes, expected: int = OK) -> bytes:
        """Send a request; return the body of the response.

        Raises:
            LoadFailed: the response has another status.
        """
        self._body = b""
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        body = await self._response
        status = self._parser.get_status_code()
        if status != expected:
            raise LoadFailed(f"the API answered {status} instead of {expected}: {body[:500].decode(errors='replace')}")
        return body

    async def has_succeeded(self, operation_id: str) -> bool:
        """Poll an operation once; return True if it has succeeded.

        Raises:
            LoadFailed: it failed or was canceled.
        """
        status = decode_monitor(await self.send(self.get(f"/status/{operation_id}"))).status
        if status in {"Failed", "Canceled"}:
            raise LoadFailed(f"operation {operation_id} ended {status}")
        return status == "Succeeded"

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


def run_task(run: Callable[[_Task], Awaitable[msgspec.Struct]], task_type: type[_Task]) -> None:
    """Run a process that makes load: read the task from the command line, write the result to stdout."""
    task = msgspec.json.decode(sys.argv[1], type=task_type)

    async def run_once() -> msgspec.Struct:
        return await run(task)

    try:
        result = uvloop.run(run_once())
    except* LoadFailed as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        sys.exit(str(first))
    sys.stdout.buffer.write(msgspec.json.encode(result))
