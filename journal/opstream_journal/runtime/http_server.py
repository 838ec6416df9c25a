"""uvicorn with bounds: what one client may send, how long it may take, and how many clients there may be.

uvicorn and its parser bound none of that. One header that never ends cost 38 s of CPU and 270 MiB for 150 MiB, since
the parser joins its parts again and again; a connection that sends nothing was kept for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Final

import httptools
import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from .conditions import Conditions
from .descriptors import check_descriptors
from .request_head import NO_TUNNEL, PROBES, Refusal, RefusedRequest, check_head, malformed, refused_by
from .response_writer import ResponseWriter

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 32 * 1024
"""Bytes of URL, headers and trailers together, about as other servers allow."""
MAX_URL_BYTES: Final = 8 * 1024
"""Bytes of the request's URL. The longest id, percent-encoded, has 3 KiB; litestar caches recent URLs."""
HEAD_SECONDS: Final = 10.0
"""Seconds from the connect, or from the first byte of a further request, until its headers have arrived."""
BODY_SECONDS: Final = 30.0
"""Seconds from then until the body has arrived, and one more for each `MIN_BODY_RATE` bytes of it."""
MIN_BODY_RATE: Final = 8 * 1024
"""Bytes a second."""
LINGER_SECONDS: Final = 1.0
"""Seconds that a refused client has to read why."""
HALF_CLOSED_SECONDS: Final = 1.0
"""Seconds in which a client that sends no more still gets its answer."""
CHECK_TICKS: Final = 10
"""uvicorn's ticks, of 0.1 s each, between two checks of the time limits."""
MAX_PIPELINED: Final = 16
"""Requests that wait behind another one of their connection, and that 4 KiB may exceed. More are not read meanwhile."""
PROBE_RESERVE: Final = 16
"""Connections beyond the allowed ones on which only a probe is answered."""
PROBE_SECONDS: Final = 1.0
"""Seconds that a probe has for its head on one of those."""

_LINE_BYTES: Final = 4
"""What a header has beside its name and value: `: ` and CR LF."""
_PIECE_BYTES: Final = 4096
"""Bytes of many requests that the parser gets at once: it stops only between two pieces."""
_FEW_LINES: Final = 2 * MAX_PIPELINED
"""So many ends of lines are not too many requests, each of which has two: a large body is parsed in one piece."""
_FULL: Final = "TooManyConnections"
_FREE_SHARE: Final = 0.9
"""Share of the allowed connections below which there are no longer too many, so that the log is not full of it."""


