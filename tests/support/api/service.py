"""The API on a real socket, in the test's event loop, and requests to it.

async with serving(broker.url) as api:
    response = await api.submit("/book/42:upload-start", {"title": "Moby Dick", "files": []})
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import msgspec
import uuid_utils

from opstream_api.main import ConnectedApi, connected_api
from opstream_api.server import Server, make_server
from opstream_api.settings import Settings
from opstream_journal import Connection, ExpectedVersion, Journal
from opstream_journal.metrics.page import Metrics
from opstream_journal.runtime.health import listen
from opstream_schemas import subjects
from opstream_schemas.action_spec import ActionSpec, Policy
from opstream_schemas.events import EventData, OperationError, RecordedEvent, Started
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import evolve, fold_for_reader, next_event
from opstream_schemas.operation.state import Operation
from opstream_schemas.urls import ANY_HOST

JSON: Final = "application/json"
UPLOAD: Final = Kind("book", "upload-start")


class Upload(msgspec.Struct, forbid_unknown_fields=True):
    """One file of the test action's input."""

    path: str
    hash: str


class UploadStart(msgspec.Struct, forbid_unknown_fields=True):
    """The test action's input."""

    title: str
    files: list[Upload] = []
    note: Upload | None = None


class UploadStarted(msgspec.Struct, forbid_unknown_fields=True):
    """The test action's result."""

    transaction: str
    uploads: list[Upload] = []


INPUT: Final[dict[str, Any]] = {"title": "Moby Dick", "files": [{"path": "1.txt", "hash": "aa"}]}


def spec(kind: Kind = UPLOAD, *, version: int = 1, input_type: Any = UploadStart, **policy: Any) -> ActionSpec:
    """A catalog entry as a runner announces it."""
    return ActionSpec(
        resource=kind.resource,
        action=kind.action,
        summary=f"Test {kind}",
        action_version=version,
        input_schema=msgspec.json.schema(input_type),
        result_schema=msgspec.json.schema(UploadStarted),
        policy=Policy(**policy),
    )


class RawResponse(msgspec.Struct, frozen=True):
    """A response, byte for byte."""

    status: int
    headers: list[tuple[str, str]]
    """Names spelled as the service sent them."""
    body: bytes

    def header(self, name: str) -> str:
        """The only value of a header, by its exact spelling."""
        (value,) = [value for key, value in self.headers if key == name]
        return value


class Api:
    """A running service."""

    def __init__(self, port: int, client: httpx.AsyncClient, running: ConnectedApi, server: Server) -> None:
        self.port = port
        self.client = client
        self.watchers = running.watches
        """The requests that wait in it."""
        self.schedules = running.schedules
        """Its schedules."""
        self.brief_waits = running.brief_waits
        """What it knows of how long operations take."""
        self.conditions = running.conditions
        """What `/readyz` shows."""
        self._server = server

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does."""
        self._server.should_exit = True

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._server.server_state.connections)

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    async def submit(
        self, path: str = "/book/42:upload-start", body: Any = INPUT, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """POST an input as JSON."""
        sent = {"Content-Type": JSON, **(headers or {})}
        return await self.client.post(path, content=msgspec.json.encode(body), headers=sent)

    async def status(self, operation_id: str) -> httpx.Response:
        """GET the status of an operation."""
        return await self.client.get(f"/status/{operation_id}")

    async def wait(self, operation_id: str, seconds: int) -> httpx.Response:
        """GET the status with `Prefer: wait`."""
        return await self.client.get(f"/status/{operation_id}", headers={"Prefer": f"wait={seconds}"})

    async def cancel(self, operation_id: str, body: Any = None) -> httpx.Response:
        """POST a cancel request."""
        sent = {} if body is None else {"content": msgspec.json.encode(body), "headers": {"Content-Type": JSON}}
        return await self.client.post(f"/status/{operation_id}:cancel", **sent)

    async def raw(self, *parts: bytes) -> RawResponse:
        """Send bytes, read one response."""
        async with self.connection() as (reader, writer):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await read_reply(reader)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Open a separate connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def read_reply(reader: asyncio.StreamReader, *, has_body: bool = True) -> RawResponse:
    """Read one response, and skip `100 Continue`."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    status = int(first.split()[1])
    if status == 100:
        return await read_reply(reader, has_body=has_body)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return RawResponse(status, headers, await reader.readexactly(length if has_body else 0))


