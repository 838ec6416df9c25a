"""Ports of this machine: are they free, and which ones are. Called by `broker` and `up` before they start anything."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
from collections.abc import Sequence
from typing import Final

import msgspec

from opstream.terminal.console import Failure

# Free ones are sought below the ports that kernels give to outgoing connections: one of those may open before the
# server does.
_FIRST: Final = 10_240
_COUNT: Final = 32_768 - _FIRST
_TRIES: Final = 100


class Place(msgspec.Struct, frozen=True):
    """Where a server is about to listen."""

    host: str
    port: int
    """0 for a free one."""
    option: str
    """What to change if it is not free."""


def free_ports(places: Sequence[Place]) -> list[int]:
    """The ports to use, all different: those that were asked for, if they are free, and free ones for 0.

    Nothing keeps them free, so use them at once.

    Raises:
        Failure: a port is in use, or this user may not use it.
    """
    with contextlib.ExitStack() as listeners:
        ports: list[int] = []
        for place in places:
            try:
                listener = _listen(place.host, place.port) if place.port else _listen_anywhere(place.host)
            except OSError as error:
                raise Failure(_problem(error, place)) from error
            listeners.enter_context(listener)
            ports.append(listener.getsockname()[1])
        return ports


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # As servers do: a port of which only old connections linger is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_anywhere(host: str) -> socket.socket:
    for _ in range(_TRIES):
        try:
            return _listen(host, _FIRST + secrets.randbelow(_COUNT))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _listen(host, 0)


def _problem(error: OSError, place: Place) -> str:
    host, port, option = place.host, place.port, place.option
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: change {option.replace('port', 'host')}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what listens there, or choose another one with {option}"
    if error.errno == errno.EACCES:
        return f"this user may not listen on port {port}: choose one above 1023 with {option}"
    return f"can't listen on {host}:{port} ({error.strerror}): change {option}"
