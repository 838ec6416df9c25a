"""Who sent a request and from where, by its connection and by the headers of trusted proxies (ADR 0023).

This is no access control. A proxy in front of opstream authenticates; opstream records the result.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

import msgspec

from opstream_api.errors import ApiError
from opstream_schemas.errors import ErrorCode

from .requests import Headers, single_value

FORWARDED_FOR: Final = "X-Forwarded-For"
MAX_IDENTITY_LENGTH: Final = 256
"""Characters of an identity or client id. A longer one is refused: truncated, it could equal another one."""

_MAX_HOPS: Final = 32
"""Entries of `X-Forwarded-For` that are read, from the right."""
_MAX_CACHED_PEERS: Final = 4096

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request."""

    identity: str = ""
    """The identity that a trusted proxy has authenticated; empty without one."""
    client_id: str = ""
    """The application that the caller uses, as the proxy names it."""
    client_address: str = ""
    """IP address in its shortest form; empty if unknown (a Unix socket, a proxy that hides it)."""


class CallerResolver:
    """Finds the caller of a request.

    Args:
        trusted: networks of the proxies whose headers are trusted.
        identity_header: header in which they name the caller; empty for none.
        client_id_header: header in which they name the application; empty for none.
    """

    def __init__(
        self, *, trusted: Sequence[Network] = (), identity_header: str = "", client_id_header: str = ""
    ) -> None:
        self._trusted = tuple(trusted)
        self._identity_header = identity_header
        self._client_id_header = client_id_header
        self._resolve_peer_cached = lru_cache(_MAX_CACHED_PEERS)(self._resolve_peer)

    def resolve(self, client: tuple[str, int] | None, headers: Headers) -> Caller:
        """Return the caller of a request.

        Args:
            client: host and port of the connection's peer, as ASGI has them; None if unknown.
            headers: those of the request.

        Raises:
            ApiError: `InvalidHeader`: the name that a trusted proxy gives is too long, not UTF-8 or not printable.
        """
        if client is None:
            return _UNKNOWN
        peer, is_proxy = self._resolve_peer_cached(client[0])
        if not is_proxy:
            return peer
        return Caller(
            identity=_identity_value(headers, self._identity_header),
            client_id=_identity_value(headers, self._client_id_header),
            client_address=self._forwarded_address(peer.client_address, headers),
        )

    def _resolve_peer(self, host: str) -> tuple[Caller, bool]:
        """Return a peer as a caller, and True if it is a trusted proxy."""
        address = _parse_address(host)
        if address is None:
            return _UNKNOWN, False
        return Caller(client_address=str(address)), self._is_trusted(address)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _forwarded_address(self, peer: str, headers: Headers) -> str:
        """Return the first address from the right that is not a trusted proxy's; empty if that entry is no address.

        Each proxy appends the address of its own peer. So the entries to the left of an untrusted address were
        written by that address's owner, and prove nothing.
        """
        found = peer
        entries = ",".join(headers.get(FORWARDED_FOR.lower().encode(), [])).split(",")
        for entry in islice(filter(None, map(str.strip, reversed(entries))), _MAX_HOPS):
            address = _parse_address(_without_port(entry))
            if address is None:
                return ""
            found = str(address)
            if not self._is_trusted(address):
                break
        return found


_UNKNOWN: Final = Caller()


def _parse_address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])  # a zone index is local to the machine that wrote it
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _without_port(entry: str) -> str:
    """Strip the port: some proxies write `192.0.2.1:4711` or `[2001:db8::1]:4711`."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    host, colon, port = entry.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else entry


def _identity_value(headers: Headers, name: str) -> str:
    value = (single_value(headers, name) if name else None) or ""
    try:
        text = value.encode("latin-1").decode()  # ASGI headers are bytes, and proxies write names in UTF-8
    except UnicodeDecodeError:
        raise _invalid_header(name, "is not UTF-8") from None
    if len(text) > MAX_IDENTITY_LENGTH:
        raise _invalid_header(name, f"has more than {MAX_IDENTITY_LENGTH} characters")
    if not text.isprintable():
        raise _invalid_header(name, "has characters that can't be printed")
    return text


def _invalid_header(name: str, why: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_HEADER, f"the header {name} {why}", target=name)
