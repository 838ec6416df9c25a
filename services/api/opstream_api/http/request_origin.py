"""Which hosts and web sites may use the service: what protects it from the browsers of those who can reach it.

A page of any site can make a browser send requests to a service on the same machine or network. Three checks keep such
requests out. The first is on `Host`: a site whose name suddenly resolves to this machine (DNS rebinding) still sends
its own name. The second is on `Sec-Fetch-Site` and `Origin`, by which a browser says which site a request comes from.
The third, in `requests`, is that a body must be declared as JSON, which a page can't do without asking first.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from opstream_api.errors import ApiError, not_found
from opstream_journal.runtime.request_head import PROBES
from opstream_schemas.errors import ErrorCode
from opstream_schemas.urls import ANY_HOST, is_loopback, parse_host_rule

from .cors import ANY_ORIGIN
from .responses import error_as_asgi
from .submit_request import mark_rejected

_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_WEB_SCHEMES: Final = frozenset({b"http", b"https"})
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_LAST_PORT: Final = 65_535
_MAX_KNOWN: Final = 256
"""Spellings of `Host` whose verdict is kept."""
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE: Final = frozenset({b"same-origin", b"none"})
"""Values of `Sec-Fetch-Site`; `none` is for what the user does, such as opening a bookmark."""
_REDIRECTED: Final = frozenset({b"/docs/", b"/console/"})
"""What people type. They redirect to the pages, whose links would not work there."""
_OWN_PATHS: Final = frozenset(
    {"status", "schedules", "docs", "console", "healthz", "readyz", "openapi.json", "asyncapi.json"}
)
_OWN_FOLDERS: Final = frozenset({("webhooks", "deliveries"), ("subscribers", "parked")})
"""First two segments of paths below which no action's is: an action has its name and a colon in the second one."""


class HostPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The names under which the service may be called."""

    names: frozenset[str] = frozenset()
    """In lower case, without ports; IPv6 addresses in their shortest form."""
    suffixes: tuple[str, ...] = ()
    """`.example.com` for all names below it."""
    is_any: bool = False

    @classmethod
    def of(cls, allowed: Sequence[str], *, bound_to: str, public_url: str) -> HostPolicy:
        """Return the policy of a service.

        Args:
            allowed: hosts as an operator writes them; empty for the default: any host, but on a loopback address only
                the names of this machine.
            bound_to: the host or address that the service listens on.
            public_url: its own URL, whose host is always allowed; empty for none.

        Raises:
            InvalidName: an allowed host is none.
        """
        rules = [parse_host_rule(text) for text in allowed]
        if ANY_HOST in rules or not (rules or is_loopback(bound_to)):
            return cls(is_any=True)
        own = [bound_to, urlsplit(public_url).hostname or ""]
        plain = [rule for rule in rules if not rule.startswith("*.")]
        return cls(
            names=frozenset(_shortest(name) for name in (*_LOCAL_HOSTS, *own, *plain) if name),
            suffixes=tuple(rule[1:] for rule in rules if rule.startswith("*.")),
        )

    def permits(self, host: str) -> bool:
        """Return True if a value of the header `Host` is allowed."""
        plain = _without_port(host.lower())
        if plain is None:
            return False
        name = _shortest(plain.removesuffix("."))
        return self.is_any or name in self.names or name.endswith(self.suffixes or ("\n",))


class RequestOriginMiddleware:
    """ASGI middleware: it refuses requests for other hosts, from other sites, and to paths in another spelling.

    Args:
        app: the wrapped app.
        hosts: the names under which the service may be called.
        origins: web pages of other sites that may send requests, too; `ANY_ORIGIN` for all.
        public_url: the service's own URL; empty for none.
    """

    def __init__(self, app: ASGIApp, *, hosts: HostPolicy, origins: Iterable[str], public_url: str) -> None:
        self._app = app
        self._hosts = hosts
        parts = urlsplit(public_url)
        own = {f"{parts.scheme}://{parts.netloc}".lower()} if public_url else set()
        self._origins = frozenset({*origins, *own})
        self._is_any_origin = ANY_ORIGIN in self._origins
        self._known_hosts: dict[bytes, bool] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] == ScopeType.HTTP:
            error = self._refusal(scope)
            if error is not None:
                if not is_own(scope["path"]):
                    mark_rejected(error, {name for name, _ in scope["headers"]})
                await error_as_asgi(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: HTTPScope) -> ApiError | None:
        hosts, sites, origins = [], [], []
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value)
            elif name == b"sec-fetch-site":
                sites.append(value)
            elif name == b"origin":
                origins.append(value)
        raw_path = scope["raw_path"]
        # Probes name the service by its address, whatever that is. Their answers are no secret, and change nothing.
        if raw_path not in PROBES:
            for host in hosts:
                if not self._permits(host):
                    return _unknown_host(host.decode("latin-1"))
        if scope["method"] not in _READS and not self._is_from_own_site(hosts, sites, origins):
            return _cross_site(origins[0].decode("latin-1") if origins else "")
        return None if _is_canonical(raw_path, scope["path"]) else not_found()

    def _permits(self, host: bytes) -> bool:
        known = self._known_hosts.get(host)
        if known is None:
            if len(self._known_hosts) >= _MAX_KNOWN:
                self._known_hosts.clear()
            known = self._known_hosts[host] = self._hosts.permits(host.decode("latin-1"))
        return known

    def _is_from_own_site(self, hosts: list[bytes], sites: list[bytes], origins: list[bytes]) -> bool:
        if not sites and not origins:
            return True  # no browser
        if origins and self._is_any_origin:
            return True
        if origins and all(origin.decode("latin-1").lower() in self._origins for origin in origins):
            return True
        if sites:
            return all(site in _OWN_SITE for site in sites)
        # A browser sends no `Sec-Fetch-Site` to a plain-HTTP service on another machine, and old ones never do.
        return all(_authority(origin.lower()) in {host.lower() for host in hosts} for origin in origins)


def _authority(origin: bytes) -> bytes:
    scheme, _, authority = origin.partition(b"://")
    return authority if scheme in _WEB_SCHEMES else b""


def _is_canonical(raw_path: bytes, path: str) -> bool:
    """Return True if a path of opstream's own is spelled as documented, so that a rule of a proxy for it holds.

    The framework would ignore empty segments and a slash at the end, and decode what is percent-encoded.
    """
    if b"%" not in raw_path and b"//" not in raw_path and not raw_path.endswith(b"/"):
        return True
    if raw_path in _REDIRECTED:
        return True
    return not is_own(path)


def is_own(path: str) -> bool:
    """Return True if a decoded path is, or is below, one of opstream's own, so no action's."""
    segments = [segment for segment in path.split("/") if segment]
    if not segments:
        return False
    return segments[0].partition(":")[0] in _OWN_PATHS or tuple(segments[:2]) in _OWN_FOLDERS


def _unknown_host(host: str) -> ApiError:
    return ApiError(
        ErrorCode.UNKNOWN_HOST,
        f"this service does not answer for the host {host[:100]!r}: its operator can allow it with --allowed-host "
        "or --public-url",
        target="Host",
    )


def _cross_site(origin: str) -> ApiError:
    return ApiError(
        ErrorCode.CROSS_SITE_REQUEST,
        f"a web page of another site ({origin[:100] or 'unnamed'}) may not do this: the service's operator can allow "
        "it with --cors-origin or --allowed-origin",
        target="Origin",
    )


def _without_port(host: str) -> str | None:
    """Return the host of a header `Host`; None if what follows it is no port. A colon alone stands for no port."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name if not rest or (rest[0] == ":" and _is_port(rest[1:])) else None
    name, _, port = host.partition(":")
    return name if _is_port(port) else None


def _is_port(text: str) -> bool:
    return not text or (_PORT.fullmatch(text) is not None and int(text) <= _LAST_PORT)


def _shortest(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()
