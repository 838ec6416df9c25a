"""`opstream signal`: sends a signal to an operation."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from opstream.cli.client_session import client_session, first_response
from opstream.cli.options import client as client_options
from opstream.cli.options.option import option
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import check_signal_name


class SignalSettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """The options of `opstream signal`."""

    operation_id: str
    name: str
    payload: bytes
    """JSON."""
    request_id: str | None
    url: str


@click.command
@client_options.operation_argument
@click.argument("name", metavar="NAME")
@option(
    "--input",
    "payload",
    variable="INPUT",
    type=client_options.JsonType(),
    default="{}",
    metavar="JSON|@FILE|-",
    help="What is sent: JSON as text, @FILE for a file, - for standard input.",
)
@option(
    "--request-id",
    variable="REQUEST_ID",
    metavar="ID",
    help="Your own id for the signal: the same command with the same id sends it once. Without it a new one.",
)
@client_options.url_option
@client_options.token_options
def signal(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Send the signal NAME to the operation ID, and print what became of it.

    "Delivered": the operation waits for it. "Kept": it does not wait for it yet; whether it fits is seen when it does.
    What it waits for is in its status (docs/signals.md).

    \b
    Example:
      opstream signal 019abc12-3456-7890-abcd-ef0123456789 approval --input '{"approved": true}'
    """
    send_signal(SignalSettings(**given))


def send_signal(settings: SignalSettings) -> None:
    """Send a signal, and print what became of it.

    Raises:
        CommandError: as `client_session`; the service refuses it.
        click.UsageError: the id or the name is not valid.
    """
    try:
        check_signal_name(settings.name)
    except InvalidName as error:
        raise click.UsageError(str(error)) from error
    token = client_options.token_of(settings)
    with (
        client_session(settings.url, token=token, operation_id=settings.operation_id) as (client, _),
        first_response(settings.url) as seconds,
    ):
        state = client.signal(
            settings.operation_id,
            settings.name,
            msgspec.Raw(settings.payload),
            request_id=settings.request_id,
            timeout=seconds,
        )
    click.echo(state)
