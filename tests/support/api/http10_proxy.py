"""A reverse proxy that speaks HTTP/1.0 to the service, one connection a request, as nginx does as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

_PASSED_ON = re.compile(rb"(?im)^(?:connection|host): .*\r\n")


@contextlib.asynccontextmanager
async def speaking_http10(port: int) -> AsyncIterator[str]:
    """Forward requests without a body to the service on a port; yield the proxy's base URL."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            own = f"Host: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
            upstream, sender = await asyncio.open_connection("127.0.0.1", port)
            try:
                sender.write(_PASSED_ON.sub(b"", head.replace(b" HTTP/1.1", b" HTTP/1.0", 1))[:-2] + own)
                while part := await upstream.read(65_536):
                    writer.write(part)
                    await writer.drain()
            finally:
                sender.close()
        writer.close()

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()
