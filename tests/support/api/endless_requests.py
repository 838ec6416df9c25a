"""Requests of which one part never ends, and a client that sends them until it is dropped."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

_PIECE: Final = 16 * 1024
MOST: Final = 16 * 1024 * 1024
"""Bytes that the client would send: far more than the buffers of a connection hold."""

_CHUNKED: Final = b"POST /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS: Final = {
    "header value": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: ", b"x"),
    "folded header value": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: a\r\n ", b"x"),
    "header name": (b"GET /healthz HTTP/1.1\r\nHost: a\r\n", b"x"),
    "headers": (b"GET /healthz HTTP/1.1\r\nHost: a\r\n", b"X-More: x\r\n"),
    "target": (b"GET /", b"x"),
    "query": (b"GET /healthz?", b"x"),
    "method": (b"", b"G"),
    "version": (b"GET /healthz HTTP/1.", b"1"),
    "empty lines": (b"", b"\r\n"),
    "trailer value": (_CHUNKED + b"0\r\nX-Long: ", b"x"),
    "trailers": (_CHUNKED + b"0\r\n", b"X-More: x\r\n"),
    "chunk extension": (_CHUNKED + b"1;x=", b"x"),
    "chunk length": (_CHUNKED, b"0"),
}
"""By the part that never ends: how the request begins, and what follows again and again."""


async def send_endlessly(port: int, start: bytes, piece: bytes) -> tuple[bytes, int]:
    """Send a request that never ends until the connection does. Return the answer, and how many bytes were sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(reader.read())
    pieces = piece * (_PIECE // len(piece))
    sent = 0
    writer.write(start)
    while sent < MOST and not reading.done():
        writer.write(pieces)
        sent += len(pieces)
        with contextlib.suppress(ConnectionError):
            writing = asyncio.ensure_future(writer.drain())
            await asyncio.wait([writing, reading], return_when=asyncio.FIRST_COMPLETED)
            writing.cancel()
            await asyncio.wait([writing])
    writer.transport.abort()
    return await reading, sent
