"""Which addresses the service may call, and from a host name to those.

Without this guard anyone who may name a URL could make opstream send requests into the network that it runs in, for
example to a cloud's metadata service or to a database (server-side request forgery).

A name is resolved once for each attempt, and the connection goes to an address that was checked here. If the name were
resolved again to connect, its owner could answer differently the second time (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REFUSED_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host (RFC 791)
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # behind a carrier's NAT (RFC 6598)
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local (RFC 3927); the metadata services of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments (RFC 6890)
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks (RFC 2544)
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_UNICAST_V6: Final = ipaddress.IPv6Network("2000::/3")
"""Nothing else is global: not loopback, fc00::/7, fe80::/10, ff00::/8, nor what holds an IPv4 address (::ffff:0:0/96,
64:ff9b::/96, 64:ff9b:1::/48)."""
_REFUSED_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments (RFC 2928): Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4, which holds an IPv4 address (RFC 3056)
        "3fff::/20",  # documentation (RFC 9637)
    )
)


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet (IANA special-purpose registries, as of RFC 9637)."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _UNICAST_V6 and not any(address in network for network in _REFUSED_V6)


def is_permitted(address: Address, allowed: Iterable[Network]) -> bool:
    """Whether an address may be called: it is public, or of a network that the operator allows.

    An IPv4 address inside of an IPv6 one is allowed only by an IPv6 network.
    """
    return is_public(address) or any(address in network for network in allowed)


Resolver = Callable[[str], Awaitable[Sequence[Address]]]
"""The addresses of a name, the best first.

Raises:
    OSError: there are none.
"""

_MAX_ADDRESSES: Final = 4
"""Addresses of one name that are tried at most."""


class AddressRefused(Exception):
    """A host has no address that may be called."""


async def permitted_addresses(host: str, resolve: Resolver, allowed: Sequence[Network]) -> list[Address]:
    """The addresses of a host that may be called, in the resolver's order; those that may not are passed over.

    Raises:
        AddressRefused: there is none among them.
        OSError: the name has no address.
    """
    try:
        found: Sequence[Address] = [ipaddress.ip_address(host)]
    except ValueError:
        found = await resolve(host)
    passed = [address for address in found if is_permitted(address, allowed)]
    if not passed:
        shown = ", ".join(map(str, found[:_MAX_ADDRESSES])) or "nothing"
        raise AddressRefused(
            f"{host} resolves to {shown}, which is not of the public internet: --allow-private allows a network"
        )
    return passed[:_MAX_ADDRESSES]


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
            found = _lookup(host)
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


def _lookup(host: str) -> list[Address]:
    entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in entries))
