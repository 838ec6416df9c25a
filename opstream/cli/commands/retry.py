"""`opstream retry`: does an operation again, or all that options select."""

from __future__ import annotations

import re
from typing import Any

import click
import msgspec

from opstream.cli.client_session import client_session, first_response, print_json, wait_for_end
from opstream.cli.lists.bulk import BulkSettings, bulk_options, run_bulk, take_bulk
from opstream.cli.options import client as client_options
from opstream_schemas.operation.state import Status


class RetrySettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """The options of `opstream retry`."""

    operation_id: str
    url: str
    is_waiting: bool
    timeout: float | None
    """Seconds to follow the follow-up; None for no limit."""
    bulk: BulkSettings | None = None
    """What selects operations; None for the one of the id."""


@click.command
@bulk_options
@client_options.wait_option
@client_options.timeout_option
@client_options.url_option
@client_options.token_options
def retry(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Do the operation ID again, which failed or was canceled, and print the status monitor of its follow-up as JSON.

    The follow-up is a new operation with the same input. Each operation has one: retrying twice is fine, and prints the
    same. A follow-up that failed can be retried, too. With --wait the exit status is that of 'opstream run'.

    With options that select operations in place of an ID, all of these are done again that failed, by a bulk operation,
    whose status monitor is printed. What was canceled is left alone unless --status Canceled or the filter's own status
    asks for it. That needs an index (docs/retry.md).

    \b
    Examples:
      opstream retry 019abc12-3456-7890-abcd-ef0123456789 --wait
      opstream retry --action book:upload-start --since 1d --code 503 --dry-run
    """
    client_options.check_timeout(click.get_current_context(), is_waiting=given["is_waiting"])
    bulk = take_bulk(given)
    retry_operation(RetrySettings(bulk=None if bulk is None else _failed_unless_asked(bulk), **given))


def _failed_unless_asked(bulk: BulkSettings) -> BulkSettings:
    """Select what failed: a client or an operator meant what was canceled, and asks here for what went wrong."""
    selection = bulk.selection
    if selection.statuses or re.search(r"\bstatus\b", selection.condition):
        return bulk
    return msgspec.structs.replace(bulk, selection=msgspec.structs.replace(selection, statuses=(str(Status.FAILED),)))


def retry_operation(settings: RetrySettings) -> None:
    """Do an operation again, or all that are selected, and print the status monitor, now or when it has ended.

    Raises:
        CommandError: as `client_session` and `follow_session`; also if the follow-up was waited for and failed or was
            canceled.
        click.UsageError: the id is not valid.
    """
    from opstream.client import OperationCanceled, OperationFailed

    with client_session(settings.url, token=client_options.token_of(settings), operation_id=settings.operation_id) as (
        client,
        display,
    ):
        if settings.bulk is not None:
            run_bulk(
                client,
                display,
                "retry",
                settings.bulk,
                url=settings.url,
                reason="",
                is_waiting=settings.is_waiting,
                timeout=settings.timeout,
            )
            return
        with first_response(settings.url, settings.timeout) as seconds:
            operation = client.retry(settings.operation_id, timeout=seconds)
        if settings.is_waiting:
            operation = wait_for_end(client, display, operation, settings.url, settings.timeout)
        print_json(operation.monitor)
        if settings.is_waiting and operation.status is Status.FAILED:
            raise OperationFailed(operation)
        if settings.is_waiting and operation.status is Status.CANCELED:
            raise OperationCanceled(operation, "")
