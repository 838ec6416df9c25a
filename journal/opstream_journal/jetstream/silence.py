"""Bounds the time for which a broker may be silent. Caller: `link.py`, for every connection."""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final

from nats.aio.client import Client

LIMIT: Final = 10.0
"""Seconds."""


def bound_silence(nc: Client) -> None:
    """Have the kernel give a connection up whose other side takes nothing for 10 s.

    Otherwise nats-py, when it finds the connection stale, waits for unsent bytes to leave before it tries another
    broker: a quarter of an hour for one that lost its power.
    """
    writer: Any = getattr(nc._transport, "_bare_io_writer", None)  # noqa: SLF001 - nats-py hides its socket
    sock = None if writer is None else writer.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):  # closed meanwhile: then there is nothing to bound
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(LIMIT * 1000))
