"""`opstream download`: writes a file of an operation to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from opstream.cli.client_session import RESPONSE_TIMEOUT, client_session
from opstream.cli.files.transfer import download_to
from opstream.cli.options import client as client_options
from opstream.cli.options.option import PathType, option
from opstream.terminal.console import printable
from opstream_schemas.errors import InvalidName
from opstream_schemas.event_types.claims import check_file_name
from opstream_schemas.names import check_operation_id


class DownloadSettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """The options of `opstream download`."""

    operation_id: str
    name: str
    out: str
    url: str


def _check_place(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not Path(value).parent.is_dir():
        raise click.BadParameter(f"{value!r} is in no folder: write a path in one that is there", ctx, param)
    return value


@click.command
@client_options.operation_argument
@click.argument("name", metavar="NAME")
@option(
    "--out",
    "-o",
    variable="OUT",
    type=PathType(),
    default=".",
    metavar="PATH",
    callback=_check_place,
    help="The file to write, or a folder for it. A file that is there is replaced, once the new one is whole.",
)
@client_options.url_option
@client_options.token_options
def download(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Download the file NAME of the operation ID, which its action has attached or its client uploaded.

    The path goes to stdout, progress to stderr. A download that breaks off is resumed, and the bytes are compared with
    their hash. Which files there are is in 'opstream status ID' (docs/payloads.md).

    \b
    Example:
      opstream download 019abc12-3456-7890-abcd-ef0123456789 proof.pdf -o out/
    """
    download_file(DownloadSettings(**given))


def download_file(settings: DownloadSettings) -> None:
    """Download a file, and print its path.

    Raises:
        CommandError: as `client_session`; there is no such file, or it can't be written.
        click.UsageError: the id or the name is not valid.
    """
    try:
        check_operation_id(settings.operation_id)
        check_file_name(settings.name)
    except InvalidName as error:
        raise click.UsageError(str(error)) from error
    token = client_options.token_of(settings)
    with client_session(settings.url, token=token, operation_id=settings.operation_id) as (client, _):
        path = download_to(client, settings.operation_id, settings.name, Path(settings.out), RESPONSE_TIMEOUT)
    click.echo(printable(str(path)))
