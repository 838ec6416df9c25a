"""Corrections of nats-py for every connection: bytes that it can't decode, and a socket that does not time out.

A subject is any bytes without space to nats-server, and a header block too. nats-py 2.16 decodes a subject as UTF-8 and
expects a header block to begin as NATS says. An error in either ends its read loop silently. The connection is found
stale some ten seconds later, and then the consumer delivers the same message again: one such message would stop every
reader of the stream for ever.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final

from nats.aio.client import Client

UNACKNOWLEDGED_LIMIT: Final = 10.0
"""Seconds."""


def tolerate_invalid_bytes(nc: Client) -> None:
    """Have bytes of a subject that are no UTF-8 arrive as U+FFFD, and unreadable headers as none.

    Such a subject does not belong to opstream, so readers skip the message like any foreign one.
    """
    build, process = nc._build_message, nc._process_headers  # noqa: SLF001 - nats-py has no other place for it

    def build_message(sid: int, subject: bytes, *rest: Any) -> Any:  # noqa: ANN401 - passed on unchanged
        readable = bytes(subject)
        if not readable.isascii():
            readable = readable.decode(errors="replace").encode()
        return build(sid, readable, *rest)

    async def process_headers(headers: bytes | None) -> Any:  # noqa: ANN401 - as nats-py has it
        if headers is None:
            return None
        try:
            return await process(headers)
        except (IndexError, UnicodeDecodeError):
            return None

    nc._build_message = build_message  # type: ignore[assignment,method-assign] # noqa: SLF001
    nc._process_headers = process_headers  # type: ignore[method-assign] # noqa: SLF001


def limit_unacknowledged_time(nc: Client) -> None:
    """Have the kernel close a connection whose peer has not acknowledged any bytes for 10 s.

    Otherwise nats-py, when it finds the connection stale, first waits until its unsent bytes have left: a quarter of an
    hour if the broker has lost its power.
    """
    writer: Any = getattr(nc._transport, "_bare_io_writer", None)  # noqa: SLF001 - nats-py hides its socket
    sock = None if writer is None else writer.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):  # the socket was closed meanwhile
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNACKNOWLEDGED_LIMIT * 1000))
