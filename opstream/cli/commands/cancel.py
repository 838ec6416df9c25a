"""`opstream cancel`: requests that an operation stops, or all that options select."""

from __future__ import annotations

from typing import Any

import click

from opstream.cli.client_session import client_session, first_response, print_json, wait_for_end
from opstream.cli.lists.bulk import BulkSettings, bulk_options, run_bulk, take_bulk
from opstream.cli.options import client as client_options
from opstream.terminal.console import CommandError
from opstream_schemas.operation.state import Status


class CancelSettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """The options of `opstream cancel`."""

    operation_id: str
    url: str
    reason: str
    is_waiting: bool
    timeout: float | None
    """Seconds to follow the operation; None for no limit."""
    bulk: BulkSettings | None = None
    """What selects operations; None for the one of the id."""


@click.command
@bulk_options
@client_options.reason_option
@client_options.wait_option
@client_options.timeout_option
@client_options.url_option
@client_options.token_options
def cancel(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Ask the operation ID to stop, and print its status monitor as JSON.

    An operation that has not started is canceled at once, a running one as soon as it has stopped: --wait waits for
    that, and the exit status is then 0 only if it was canceled. Canceling twice is fine. An operation that has
    succeeded or failed can't be canceled.

    With options that select operations in place of an ID, all of these are canceled that are open, by a bulk operation,
    whose status monitor is printed. That needs an index (docs/retry.md).

    \b
    Examples:
      opstream cancel 019abc12-3456-7890-abcd-ef0123456789 --reason 'wrong book' --wait
      opstream cancel --label team=press --status NotStarted --dry-run
    """
    client_options.check_timeout(click.get_current_context(), is_waiting=given["is_waiting"])
    cancel_operation(CancelSettings(bulk=take_bulk(given), **given))


def cancel_operation(settings: CancelSettings) -> None:
    """Request that an operation stops, or all that are selected, and print the status monitor.

    Raises:
        CommandError: as `client_session` and `follow_session`; also if the operation was waited for and was not
            canceled.
        click.UsageError: the id is not valid.
    """
    with client_session(settings.url, token=client_options.token_of(settings), operation_id=settings.operation_id) as (
        client,
        display,
    ):
        if settings.bulk is not None:
            run_bulk(
                client,
                display,
                "cancel",
                settings.bulk,
                url=settings.url,
                reason=settings.reason,
                is_waiting=settings.is_waiting,
                timeout=settings.timeout,
            )
            return
        with first_response(settings.url, settings.timeout) as seconds:
            operation = client.cancel(settings.operation_id, reason=settings.reason, timeout=seconds)
        if settings.is_waiting:
            operation = wait_for_end(client, display, operation, settings.url, settings.timeout)
        print_json(operation.monitor)
        if settings.is_waiting and operation.status is not Status.CANCELED:
            raise CommandError(f"operation {operation.id} ended as {operation.status} before it could be canceled")