class BoundedServer(uvicorn.Server):
    """A uvicorn server without signal handlers, for `serve(sockets=[…])`: set `should_exit` to stop it.

    Args:
        config: uvicorn's; `http` must be a `BoundedProtocol`.
        conditions: where it reports that it is full, or out of file descriptors.
        max_connections: connections at once; further ones get a 503, but for probes on the first `PROBE_RESERVE`.
    """

    def __init__(self, config: uvicorn.Config, conditions: Conditions, *, max_connections: int) -> None:
        super().__init__(config)
        self._conditions = conditions
        self._max_connections = max_connections
        self.server_state.bounds = self  # type: ignore[attr-defined]  # how a protocol finds it

    def is_full(self, connections: int) -> bool:
        """Return True, and report it, if there are more connections than allowed."""
        if connections <= self._max_connections:
            return False
        self._conditions.report(
            _FULL,
            f"{self._max_connections:,} connections are open, so further ones are refused",
            "start more processes, close unused connections, or raise the limit of file descriptors (ulimit -n)",
        )
        return True

    def has_reserve(self, connections: int) -> bool:
        """Return True if there is still one for a probe."""
        return connections <= self._max_connections + PROBE_RESERVE

    async def on_tick(self, counter: int) -> bool:
        """Check the time limits of all connections, and the file descriptors, every second."""
        if counter % CHECK_TICKS == 0:
            connections = self.server_state.connections
            now = asyncio.get_running_loop().time()
            for connection in list(connections):
                if isinstance(connection, BoundedProtocol):
                    connection.check_time(now)
            if len(connections) <= self._max_connections * _FREE_SHARE:
                self._conditions.resolve(_FULL)
            check_descriptors(self._conditions)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn's own handler raises the signal again after serving, which ends the process too early."""
        yield


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection, with bounds in bytes and seconds."""

    _current: RequestResponseCycle | None = None
    """The request that the app handles now. uvicorn's own `cycle` is the newest of a pipeline."""
    _writer: ResponseWriter | None = None
    """Of that request's response."""
    _deadline: float | None = None
    """The loop's time until which the rest of a request has to arrive; None while none is expected."""
    _is_begun = False
    """A byte of the next request has arrived."""
    _is_in_body = False
    """The head of a request is complete, and its body is not."""
    _is_refused = False
    """Nothing that the client sends is parsed any more."""
    _is_for_probes = False
    """There are too many connections, so only a probe is answered on this one."""
    _head_size = 0
    """Bytes of the current request's head that the parser has handed out."""
    _held_size = 0
    """Bytes that the parser holds, or has dropped, since it last handed something out."""
    _unread: bytearray
    """Bytes that the parser gets when less requests wait."""
    flow: _Flow

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a client, unless there are too many."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self._unread = bytearray()
        self._deadline = self.loop.time() + HEAD_SECONDS
        server = getattr(self.server_state, "bounds", None)
        if isinstance(server, BoundedServer) and server.is_full(len(self.connections)):
            if not server.has_reserve(len(self.connections)):
                self._refuse(_full())
                return
            self._is_for_probes = True
            self._deadline = self.loop.time() + PROBE_SECONDS

    def data_received(self, data: bytes) -> None:
        """Parse bytes of one request or several, within the bounds."""
        self._unset_keepalive_if_required()
        if self._is_refused:
            return
        if self._unread or self.pipeline or (len(data) > _PIECE_BYTES and _has_many_lines(data)):
            self._unread += data
            self._parse_unread()
        else:
            self._parse(data)

    def feed(self, data: bytes) -> None:
        """Parse bytes.

        Raises:
            HttpParserError: they are not HTTP.
            RefusedRequest: they ask for something else.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise malformed("it asks for another protocol, and this server has HTTP/1.1 only") from error

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._head_size = self._held_size = 0
        self._is_begun = True
        if self._deadline is None:
            self._deadline = self.loop.time() + HEAD_SECONDS
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take over a part of the URL."""
        self._count_head_bytes(len(url), MAX_URL_BYTES, "its URL has")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take over a header, or a trailer."""
        self._count_head_bytes(len(name) + len(value) + _LINE_BYTES, MAX_HEAD_BYTES, "its head and trailers have")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._held_size = 0
        if self.parser.get_method() == b"CONNECT":
            raise NO_TUNNEL
        self.url = check_head(self.parser.get_http_version(), self.url, self.headers)
        if self._is_for_probes and self.url.partition(b"?")[0] not in PROBES:
            raise _full()
        super().on_headers_complete()  # it raises for a URL that it can't parse: then there is no new cycle
        if self._is_for_probes:
            self.cycle.keep_alive = False
        self._is_in_body = True
        self._deadline = self.loop.time() + BODY_SECONDS

    def on_body(self, body: bytes) -> None:
        """Take over a part of the body."""
        self._held_size = 0
        if self._deadline is not None and not self.cycle.response_complete:
            self._deadline += len(body) / MIN_BODY_RATE
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request. From here to its response, nothing is expected of the client."""
        self._held_size = 0
        self._deadline = None
        self._is_begun = self._is_in_body = False
        super().on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that sends no more, if the answer comes soon: it may still read (RFC 9112, 9.6).

        Most clients whose end is seen are gone. A wait or a stream for one of them ends after `HALF_CLOSED_SECONDS`.
        """
        cycle = self.cycle
        if self._is_refused or self._unread or cycle is None or cycle.more_body or cycle.response_complete:
            return False
        cycle.keep_alive = False
        self.loop.call_later(HALF_CLOSED_SECONDS, self.transport.close)
        return True

    def on_response_complete(self) -> None:
        """Start the next request, and go on to read."""
        if self._writer is not None:
            self._writer.flush()
        super().on_response_complete()
        if not self._unread:
            return
        if self.transport.is_closing():
            self._unread.clear()
            return
        if self._deadline is not None:  # until now, the rest of that request was not read
            self._deadline = self.loop.time() + (BODY_SECONDS if self._is_in_body else HEAD_SECONDS)
        self._parse_unread()

    def check_time(self, now: float) -> None:
        """Refuse the client if the rest of its request is late."""
        if self._deadline is None or now < self._deadline or self._unread or self.transport.is_closing():
            return
        if self._is_for_probes and not self._is_refused:
            self._refuse(_full())
        elif self._is_begun and not self._is_refused:
            message = "the rest of the request did not arrive in time: send it again"
            self._refuse(RefusedRequest(message, Refusal.TIMED_OUT))
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """End the connection now if it is refused; otherwise after its response, or at once if it has none.

        What is not read yet gets no response, and is not done.
        """
        self._unread.clear()
        if self._is_refused and self._deadline is not None:
            self.transport.close()
        else:
            super().shutdown()

    def refusal(self, refused: RefusedRequest) -> tuple[list[str], bytes]:
        """Return the header lines and the body of the response to a refused client."""
        return ["content-type: text/plain"], str(refused).encode()

    def _parse_unread(self) -> None:
        """Parse while not too many requests wait.

        Some more bytes are taken from the connection, so that the end of the client is seen.
        """
        while self._unread and len(self.pipeline) < MAX_PIPELINED:
            piece = bytes(self._unread[:_PIECE_BYTES])
            del self._unread[:_PIECE_BYTES]
            self._parse(piece)
        self.flow.hold(is_held=len(self._unread) > HIGH_WATER_LIMIT)

    def _parse(self, data: bytes) -> None:
        self._is_begun = True
        if self._deadline is None:
            self._deadline = self.loop.time() + HEAD_SECONDS
        self._held_size += len(data)
        try:
            self.feed(data)
            if self._head_size + self._held_size > MAX_HEAD_BYTES:
                raise _too_long("a part of it has", MAX_HEAD_BYTES)
        except (httptools.HttpParserError, RefusedRequest) as error:
            self._refuse(refused_by(error, data))

    def _refuse(self, refused: RefusedRequest) -> None:
        """Respond to a refused client and close the connection, after the responses to the requests before."""
        self._is_refused = True
        self._deadline = None
        self._unread.clear()
        if self._is_in_body and self.cycle.response_complete:
            self.transport.close()  # another response would be taken for that to the next request
            return
        if self.pipeline and self.cycle is not None and self.cycle.more_body:
            self.pipeline.popleft()  # the refused request
            pending = self.pipeline[0][0] if self.pipeline else self._current
        else:
            pending = self.cycle
        if pending is not None and not pending.response_complete:
            if not pending.more_body:
                pending.keep_alive = False
                return
            if pending.response_started:
                self.transport.abort()
                return
        lines, body = self.refusal(refused)
        head = "\r\n".join([*lines, f"content-length: {len(body)}", "connection: close", "", ""])
        self.transport.write(STATUS_LINE[refused.refusal] + head.encode() + body)
        if refused.refusal is Refusal.FULL and not self._is_for_probes:
            self.transport.close()
            return
        # With unread bytes, a close resets the connection, and the client may not get to read the response.
        self.transport.write_eof()
        self.flow.pause_reading()
        self._deadline = self.loop.time() + LINGER_SECONDS

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        self._writer = cycle.transport = ResponseWriter(self.transport)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app if cycle.scope["http_version"] != "1.0" else _close_delimited(app, cycle))

    def _count_head_bytes(self, size: int, limit: int, part: str) -> None:
        self._head_size += size
        self._held_size = 0
        if self._head_size > limit:
            raise _too_long(part, limit)


class _Flow(FlowControl):
    """uvicorn's flow control, but what resumes reading for one request does not while too much is unread."""

    _is_held = False

    def hold(self, *, is_held: bool) -> None:
        """Stop reading, or go on if it was stopped here."""
        if is_held:
            self._is_held = True
            self.pause_reading()
        elif self._is_held:
            self._is_held = False
            self.resume_reading()

    def resume_reading(self) -> None:
        if not self._is_held:
            super().resume_reading()


