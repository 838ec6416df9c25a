"""Callbacks of options that take addresses: of brokers, of the service, of this machine.

Each returns the value, and raises `click.BadParameter` if it is not such an address.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

import click
from click.core import ParameterSource

from opstream_schemas.urls import (
    PASSWORD_VARIABLE,
    TOKEN_VARIABLE,
    USER_VARIABLE,
    advise_base_url,
    hide_credentials,
)

from .option import split_list

_TCP_SCHEMES: Final = frozenset({"nats", "tls"})
_WEBSOCKET_SCHEMES: Final = frozenset({"ws", "wss"})
_HOST_PATTERN: Final = re.compile(r"[0-9A-Za-z._:%-]+")


def check_servers(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Accept URLs of brokers, or HOST:PORT."""
    servers = split_list(ctx, param, value)
    given = [server for server in servers if "@" in server]
    if given and ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE:
        click.echo(
            f"opstream: warning: {hide_credentials(given[0])}: every user of this machine can read credentials in "
            f"options: set {USER_VARIABLE} and {PASSWORD_VARIABLE}, or {TOKEN_VARIABLE}, or give --nats-creds or "
            "--nats-nkey",
            err=True,
        )
    schemes = set()
    for server in servers:
        parts = _split_url(server if "://" in server else f"nats://{server}")
        if parts is None or parts.scheme not in _TCP_SCHEMES | _WEBSOCKET_SCHEMES:
            shown = hide_credentials(server)
            raise click.BadParameter(f"{shown!r} is not a broker's URL: write nats://HOST:PORT", ctx, param)
        schemes.add(parts.scheme)
    if schemes & _TCP_SCHEMES and schemes & _WEBSOCKET_SCHEMES:
        raise click.BadParameter("some are WebSockets and some are not: write nats:// or ws:// for all", ctx, param)
    return servers


def check_base_url(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Accept a base URL, and return it without a slash at its end."""
    if value is None:
        return None
    parts = _split_url(value)
    if parts is None or parts.scheme not in {"http", "https"} or parts.query or parts.fragment:
        shown = hide_credentials(value)
        raise click.BadParameter(f"{shown!r} is not a base URL: {advise_base_url(value)}", ctx, param)
    return value.rstrip("/")


def check_host(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Accept a host name or an IP address. It is not checked here that this machine has it."""
    try:
        is_host = _HOST_PATTERN.fullmatch(value) is not None and bool(value.encode("idna"))
    except UnicodeError:
        is_host = False
    if not is_host:
        raise click.BadParameter(f"{value!r} is not a host: write 127.0.0.1, 0.0.0.0, ::1 or a name", ctx, param)
    return value


def _split_url(url: str) -> SplitResult | None:
    """The parts of a URL; None if it has no host, or its port is not valid."""
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if is_whole and url.isprintable() and " " not in url else None
