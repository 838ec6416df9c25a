"""Options of the API about who may send requests (docs/access.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from opstream_schemas.operation.rate_limit import parse_rate
from opstream_schemas.urls import is_loopback

from .option import Decorator, F, option

KEYS: Final = "keys"
"""API keys, as a value of `--auth`."""
JWT: Final = "jwt"
"""Bearer tokens of an identity provider."""

_auth_option: Final[Decorator[Any]] = option(
    "--auth",
    variable="AUTH",
    multiple=True,
    type=click.Choice([KEYS, JWT]),
    help="What credentials each request needs: API keys, which 'opstream apikey add' makes, or bearer tokens of an "
    "identity provider (--jwt-issuer); either if it is repeated. Without it none.",
)
_keys_file_option: Final[Decorator[Any]] = option(
    "--auth-keys-file",
    variable="AUTH_KEYS_FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The file that has the API keys. It is read again when it changes. Without it they are kept by the broker.",
)
_insecure_option: Final[Decorator[Any]] = option(
    "--insecure",
    "is_insecure",
    variable="INSECURE",
    is_flag=True,
    help="Serve other machines without --auth: every client that reaches --host may submit, read and cancel "
    "everything. For a proxy in front that authenticates all requests.",
)


def _checked_rate(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """Return the text of a rate as it is; empty without one.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        return str(parse_rate(value)) if value is not None else ""
    except ValueError as error:
        message = f"{value!r} is not a rate: write a whole number for each s, m, h or d, as in 100/s"
        raise click.BadParameter(message, ctx, param) from error


_caller_requests_option: Final[Decorator[Any]] = option(
    "--caller-requests",
    variable="CALLER_REQUESTS",
    callback=_checked_rate,
    metavar="COUNT/UNIT",
    help="How many requests each caller may send: '100/s' or '3000/m', which are also how many it may send at once "
    "after a quiet time. It holds for all API processes together. Without it any number. It needs --auth.",
)


_caller_open_option: Final[Decorator[Any]] = option(
    "--caller-open-operations",
    variable="CALLER_OPEN_OPERATIONS",
    type=click.IntRange(0, 100_000),
    default=0,
    metavar="NUMBER",
    help="How many operations each caller may have open, over all API processes together; 0 for any number. It needs "
    "--auth.",
)


def access_options(command: F) -> F:
    """Add all options of this module."""
    for decorate in (_caller_open_option, _caller_requests_option, _insecure_option, _keys_file_option, _auth_option):
        command = decorate(command)
    return command


def check_access(given: Mapping[str, Any]) -> None:
    """Check the options of this module and `--host`: what is not safe must be asked for by name.

    Raises:
        click.UsageError: they contradict each other, or other machines could do everything.
    """
    if given["auth_keys_file"] is not None and KEYS not in given["auth"]:
        raise click.UsageError("--auth-keys-file is of no use without --auth keys: add it, or leave the file out")
    if given["caller_requests"] and not given["auth"]:
        raise click.UsageError(
            "--caller-requests needs --auth, which tells one caller from another: add --auth keys, or leave it out"
        )
    if given["caller_open_operations"] and not given["auth"]:
        raise click.UsageError(
            "--caller-open-operations needs --auth, which tells one caller from another: add --auth keys, or leave it "
            "out"
        )
    if given["is_insecure"] and given["auth"]:
        raise click.UsageError("--insecure is for a service without --auth: leave one of them out")
    if not (given["auth"] or given["is_insecure"] or is_loopback(given["host"])):
        raise click.UsageError(
            f"--host {given['host']} serves other machines, and each could submit, read and cancel everything: add "
            "--auth keys ('opstream apikey add' makes a key), or --insecure if a proxy in front authenticates all "
            "requests"
        )
