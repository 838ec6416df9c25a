"""An HTTP server with scripted responses: resets, cuts, silence, a proxy's pages.

with ScriptedServer(Reset(), json_answer(202, {"id": "1", "status": "NotStarted"})) as server:
    client = OperationsClient(server.url)

Each request gets the next response, on any connection.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Self, TypeAlias

import msgspec

_ABORT: Final = struct.pack("ii", 1, 0)
_CHUNK: Final = 65_536
_PACE: Final = 0.02


class ReceivedRequest(msgspec.Struct, frozen=True):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes


class ScriptedAnswer(msgspec.Struct, frozen=True):
    """Send bytes, then close the connection, even if the response is incomplete."""

    content: bytes


class Reset(msgspec.Struct, frozen=True):
    """Read the whole request, send some bytes or none, then reset the connection."""

    content: bytes = b""


class Silence(msgspec.Struct, frozen=True):
    """Send some bytes or none, then nothing until the client disconnects."""

    content: bytes = b""


class Accept(msgspec.Struct, frozen=True):
    """Accept a submit with its operation id."""

    headers: dict[str, Any] = {}


class Drip(msgspec.Struct, frozen=True):
    """Send bytes, then one byte every few milliseconds until the client disconnects."""

    content: bytes


Script: TypeAlias = ScriptedAnswer | Reset | Silence | Accept | Drip


def answer(status: int, body: bytes = b"", **headers: Any) -> ScriptedAnswer:
    """A whole response; `retry_after=1` means the header `Retry-After: 1`."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ScriptedAnswer("\r\n".join([*lines, "", ""]).encode() + body)


def json_answer(status: int, value: Any, **headers: Any) -> ScriptedAnswer:
    """A whole response in JSON."""
    return answer(status, msgspec.json.encode(value), content_type="application/json", **headers)


def stream(*parts: bytes) -> bytes:
    """The beginning of an event stream."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)


class ScriptedServer:
    """The server, in threads of its own.

    Args:
        script: the responses, in the order of the requests.
    """

    def __init__(self, *script: Script) -> None:
        self.heard: list[ReceivedRequest] = []
        self.refused: list[ReceivedRequest] = []
        """Requests without a scripted response."""
        self.left = threading.Event()
        """Set once a client has disconnected from a silence."""
        self._script: queue.SimpleQueue[Script] = queue.SimpleQueue()
        for one in script:
            self._script.put(one)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def is_used_up(self) -> bool:
        """True if all responses were used, and no request got none."""
        return self._script.empty() and not self.refused

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            heard = _hear(connection)
            if heard is None:
                return
            self.heard.append(heard)
            try:
                step = self._script.get_nowait()
            except queue.Empty:
                self.refused.append(heard)
                return
            match step:
                case ScriptedAnswer(content):
                    connection.sendall(content)
                case Reset(content):
                    connection.sendall(content)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                case Silence(content):
                    connection.sendall(content)
                    while connection.recv(_CHUNK):
                        pass
                    self.left.set()
                case Accept(headers):
                    body = {"id": heard.headers["operation-id"], "status": "NotStarted"}
                    connection.sendall(json_answer(202, body, retry_after=1, **headers).content)
                case Drip(content):
                    connection.sendall(content)
                    while not self.left.wait(_PACE):
                        connection.sendall(b" ")


def _hear(connection: socket.socket) -> ReceivedRequest | None:
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(_CHUNK)
        if not part:
            return None
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(_CHUNK)
    return ReceivedRequest(method, path, headers, body)


@contextmanager
def refusing() -> Iterator[str]:
    """The URL of a port on which no process listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