def post(path: str, body: bytes = b"", *headers: str, host: str | None = "api.test") -> bytes:
    """The bytes of a POST with a declared length, of JSON unless a header says otherwise."""
    lines = [f"POST {path} HTTP/1.1", *([f"Host: {host}"] if host is not None else []), *headers]
    if body and not any(header.lower().startswith("content-type:") for header in headers):
        lines.append(f"Content-Type: {JSON}")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


@asynccontextmanager
async def serving(
    url: str,
    *,
    send_buffer: int = 0,
    max_connections: int = 0,
    metrics: Metrics | None = None,
    **settings: Any,
) -> AsyncIterator[Api]:
    """A service on a free port, on the broker at `url`; `settings` are those of `Settings`.

    With a `send_buffer` (bytes), the kernel buffers at most that much for a client that does not read.
    `max_connections` is that of `make_server`, `metrics` get the instruments.
    Unless told otherwise, it answers for any host, as tests name it.
    """
    settings = {"allowed_hosts": (ANY_HOST,), **settings}
    with listen("127.0.0.1", 0, "--port") as sock:
        # asyncio does so only for sockets made with the protocol's number; without it each response takes 40 ms more.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        port = sock.getsockname()[1]
        async with connected_api(Settings(servers=(url,), **settings), metrics=metrics) as running:
            server = make_server(running.app, running.conditions, running.watches.stop, max_connections)
            task = asyncio.create_task(server.serve([sock]))
            try:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=15) as client:
                    yield Api(port, client, running, server)
            finally:
                server.should_exit = True
                await task


class OperationStory:
    """Appends events to a submitted operation, as a runner would."""

    def __init__(self, journal: Journal, operation: Operation) -> None:
        self._journal = journal
        self.operation = operation

    @classmethod
    async def of(cls, journal: Journal, operation_id: str) -> OperationStory:
        """Load an operation from the journal."""
        operation = fold_for_reader(None, await journal.events(operation_id))
        assert operation is not None
        return cls(journal, operation)

    async def append(self, *datas: EventData, at: datetime | None = None) -> Operation:
        """Record and fold events, one after another; `at` is their time, now by default."""
        for data in datas:
            self.operation = evolve(self.operation, await self.record(data, at=at))
        return self.operation

    async def record(self, data: EventData, *, at: datetime | None = None) -> RecordedEvent:
        """Record an event without folding it, e.g. one that `decide` would refuse."""
        time = at or datetime.now(UTC)
        event = next_event(self.operation, data, id=str(uuid_utils.uuid4()), source="test", time=time)
        expected = ExpectedVersion(self.operation.stream_sequence)
        return await self._journal.append(self.operation.kind, event, expected, budget=5)


def started(attempt: int = 1, ticket: int = 1) -> Started:
    """The event of a started attempt."""
    return Started(attempt=attempt, runner="test", token=f"token-{attempt}", ticket=ticket, lease=30.0)


def failure(code: int | str = 400, message: str = "it is broken") -> OperationError:
    """An error of an operation."""
    return OperationError(code=code, message=message)


def in_a_second() -> datetime:
    """The time in a second."""
    return datetime.now(UTC) + timedelta(seconds=1)


async def stored_messages(link: Connection) -> int:
    """Number of messages in the journal's stream."""
    info = await link.nc.jetstream().stream_info(subjects.OPERATIONS_STREAM)
    return int(info.state.messages)