def _has_many_lines(data: bytes) -> bool:
    found = -1
    for _ in range(_FEW_LINES + 1):  # `count` would take longer by far for a large body without any
        found = data.find(b"\r", found + 1)
        if found < 0:
            return False
    return True


def _full() -> RefusedRequest:
    return RefusedRequest("the service has too many connections: try again", Refusal.FULL)


def _too_long(part: str, limit: int) -> RefusedRequest:
    return malformed(f"{part} more than {limit // 1024} KiB")


def _close_delimited(app: ASGI3Application, cycle: RequestResponseCycle) -> ASGI3Application:
    """Wrap an app for HTTP/1.0, which has no chunks: a body of unknown length ends with the connection.

    uvicorn would send chunks (RFC 9112, 6.1 forbids that), which a proxy passes on as they are.
    """

    async def respond(scope: Any, receive: Any, _send: Any) -> None:  # noqa: ANN401 - ASGI's
        is_delimited = True

        async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
            nonlocal is_delimited
            if message["type"] == "http.response.start":
                is_delimited = any(name.lower() == b"content-length" for name, _ in message["headers"])
                if not is_delimited:
                    cycle.chunked_encoding = False
            elif not is_delimited:
                cycle.expected_content_length = len(message.get("body", b""))
            await cycle.send(message)

        await app(scope, receive, send)

    return respond
