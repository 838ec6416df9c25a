"""Options of the API about what is in front of it: proxies that identify the caller (ADR 0023), hosts and web sites."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

import click

from opstream_schemas.urls import parse_host_rule, parse_origin

from .option import Decorator, F, checked_list, option, split_list

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HEADER_PATTERN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_ANY_ORIGIN: Final = "*"
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_MAPPED_PREFIX: Final = 96


def check_headers_trusted(trusted_proxies: tuple[Network, ...], **headers: str) -> None:
    """Check that headers about the caller are only read from trusted proxies.

    Raises:
        click.UsageError: a header is named, but no trusted proxy.
    """
    named = [f"--{name.replace('_', '-')}" for name, header in headers.items() if header]
    if named and not trusted_proxies:
        raise click.UsageError(
            f"{' and '.join(named)}: any client could send that header, so say which proxies to trust, "
            "e.g. --trusted-proxy 10.0.0.0/8"
        )


def _parse_networks(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(_parse_network(ctx, param, text) for text in split_list(ctx, param, value))


def _parse_network(ctx: click.Context, param: click.Parameter, text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        hint = "write an IP address, or a network such as 10.0.0.0/8 or 2001:db8::/32"
        raise click.BadParameter(f"{error}: {hint}", ctx, param) from error
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        inner = network.network_address.ipv4_mapped
        return ipaddress.IPv4Network(f"{inner}/{network.prefixlen - _MAPPED_PREFIX}")
    return network


def _check_header(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value and _HEADER_PATTERN.fullmatch(value) is None:
        raise click.BadParameter(f"{value!r} is not the name of a header: write e.g. X-Forwarded-User", ctx, param)
    return value


def _parse_cors_origin(text: str) -> str:
    return text if text == _ANY_ORIGIN else parse_origin(text)


def check_cors_origins(cors_origins: tuple[str, ...], *, identity_header: str, is_authenticated: bool) -> None:
    """Check that any web page may call only a service whose credentials no browser sends by itself.

    Raises:
        click.UsageError: a page could act for the user whose browser shows it, or for anyone on this machine.
    """
    if _ANY_ORIGIN not in cors_origins:
        return
    why = "a proxy that logs users in lets each page act for them (--identity-header)" if identity_header else ""
    if not is_authenticated:
        why = "without credentials each page that a browser in this network shows could submit and read"
    if why:
        raise click.UsageError(f"--cors-origin '*': {why}. Name the sites, e.g. --cors-origin https://app.example.com")


_trusted_proxy_option: Final[Decorator[Any]] = option(
    "--trusted-proxy",
    "trusted_proxies",
    variable="TRUSTED_PROXY",
    multiple=True,
    metavar="IP|CIDR",
    callback=_parse_networks,
    help="A proxy, or a network of proxies, that is trusted to name the caller and its address (X-Forwarded-For), e.g. "
    "--trusted-proxy 10.0.0.0/8 --trusted-proxy ::1. Without it none.",
)
_identity_header_option: Final[Decorator[Any]] = option(
    "--identity-header",
    variable="IDENTITY_HEADER",
    default="",
    metavar="NAME",
    callback=_check_header,
    help="The header in which trusted proxies name the caller that they have authenticated, e.g. X-Forwarded-User. It "
    "is recorded, and the same Operation-Id of another caller is another request. From others the header is ignored.",
)
_client_id_header_option: Final[Decorator[Any]] = option(
    "--client-id-header",
    variable="CLIENT_ID_HEADER",
    default="",
    metavar="NAME",
    callback=_check_header,
    help="The header in which trusted proxies name the caller's application, e.g. X-Client-Id. It is recorded.",
)


allowed_host_option: Final[Decorator[Any]] = option(
    "--allowed-host",
    "allowed_hosts",
    variable="ALLOWED_HOSTS",
    multiple=True,
    metavar="HOST",
    callback=checked_list(parse_host_rule),
    help="A host that requests may name, e.g. --allowed-host api.example.com --allowed-host '*.internal'; '*' for any. "
    "The names of this machine and the host of --public-url are always allowed. Without it, these alone on a loopback "
    "address, and any host elsewhere.",
)
allowed_origin_option: Final[Decorator[Any]] = option(
    "--allowed-origin",
    "allowed_origins",
    variable="ALLOWED_ORIGINS",
    multiple=True,
    metavar="ORIGIN",
    callback=checked_list(parse_origin),
    help="Another web site whose pages may submit and cancel, e.g. --allowed-origin https://app.example.com, where a "
    "proxy in front answers the CORS requests of browsers (otherwise write --cors-origin). Without it none but the "
    "service's own.",
)
cors_origin_option: Final[Decorator[Any]] = option(
    "--cors-origin",
    "cors_origins",
    variable="CORS_ORIGINS",
    multiple=True,
    metavar="ORIGIN",
    callback=checked_list(_parse_cors_origin),
    help="A web site whose pages may use the service and read its answers (CORS), e.g. --cors-origin "
    "https://app.example.com; '*' for any, if all callers need credentials. It needs no --allowed-origin. Without it "
    "none.",
)


def proxy_options(command: F) -> F:
    """Add all options of this module."""
    for decorate in (
        _client_id_header_option,
        _identity_header_option,
        _trusted_proxy_option,
        cors_origin_option,
        allowed_origin_option,
        allowed_host_option,
    ):
        command = decorate(command)
    return command
