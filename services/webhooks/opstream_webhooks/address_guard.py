"""From a host name to the addresses that may be called. Caller: `sending.py`, which calls them and nothing else.

A name is resolved once for each attempt, and the connection goes to an address that was looked at here: were the name
resolved again by whoever connects, its owner could answer otherwise the second time (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from .addresses import Address, Network, may_call

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
"""The addresses of a name, the best first.

Raises:
    OSError: there are none.
"""

_MAX_TRIED: Final = 4
"""Addresses of one name that are tried at most."""


class AddressRefused(Exception):
    """A host has no address that may be called."""


async def callable_addresses(host: str, resolve: Resolve, allowed: Sequence[Network]) -> list[Address]:
    """The addresses of a host that may be called, in the resolver's order; those that may not are passed over.

    Raises:
        AddressRefused: there is none among them.
        OSError: the name has no address.
    """
    try:
        found: Sequence[Address] = [ipaddress.ip_address(host)]
    except ValueError:
        found = await resolve(host)
    passed = [address for address in found if may_call(address, allowed)]
    if not passed:
        shown = ", ".join(map(str, found[:_MAX_TRIED])) or "nothing"
        raise AddressRefused(
            f"{host} resolves to {shown}, which is not of the public internet: --allow-private allows a network"
        )
    return passed[:_MAX_TRIED]


async def resolve_by_system(host: str) -> list[Address]:
    """Ask the system's resolver.

    Each question has a thread of its own that nobody waits for at the end. A pool would be full as soon as a few
    names have servers that don't answer, and their owners would keep everybody else's names from being resolved.

    Raises:
        OSError: the name has no address.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Address]] = loop.create_future()

    def deliver(found: list[Address] | OSError) -> None:
        if answer.done():
            return  # it came too late
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: list[Address] | OSError
        try:
            found = _ask(host)
        except OSError as error:
            found = error
        except ValueError as error:  # a label that no DNS name can have
            found = OSError(str(error))
        if not loop.is_closed():
            loop.call_soon_threadsafe(deliver, found)

    try:
        threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    except RuntimeError as error:  # the container has its limit of threads
        raise OSError(str(error)) from error
    return await answer


def _ask(host: str) -> list[Address]:
    entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in entries))
