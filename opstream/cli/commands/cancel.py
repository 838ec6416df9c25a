"""`opstream cancel`: asks an operation to stop."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from opstream.cli.client_session import RESPONSE_TIMEOUT, print_json, session, wait
from opstream.cli.options import client as options
from opstream.terminal.console import CommandError
from opstream_schemas.operation.state import Status


class CancelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream cancel`."""

    operation_id: str
    url: str
    reason: str
    is_waiting: bool
    timeout: float | None
    """As in `Run`."""


@click.command(short_help="Ask an operation to stop.")
@options.operation_argument
@options.reason_option
@options.wait_option
@options.timeout_option
@options.url_option
def cancel(**given: Any) -> None:  # noqa: ANN401
    """Ask the operation ID to stop, and print its status monitor as JSON.

    What has not started is canceled at once, what runs once it has stopped: --wait waits for that, and the exit
    status is then 0 only if it was canceled. Canceling twice is fine; what has succeeded or failed is refused.

    \b
    Example:
      opstream cancel 019abc12-3456-7890-abcd-ef0123456789 --reason 'wrong book' --wait
    """
    options.check_timeout(click.get_current_context(), is_waiting=given["is_waiting"])
    cancel_operation(CancelSettings(**given))


def cancel_operation(settings: CancelSettings) -> None:
    """Ask an operation to stop, and print its status monitor.

    Raises:
        Failure, click.UsageError: as `run`; also if it was waited for and ended otherwise.
    """
    with session(settings.url) as (client, display):
        operation = client.cancel(settings.operation_id, reason=settings.reason, timeout=RESPONSE_TIMEOUT)
        if settings.is_waiting:
            operation = wait(client, display, operation, settings.url, settings.timeout)
        print_json(operation.monitor)
        if settings.is_waiting and operation.status is not Status.CANCELED:
            raise CommandError(f"operation {operation.id} ended as {operation.status} before it could be canceled")
