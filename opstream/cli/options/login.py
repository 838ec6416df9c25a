"""Options of a login at the broker, and of TLS. The value of all of them is one `BrokerCredentials`."""

from __future__ import annotations

import os
from typing import Any, Final

import click

from opstream_schemas.errors import InvalidName
from opstream_schemas.urls import FILE_VARIABLE, BrokerCredentials

from .option import F, option

_META: Final = "opstream.login"
_FILE: Final[dict[str, Any]] = {"type": click.Path(exists=True, dir_okay=False), "metavar": "FILE"}


def _keep(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Keep the value of an option for `_read_credentials`, by the name of its variable."""
    ctx.meta.setdefault(_META, {})[param.envvar] = value or ""


def _read_credentials(ctx: click.Context, param: click.Parameter, value: str | None) -> BrokerCredentials:
    given = ctx.meta.get(_META, {})
    try:
        return BrokerCredentials.from_variables({**os.environ, **given, FILE_VARIABLE: value or ""})
    except InvalidName as error:
        raise click.BadParameter(str(error), ctx, param) from error


_credentials_option: Final = option(
    "--nats-creds",
    "credentials",
    variable="NATS_CREDS",
    **_FILE,
    callback=_read_credentials,
    help="The credentials of this process at the broker, a .creds file of NATS. Or set OPSTREAM_NATS_USER and "
    "OPSTREAM_NATS_PASSWORD, or OPSTREAM_NATS_TOKEN: they are no options, since 'ps' shows those.",
)
# Eager: what they keep is there before the credentials are put together.
_KEPT: Final[dict[str, Any]] = {**_FILE, "expose_value": False, "is_eager": True, "callback": _keep}
_nkey_option: Final = option(
    "--nats-nkey",
    variable="NATS_NKEY",
    **_KEPT,
    help="The key of this process at the broker, instead of --nats-creds: a file with the seed of a user, as 'opstream "
    "broker-config' writes one for each role.",
)
_tls_ca_option: Final = option(
    "--nats-tls-ca",
    variable="NATS_TLS_CA",
    **_KEPT,
    help="The certificates (PEM) of those who may sign the broker's, instead of this machine's own list. With it, a "
    "broker that does not speak TLS is refused.",
)
_tls_cert_option: Final = option(
    "--nats-tls-cert",
    variable="NATS_TLS_CERT",
    **_KEPT,
    help="The certificate (PEM) that this process shows to the broker, with --nats-tls-key.",
)
_tls_key_option: Final = option(
    "--nats-tls-key",
    variable="NATS_TLS_KEY",
    **_KEPT,
    help="The private key (PEM, without a password) of --nats-tls-cert.",
)


def login_options(command: F) -> F:
    """`--nats-creds`, `--nats-nkey`, `--nats-tls-ca`, `--nats-tls-cert` and `--nats-tls-key`, as `credentials`."""
    options = (_credentials_option, _nkey_option, _tls_ca_option, _tls_cert_option, _tls_key_option)
    for one in reversed(options):
        command = one(command)
    return command
