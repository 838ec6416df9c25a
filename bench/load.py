"""The load generator: HTTP clients in a process of their own, started by `measure.py`.

A hand-made keep-alive client on httptools: the usual ones need more time for a request than the server does, and on a
machine with few cores that would be measured instead of it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

import httptools
import msgspec
import uvloop

PATH: Final = "/bench/42:noop"
BODY: Final = b'{"text":"an input of about a hundred bytes, which is what many an action in the field gets to see"}'
POLL_PAUSE: Final = 0.1
"""Seconds between two polls of a client under load, once it found an operation unfinished."""

_ACCEPTED: Final = 202
_OK: Final = 200


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to do."""

    port: int
    clients: int = 1
    operations: int
    is_alone: bool = False
    """One operation after the other, polled without a pause, each of them timed."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """How it went. Times in seconds."""

    operations: int
    seconds: float
    """From the first submit until every operation was seen as Succeeded."""
    submit_seconds: float
    """From the first submit to the last answer to one."""
    polls: int
    cpu: float
    """Of the load generator itself."""
    submits: list[float] = []
    """How long each submit took, if alone."""
    totals: list[float] = []
    """From each submit to its Succeeded, if alone."""


class LoadFailed(Exception):
    """An answer was not what it should be."""


class _Monitor(msgspec.Struct):
    id: str
    status: str


_decode: Final = msgspec.json.Decoder(_Monitor).decode


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self, port: int) -> None:
        self._head = f"Host: 127.0.0.1:{port}\r\n".encode()
        self._submit = b"POST %s HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            PATH.encode(),
            self._head,
            len(BODY),
            BODY,
        )
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(LoadFailed(f"the API closed the connection: {exc}"))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self._answer is not None
        self._answer.set_result(self._body)

    async def submit(self) -> str:
        """Submit the no-op; the operation's id."""
        return (await self._ask(self._submit, _ACCEPTED)).id

    async def is_done(self, operation_id: str) -> bool:
        """Poll an operation once; whether it has succeeded."""
        request = b"GET /status/%s HTTP/1.1\r\n%s\r\n" % (operation_id.encode(), self._head)
        status = (await self._ask(request, _OK)).status
        if status in {"Failed", "Canceled"}:
            raise LoadFailed(f"operation {operation_id} ended {status}")
        return status == "Succeeded"

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    async def _ask(self, request: bytes, expected: int) -> _Monitor:
        self._body = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        body = await self._answer
        status = self._parser.get_status_code()
        if status != expected:
            raise LoadFailed(f"the API answered {status} instead of {expected}: {body[:500].decode(errors='replace')}")
        return _decode(body)


async def run(load: Load) -> LoadResult:
    """Carry a load out."""
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(load.clients):
        _, connection = await loop.create_connection(lambda: Connection(load.port), "127.0.0.1", load.port)
        connections.append(connection)
    cpu = time.process_time()
    try:
        result = await (_alone(load, connections[0]) if load.is_alone else _together(load, connections))
    finally:
        for connection in connections:
            connection.close()
    return msgspec.structs.replace(result, cpu=time.process_time() - cpu)


async def _together(load: Load, connections: list[Connection]) -> LoadResult:
    """Each client submits its share, one request after the other, and then polls what it submitted."""
    left = iter(range(load.operations))
    polls = 0
    submitted = 0.0
    began = time.perf_counter()

    async def client(connection: Connection) -> None:
        nonlocal polls, submitted
        mine = [await connection.submit() for _ in left]
        submitted = time.perf_counter()
        for operation_id in mine:
            polls += 1
            while not await connection.is_done(operation_id):
                await asyncio.sleep(POLL_PAUSE)
                polls += 1

    async with asyncio.TaskGroup() as clients:
        for connection in connections:
            clients.create_task(client(connection))
    seconds = time.perf_counter() - began
    return LoadResult(
        operations=load.operations, seconds=seconds, submit_seconds=submitted - began, polls=polls, cpu=0.0
    )


async def _alone(load: Load, connection: Connection) -> LoadResult:
    submits, totals = [], []
    polls = 0
    for _ in range(load.operations):
        began = time.perf_counter()
        operation_id = await connection.submit()
        submits.append(time.perf_counter() - began)
        polls += 1
        while not await connection.is_done(operation_id):
            polls += 1
        totals.append(time.perf_counter() - began)
    return LoadResult(
        operations=load.operations,
        seconds=sum(totals),
        submit_seconds=sum(submits),
        polls=polls,
        cpu=0.0,
        submits=submits,
        totals=totals,
    )


def main() -> None:
    """Read the load from the command line, write the result to stdout."""
    try:
        result = uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Load)))
    except* LoadFailed as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        sys.exit(str(first))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
