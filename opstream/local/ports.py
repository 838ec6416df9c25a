"""Ports of this machine: which are free, the URLs of servers there, and whether a server is ready."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from opstream.terminal.console import CommandError

# Below the ports that Linux gives to outgoing connections, which could take the port before the server does.
_FIRST_PORT: Final = 10_240
_PORT_COUNT: Final = 32_768 - _FIRST_PORT
_MAX_TRIES: Final = 100


class ListenAddress(msgspec.Struct, frozen=True):
    """Where a server will listen."""

    host: str
    port: int
    """0 for a free one."""
    option: str
    """The option to change if the port is not free."""


def free_ports(addresses: Sequence[ListenAddress]) -> list[int]:
    """The ports to use, all different: the given ones if they are free, and free ones for 0.

    They are not reserved, so use them at once.

    Raises:
        CommandError: a port is in use, or this user may not use it.
    """
    with contextlib.ExitStack() as listeners:
        ports: list[int] = []
        for address in addresses:
            try:
                listener = _listen(address.host, address.port) if address.port else _listen_anywhere(address.host)
            except OSError as error:
                raise CommandError(_listen_problem(error, address)) from error
            listeners.enter_context(listener)
            ports.append(listener.getsockname()[1])
        return ports


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, socket_address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # As servers do: a port with nothing but connections in TIME_WAIT is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(socket_address)
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_anywhere(host: str) -> socket.socket:
    for _ in range(_MAX_TRIES):
        try:
            return _listen(host, _FIRST_PORT + secrets.randbelow(_PORT_COUNT))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _listen(host, 0)


def _listen_problem(error: OSError, address: ListenAddress) -> str:
    host, port, option = address.host, address.port, address.option
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: change {option.replace('port', 'host')}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what listens there, or choose another one with {option}"
    if error.errno == errno.EACCES:
        return f"this user may not listen on port {port}: choose one above 1023 with {option}"
    return f"can't listen on {host}:{port} ({error.strerror}): change {option}"


_PROBE_TIMEOUT: Final = 2.0
_PROBE_INTERVAL: Final = 0.05
_WILDCARD_HOSTS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def reachable_host(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return _WILDCARD_HOSTS.get(host, host)


def local_url(scheme: str, host: str, port: int) -> str:
    """The URL of a server on this machine."""
    reachable = reachable_host(host)
    return f"{scheme}://{f'[{reachable}]' if ':' in reachable else reachable}:{port}"


async def wait_until(is_true: Callable[[], Awaitable[bool]]) -> None:
    """Poll a condition until it is true. The caller limits the time."""
    while not await is_true():  # noqa: ASYNC110 - another process has no event to wait for
        await asyncio.sleep(_PROBE_INTERVAL)


async def is_broker(host: str, port: int) -> bool:
    """Return True if a NATS server greets there."""
    return (await _first_line(host, port, b"")).startswith(b"INFO ")


async def is_ready(host: str, port: int) -> bool:
    """Return True if `GET /readyz` returns 200 there."""
    request = f"GET /readyz HTTP/1.1\r\nHost: {reachable_host(host)}:{port}\r\nConnection: close\r\n\r\n"
    return b" 200 " in await _first_line(host, port, request.encode())


async def is_refused(host: str, port: int) -> bool:
    """Return True if no server listens there."""
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT):
            _, writer = await asyncio.open_connection(reachable_host(host), port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return False


async def _first_line(host: str, port: int, request: bytes) -> bytes:
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT):
            reader, writer = await asyncio.open_connection(reachable_host(host), port)
            try:
                writer.write(request)
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return b""
