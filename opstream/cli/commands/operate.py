"""The commands for operations. Part of `cli`. `run`, `status`, `cancel` and `events` talk to a running service
(`following` works); `fail` is the operator's and talks to the broker (`failing`).

As in `cli`, the client is loaded only when one of them runs.
"""

from __future__ import annotations

from typing import Any, Final

import click

from opstream.cli.options import client as options
from opstream.cli.options import common as service_options

_operation_argument: Final = click.argument("operation_id", metavar="ID")


@click.command(short_help="Submit an action and follow its operation.")
@click.argument("target", metavar="TARGET")
@options.input_option
@options.operation_id_option
@options.callback_option
@options.timeout_option
@options.detach_option
@options.url_option
def run(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Submit the action TARGET (book/42:upload-start or book:reindex) and follow its operation to the end.

    Progress goes to stderr: a bar on a terminal, otherwise one line for each change. The result goes to stdout as
    JSON. The exit status is 0 if the operation succeeded, 1 if it failed or could not be submitted, 3 if it was
    canceled, 124 if the timeout came first. Ctrl-C stops following, not the operation.

    \b
    Example:
      opstream run book/42:upload-start --input @upload.json | jq .transactionId
    """
    from .operation import Run, run

    run(Run(**given))


@click.command(short_help="Print the status of an operation.")
@_operation_argument
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
    from .operation import Look, status

    options.check_timeout(click.get_current_context(), is_waiting=given["is_waiting"])
    status(Look(**given))


@click.command(short_help="Ask an operation to stop.")
@_operation_argument
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
    from .operation import Cancel, cancel

    options.check_timeout(click.get_current_context(), is_waiting=given["is_waiting"])
    cancel(Cancel(**given))


@click.command(short_help="Print the history of an operation.")
@_operation_argument
@options.follow_option
@options.json_option
@options.url_option
def events(**given: Any) -> None:  # noqa: ANN401
    """Print what happened to the operation ID, oldest first.

    A table on a terminal, otherwise one CloudEvent per line, as the journal holds it (line breaks aside). With --follow
    until the operation has ended; a connection that breaks is resumed where it was.

    \b
    Example:
      opstream events 019abc12-3456-7890-abcd-ef0123456789 --follow
    """
    from .operation import Events, events

    events(Events(**given))


@click.command(short_help="End an operation as failed.")
@_operation_argument
@options.force_option
@options.reason_option
@service_options.nats_option
@service_options.connect_timeout_option
def fail(**given: Any) -> None:  # noqa: ANN401
    """End the operation ID: its status becomes Failed with the code FailedByOperator.

    For operators, on the broker itself, so also with no service running. Whatever still runs for it is told to stop (a
    plain handler in a thread has to look), and its outcome is refused. An operation whose events can't be understood
    (damaged, foreign, or of a newer version) needs --force: it keeps what can be read of it, the rest is passed over,
    and nothing is deleted. What has ended stays as it is.

    \b
    Example:
      opstream fail 019abc12-3456-7890-abcd-ef0123456789 --reason 'its data is lost'
    """
    from .fail import Fail, fail

    fail(Fail(**given))


COMMANDS: Final = (run, status, cancel, events)
"""Of clients; `fail` is for operators."""
