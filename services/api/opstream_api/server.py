"""The HTTP server of the API: it responds to invalid HTTP as the contract says, and declines upgrades.

The bounds of heads, times and connections are those of all services (`opstream_journal.runtime.http_server`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from types import MappingProxyType
from typing import Final

import httptools
import uuid_utils
import uvicorn
from litestar.types import ASGIApp

from opstream_journal.runtime.conditions import Conditions
from opstream_journal.runtime.descriptors import connection_limit
from opstream_journal.runtime.http_server import BoundedProtocol, BoundedServer
from opstream_journal.runtime.request_head import NO_TUNNEL, Refusal, RefusedRequest
from opstream_schemas.errors import ErrorCode

from .errors import ApiError
from .http import responses
from .http.request_log import CLOSING_KEY
from .http.responses import ABORT_KEY, JSON, encode_error

GRACE_SECONDS: Final = 5
"""Whole seconds for open requests to finish when the service stops. A submit takes less."""
KEEP_ALIVE_SECONDS: Final = 75
"""Whole seconds that a connection may be idle after a response: longer than load balancers keep theirs (60 s), so
that none sends a request on a connection that this service is just closing."""

_UPGRADES: Final = frozenset({b"upgrade", b"http2-settings"})
_CODES: Final = MappingProxyType(
    {
        Refusal.MALFORMED: ErrorCode.INVALID_HEADER,
        Refusal.TIMED_OUT: ErrorCode.REQUEST_TIMEOUT,
        Refusal.FULL: ErrorCode.TOO_MANY_CONNECTIONS,
    }
)


class Server(BoundedServer):
    """The API's server; for `config` and `conditions` see `BoundedServer`.

    Args:
        config: uvicorn's.
        conditions: where it reports that it is full.
        on_stop: called when the server begins to stop. It must end all requests that wait or stream.
        max_connections: connections at once.
    """

    def __init__(
        self, config: uvicorn.Config, conditions: Conditions, on_stop: Callable[[], None], max_connections: int
    ) -> None:
        super().__init__(config, conditions, max_connections=max_connections)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, and let open requests finish."""
        self._on_stop()
        await super().shutdown(sockets)


def make_server(app: ASGIApp, conditions: Conditions, on_stop: Callable[[], None], max_connections: int = 0) -> Server:
    """Build a server for `serve(sockets=[…])` in the running loop.

    Args:
        app: the service.
        conditions: see `Server`.
        on_stop: see `Server`.
        max_connections: connections at once; 0 for as many as this process has file descriptors for.
    """
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
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ),
        conditions,
        on_stop,
        max_connections or connection_limit(),
    )


class HttpProtocol(BoundedProtocol):
    """HTTP/1.1 on one connection."""

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

    def feed(self, data: bytes) -> None:
        """Parse bytes. An upgrade is declined."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope[ABORT_KEY] = self.transport.abort  # type: ignore[typeddict-unknown-key]
        self.scope[CLOSING_KEY] = self.transport.is_closing  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """Start the request, unless it asks for an upgrade: then `_decline_upgrade` parses it again without that."""
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        if self.pipeline:
            self.flow.resume_reading()  # uvicorn pauses reading here, so a disconnect would not be seen

    def on_message_complete(self) -> None:
        """End the request, unless it asks for an upgrade."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def refusal(self, refused: RefusedRequest) -> tuple[list[str], bytes]:
        """Return the header lines and the body of the response to a refused client: an error of the contract."""
        error = ApiError(_CODES[refused.refusal], str(refused), target=refused.target)
        lines = [
            f"Content-Type: {JSON}",
            f"x-ms-request-id: {uuid_utils.uuid4()}",
            f"x-ms-error-code: {error.code}",
            *(f"{name}: {value}" for name, value in error.headers.items()),
        ]
        return lines, encode_error(error.body)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Ignore an upgrade and continue with HTTP/1.1, as a server may (RFC 9110, Upgrade).

        The parser treats a request with `Upgrade` as one without a body, so a POST of Java's HttpClient, which offers
        h2c, would lose its input. So the request is parsed again without the upgrade.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise NO_TUNNEL
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                lines.append(b"connection: " + b", ".join(token for token in tokens if token.lower() not in _UPGRADES))
            elif name not in _UPGRADES:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.feed(b"\r\n".join([*lines, b"", rest]))
