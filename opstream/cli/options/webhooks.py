"""Options about webhooks, and the settings that they make."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from opstream_schemas.errors import InvalidName
from opstream_schemas.names import check_name, check_operation_id
from opstream_schemas.urls import HostRule

from .option import Decorator, checked, option, split_list

if TYPE_CHECKING:
    from opstream_api.http.callback_header import CallbackPolicy
    from opstream_webhooks.config import ConfigSource


def _check_hosts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    hosts = split_list(ctx, param, value)
    for host in hosts:
        try:
            HostRule.parse(host)
        except InvalidName as error:
            raise click.BadParameter(str(error), ctx, param) from error
    return hosts


def _parse_networks(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Any, ...]:
    found = []
    for text in split_list(ctx, param, value):
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise click.BadParameter(
                f"{text!r} is not a network: write 10.1.0.0/16, 127.0.0.1/32 or fd00::/8 ({error})", ctx, param
            ) from error
    return tuple(found)


config_option: Final[Decorator[Any]] = option(
    "--webhooks-config",
    "--config",
    "webhooks_config",
    variable="WEBHOOKS_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A TOML file of endpoints to which outcomes are delivered, e.g. --webhooks-config hooks.toml; "
    "docs/webhooks.md describes it.",
)
callback_host_option: Final[Decorator[Any]] = option(
    "--callback-host",
    "callback_hosts",
    variable="CALLBACK_HOSTS",
    multiple=True,
    metavar="HOST",
    callback=_check_hosts,
    help="A host that requests may name in Operation-Callback; repeat it, e.g. --callback-host hooks.example.org "
    "--callback-host '*.example.net'. Only the scheme's default port unless a port is given. "
    "Without it every callback is refused.",
)
callback_secret_option: Final[Decorator[Any]] = option(
    "--callback-secret",
    "callback_secrets",
    variable="CALLBACK_SECRETS",
    multiple=True,
    metavar="SECRET",
    callback=split_list,
    help="The secret that signs deliveries to --callback-host: whsec_…, file:PATH or env:NAME. Set the variable rather "
    "than the option if it is the secret itself. All of several secrets sign, so that receivers can change theirs.",
)
allow_private_option: Final[Decorator[Any]] = option(
    "--allow-private",
    "networks",
    variable="ALLOW_PRIVATE",
    multiple=True,
    metavar="CIDR",
    callback=_parse_networks,
    help="A network outside of the public internet to which deliveries may be made; repeat it, e.g. --allow-private "
    "10.1.0.0/16.",
)
allow_http_option: Final[Decorator[Any]] = option(
    "--allow-http",
    "is_http_allowed",
    variable="ALLOW_HTTP",
    is_flag=True,
    help="Deliver to http:// URLs as well. For development: everyone on the network path can read the outcomes.",
)


ids_argument: Final[Decorator[Any]] = click.argument(
    "operation_ids", metavar="[ID]...", nargs=-1, callback=checked(lambda ids: tuple(map(check_operation_id, ids)))
)
id_argument: Final[Decorator[Any]] = click.argument(
    "operation_id",
    metavar="[ID]",
    required=False,
    callback=checked(lambda text: text if text is None else check_operation_id(text)),
)
endpoint_option: Final[Decorator[Any]] = option(
    "--endpoint",
    variable="ENDPOINT",
    metavar="NAME",
    callback=checked(lambda name: name and check_name(name, "endpoint")),
    help="Only deliveries to this endpoint, e.g. --endpoint billing; 'callback' for the callbacks of requests.",
)


def callback_policy(given: dict[str, Any]) -> CallbackPolicy:
    """The callbacks that the API accepts. The options are removed from `given`."""
    from opstream_api.http.callback_header import CallbackPolicy

    return CallbackPolicy.parse(given.pop("callback_hosts"), is_http_allowed=given.pop("is_http_allowed"))


def config_source(given: Mapping[str, Any]) -> ConfigSource:
    """The endpoints and secrets of the service."""
    from opstream_webhooks.config import ConfigSource

    return ConfigSource(
        path=given["webhooks_config"],
        callback_hosts=given["callback_hosts"],
        callback_secrets=given["callback_secrets"],
        is_http_allowed=given["is_http_allowed"],
    )


def check_config(given: Mapping[str, Any]) -> None:
    """Check endpoints and secrets before anything starts.

    Raises:
        click.UsageError: they can't be used.
    """
    from opstream_webhooks.config import InvalidConfig

    try:
        config_source(given).load()
    except InvalidConfig as error:
        raise click.UsageError(str(error)) from error
