"""uvicorn, adapted: it handles no signals, bounds request heads, and responds to invalid HTTP as the contract says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Final

import httptools
import uuid_utils
import uvicorn
from litestar.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from opstream_schemas.errors import ErrorCode

from .errors import ApiError
from .http import responses
from .http.responses import ABORT_KEY, JSON, encode_error

GRACE_SECONDS: Final = 5
"""Whole seconds for open requests to finish when the service stops. A submit takes less."""
MAX_HEAD_BYTES: Final = 32 * 1024
"""Bytes of request line and headers together, about as other servers allow. The parser itself has no limit."""
MAX_URL_BYTES: Final = 8 * 1024
"""Bytes of the request's URL. The longest id, percent-encoded, has 3 KiB; litestar caches recent URLs."""

_MAX_PIPELINED: Final = 16
"""Pipelined requests that may wait on one connection."""
_UPGRADES: Final = frozenset({b"upgrade", b"http2-settings"})


class Server(uvicorn.Server):
    """A uvicorn server without signal handlers: set `should_exit` to stop it.

    Args:
        config: uvicorn's.
        on_stop: called when the server begins to stop. It must end all requests that wait or stream.
    """

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, and let open requests finish."""
        self._on_stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn's own handler raises the signal again after serving, which ends the process too early."""
        yield


def make_server(app: ASGIApp, on_stop: Callable[[], None]) -> Server:
    """Build a server for `serve(sockets=[…])` in the running loop; for `on_stop` see `Server`."""
    return Server(
        uvicorn.Config(
            app,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # any client can send these headers; behind a proxy use --public-url
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        ),
        on_stop,
    )


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection."""

    _head_size = 0
    _current: RequestResponseCycle | None = None
    """The request that the app handles now. uvicorn's own `cycle` is the newest of a pipeline."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a client. The kernel drops it if it does not read its response for `WRITE_TIMEOUT` seconds."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(responses.WRITE_TIMEOUT * 1000))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the current request that the client has gone. uvicorn tells only the newest of a pipeline."""
        current = self._current
        if current is not None and not current.response_complete:
            current.disconnected = True
            current.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes of one request or several."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._head_size = 0
        super().on_message_begin()
        self.scope[ABORT_KEY] = self.transport.abort  # type: ignore[typeddict-unknown-key]

    def on_url(self, url: bytes) -> None:
        """Take over a part of the URL."""
        self._count_head_bytes(len(url), MAX_URL_BYTES)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take over a header."""
        self._count_head_bytes(len(name) + len(value), MAX_HEAD_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, unless it asks for an upgrade: then `_decline_upgrade` parses it again without that."""
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        if len(self.pipeline) > _MAX_PIPELINED:
            self.transport.abort()
        elif self.pipeline:
            self.flow.resume_reading()  # uvicorn pauses reading here, so a disconnect would not be seen

    def on_message_complete(self) -> None:
        """End the request, unless it asks for an upgrade."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Respond to invalid HTTP and close the connection, after the responses to the requests before it."""
        if self.pipeline and self.cycle is not None and self.cycle.more_body:
            self.pipeline.popleft()  # the invalid request
            pending = self.pipeline[0][0] if self.pipeline else self._current
        else:
            pending = self.cycle
        if pending is not None and not pending.response_complete and not pending.more_body:
            pending.keep_alive = False
            return
        error = ApiError(
            ErrorCode.INVALID_HEADER,
            "the request is not valid HTTP/1.1, its method is unknown, or its URL or headers are too long",
        )
        body = encode_error(error.body)
        head = [
            "HTTP/1.1 400 Bad Request",
            f"Content-Type: {JSON}",
            f"content-length: {len(body)}",
            "connection: close",
            f"x-ms-request-id: {uuid_utils.uuid4()}",
            f"x-ms-error-code: {error.code}",
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Ignore an upgrade and continue with HTTP/1.1, as a server may (RFC 9110, Upgrade).

        The parser treats a request with `Upgrade` as one without a body, so a POST of Java's HttpClient, which offers
        h2c, would lose its input. So the request is parsed again without the upgrade.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("")
            return
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                lines.append(b"connection: " + b", ".join(token for token in tokens if token.lower() not in _UPGRADES))
            elif name not in _UPGRADES:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _count_head_bytes(self, size: int, limit: int) -> None:
        self._head_size += size
        if self._head_size > limit:
            raise ValueError(f"the head of a request has more than {limit} bytes")
