"""`opstream status`: prints the status monitor of an operation."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from opstream.cli.client_session import RESPONSE_TIMEOUT, print_json, session, wait
from opstream.cli.options import client as options
from opstream.client import (
    OperationCanceled,
    OperationFailed,
)
from opstream_schemas.operation.state import Status


class StatusSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream status`."""

    operation_id: str
    url: str
    is_waiting: bool
    timeout: float | None
    """As in `Run`."""


@click.command(short_help="Print the status of an operation.")
@options.operation_argument
@options.wait_option
@options.timeout_option
@options.url_option
def status(**given: Any) -> None:  # noqa: ANN401
    """Print the status monitor of the operation ID as JSON.

    The exit status is 0 whatever the monitor says. With --wait it is printed once the operation has ended, and the
    exit status is that of 'opstream run'.

    \b
    Example:
      opstream status 019abc12-3456-7890-abcd-ef0123456789 --wait | jq .result
    """
    options.check_timeout(click.get_current_context(), is_waiting=given["is_waiting"])
    print_status(StatusSettings(**given))


def print_status(settings: StatusSettings) -> None:
    """Print the status monitor of an operation, now or once it has ended; then its end decides the exit status.

    Raises:
        Failure, click.UsageError: as `run`.
    """
    with session(settings.url) as (client, display):
        operation = client.status(settings.operation_id, timeout=RESPONSE_TIMEOUT)
        if not settings.is_waiting:
            print_json(operation.monitor)
            return
        ended = wait(client, display, operation, settings.url, settings.timeout)
        print_json(ended.monitor)
        if ended.status is Status.FAILED:
            raise OperationFailed(ended)
        if ended.status is Status.CANCELED:
            raise OperationCanceled(ended, "")
