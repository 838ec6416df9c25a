"""One write for the head of a response and the beginning of its body.

uvicorn writes the two one after the other, and uvloop sends each at once: two system calls, two packets, and a client
that wakes up twice for one response.
"""

from __future__ import annotations

import asyncio
from typing import Final

_CONTINUE: Final = b"HTTP/1.1 100 "


class ResponseWriter:
    """The connection, as uvicorn has it for one request: the head waits for the next write, or for the end.

    Args:
        transport: of the connection.
    """

    __slots__ = ("_head", "_is_begun", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._is_begun = False

    def write(self, data: bytes) -> None:
        """Write a part of the response, the head first. `100 Continue`, which the client waits for, goes at once."""
        if self._is_begun:
            head, self._head = self._head, b""
            self._transport.write(head + data if head else data)
        elif data.startswith(_CONTINUE):
            self._transport.write(data)
        else:
            self._is_begun = True
            self._head = data

    def flush(self) -> None:
        """Write a head that still waits: the response has no body, or HEAD was asked."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Write what waits, and close the connection."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Return True if the connection ends, or has ended."""
        return self._transport.is_closing()
