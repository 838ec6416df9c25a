"""Options of a login at the broker, and of TLS. The value of all of them is one `BrokerCredentials`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from opstream.terminal.console import printable
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
nkeys_option: Final = option(
    "--nats-nkeys",
    "nkeys",
    variable="NATS_NKEYS",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="A folder with the key of each service of this process at the broker, instead of --nats-nkey: api.nk, "
    "projector.nk and webhooks.nk, as 'opstream broker-config' writes them.",
)


def credentials_of_roles(
    credentials: BrokerCredentials, nkeys: Path | None, roles: Sequence[str]
) -> dict[str, BrokerCredentials]:
    """Return the credentials of each role: those given, with the key of the role from a folder if there is one.

    Raises:
        click.UsageError: a key is missing in the folder, or there is another login besides.
    """
    if nkeys is None:
        return dict.fromkeys(roles, credentials)
    if credentials.has_login:
        raise click.UsageError(
            "--nats-nkeys has the login of each service: leave out --nats-creds, --nats-nkey and the variables of "
            "another one"
        )
    files = {role: nkeys / f"{role}.nk" for role in roles}
    if missing := [path.name for path in files.values() if not path.is_file()]:
        raise click.UsageError(
            f"--nats-nkeys: {printable(str(nkeys))} has no {', '.join(missing)}: copy what is missing there from the "
            "folder keys of 'opstream broker-config'"
        )
    return {role: msgspec.structs.replace(credentials, nkey=str(path)) for role, path in files.items()}


def login_options(command: F) -> F:
    """`--nats-creds`, `--nats-nkey`, `--nats-tls-ca`, `--nats-tls-cert` and `--nats-tls-key`, as `credentials`."""
    options = (_credentials_option, _nkey_option, _tls_ca_option, _tls_cert_option, _tls_key_option)
    for one in reversed(options):
        command = one(command)
    return command
