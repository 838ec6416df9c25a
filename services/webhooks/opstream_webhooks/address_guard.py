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
        "161.26.0.0/16",  # IBM Cloud's services for its own machines
        "166.8.0.0/14",  # IBM Cloud's endpoints inside of its network
        "168.63.129.16/32",  # Azure's host agent and resolver, which only virtual machines reach
        "169.254.0.0/16",  # link-local (RFC 3927); the metadata services of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments (RFC 6890)
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.31.196.0/24",  # sinks of reverse lookups (RFC 7535)
        "192.52.193.0/24",  # multicast relays (RFC 7450)
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # sinks of reverse lookups (RFC 7534)
        "198.18.0.0/15",  # benchmarks (RFC 2544)
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_UNICAST_V6: Final = ipaddress.IPv6Network("2000::/3")
"""No other IPv6 range is global: neither loopback, fc00::/7, fe80::/10, ff00::/8, nor the ranges that embed an IPv4
address (::ffff:0:0/96, 64:ff9b::/96, 64:ff9b:1::/48)."""
_REFUSED_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments (RFC 2928): Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4, which embeds an IPv4 address (RFC 3056)
        "2620:4f:8000::/48",  # sinks of reverse lookups (RFC 7534)
        "3fff::/20",  # documentation (RFC 9637)
    )
)


_ISATAP: Final = 0x00005EFE
_ISATAP_MASK: Final = 0xFDFFFFFF
"""All but the bit that says whether the embedded address is unique."""


def is_public(address: Address) -> bool:
    """Return True if an address is on the public internet.

    Not public are the IANA special-purpose registries, as of RFC 9637, and addresses of clouds that only their own
    machines reach. An IPv6 address that embeds an IPv4 address as ISATAP does (RFC 5214) is judged by both.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    if int(address) >> 32 & _ISATAP_MASK == _ISATAP and not is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)):
        return False
    return address in _UNICAST_V6 and not any(address in network for network in _REFUSED_V6)


def is_permitted(address: Address, allowed: Iterable[Network]) -> bool:
    """Return True if an address is public, or in a network that the operator allows.

    An IPv4 address that is embedded in an IPv6 address is allowed only by an IPv6 network.
    """
    return is_public(address) or any(address in network for network in allowed)


Resolver = Callable[[str], Awaitable[Sequence[Address]]]
"""Returns the addresses of a name, the best first.

Raises:
    OSError: the name has no address.
"""

_MAX_ADDRESSES: Final = 4
"""Addresses of one name that are called at most."""


class AddressRefused(Exception):
    """No address of a host may be called."""


async def permitted_addresses(host: str, resolve: Resolver, allowed: Sequence[Network]) -> list[Address]:
    """Return the addresses of a host that may be called, in the resolver's order.

    Raises:
        AddressRefused: none of its addresses may be called.
        OSError: the name has no address.
    """
    try:
        found: Sequence[Address] = [ipaddress.ip_address(host)]
    except ValueError:
        found = await resolve(host)
    permitted = [address for address in found if is_permitted(address, allowed)]
    if not permitted:
        shown = ", ".join(map(str, found[:_MAX_ADDRESSES])) or "nothing"
        raise AddressRefused(
            f"{host} resolves to {shown}, which is not on the public internet: --allow-private allows a network"
        )
    return permitted[:_MAX_ADDRESSES]


async def resolve_by_system(host: str) -> list[Address]:
    """Resolve a name by the system's resolver.

    Each lookup gets a thread of its own, and the process does not wait for it at exit. A thread pool would be full as
    soon as the servers of a few names do not answer, and no other name would be resolved.

    Raises:
        OSError: the name has no address.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[list[Address]] = loop.create_future()

    def deliver(found: list[Address] | OSError) -> None:
        if result.done():
            return  # the caller no longer waits
        if isinstance(found, OSError):
            result.set_exception(found)
        else:
            result.set_result(found)

    def look_up() -> None:
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
        threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    except RuntimeError as error:  # the container's limit of threads is reached
        raise OSError(str(error)) from error
    return await result


def _lookup(host: str) -> list[Address]:
    entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in entries))
