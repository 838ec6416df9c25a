"""`opstream status`: prints the status monitor of an operation."""

from __future__ import annotations

from typing import Any

import click

from opstream.cli.client_session import client_session, first_response, print_json, wait_for_end
from opstream.cli.options import client as client_options
from opstream_schemas.operation.state import Status


class StatusSettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """The options of `opstream status`."""

    operation_id: str
    url: str
    is_waiting: bool
    timeout: float | None
    """Seconds to follow the operation; None for no limit."""


@click.command
@client_options.operation_argument
@client_options.wait_option
@client_options.timeout_option
@client_options.url_option
@client_options.token_options
def status(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Print the status monitor of the operation ID as JSON.

    The exit status is 0 whatever the monitor says. With --wait it is printed once the operation has ended, and the
    exit status is that of 'opstream run'.

    \b
    Example:
      opstream status 019abc12-3456-7890-abcd-ef0123456789 --wait | jq .result
    """
    client_options.check_timeout(click.get_current_context(), is_waiting=given["is_waiting"])
    print_status(StatusSettings(**given))


def print_status(settings: StatusSettings) -> None:
    """Print the status monitor of an operation, now or when it has ended.

    Raises:
        CommandError: as `client_session` and `follow_session`; also if the operation was waited for and failed or was
            canceled.
        click.UsageError: the id is not valid.
    """
    from opstream.client import OperationCanceled, OperationFailed

    with client_session(settings.url, token=client_options.token_of(settings), operation_id=settings.operation_id) as (
        client,
        display,
    ):
        with first_response(settings.url, settings.timeout) as seconds:
            operation = client.status(settings.operation_id, timeout=seconds)
        if not settings.is_waiting:
            print_json(operation.monitor)
            return
        ended = wait_for_end(client, display, operation, settings.url, settings.timeout)
        print_json(ended.monitor)
        if ended.status is Status.FAILED:
            raise OperationFailed(ended)
        if ended.status is Status.CANCELED:
            raise OperationCanceled(ended, "")
