"""Asks a server that is starting whether it is ready. Called by `up`; small, so that the supervisor stays small."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

_TIMEOUT: Final = 2.0
_PAUSE: Final = 0.05
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def reachable(host: str) -> str:
    """An address under which a server that listens on `host` is reached from this machine."""
    return _EVERYWHERE.get(host, host)


def url(scheme: str, host: str, port: int) -> str:
    """The URL of a server on this machine."""
    near = reachable(host)
    return f"{scheme}://{f'[{near}]' if ':' in near else near}:{port}"


async def wait_until(is_true: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again; whoever calls bounds the time."""
    while not await is_true():  # noqa: ASYNC110 - another process has no event to wait for
        await asyncio.sleep(_PAUSE)


async def is_broker(host: str, port: int) -> bool:
    """Whether a NATS server greets there."""
    return (await _first_line(host, port, b"")).startswith(b"INFO ")


async def is_ready(host: str, port: int) -> bool:
    """Whether `GET /readyz` answers 200 there."""
    request = f"GET /readyz HTTP/1.1\r\nHost: {reachable(host)}:{port}\r\nConnection: close\r\n\r\n"
    return b" 200 " in await _first_line(host, port, request.encode())


async def _first_line(host: str, port: int, request: bytes) -> bytes:
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(reachable(host), port)
            try:
                writer.write(request)
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return b""
