"""`opstream run`: submits an action and follows its operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import msgspec

from opstream.cli.client_session import RESPONSE_TIMEOUT, client_session, first_response, follow_session, print_json
from opstream.cli.files.transfer import upload_all
from opstream.cli.files.upload_option import NamedFile, upload_option
from opstream.cli.options import client as client_options
from opstream.terminal.console import printable


class RunSettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """The options of `opstream run`."""

    target: str
    url: str
    action_input: bytes
    """JSON."""
    operation_id: str | None
    callback: str = ""
    """Where the outcome is delivered; empty for nowhere."""
    start_at: str = ""
    """The time before which it does not begin (RFC 3339); empty for at once."""
    start_after: float | None = None
    """Seconds in place of it."""
    priority: str | None = None
    """None for that of the action."""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    uploads: tuple[NamedFile, ...] = ()
    """Files that are sent before the submit."""
    timeout: float | None
    """Seconds to follow the operation; None for no limit."""
    is_detached: bool


@click.command
@click.argument("target", metavar="TARGET")
@client_options.input_option
@client_options.operation_id_option
@client_options.callback_option
@client_options.start_at_option
@client_options.start_after_option
@client_options.priority_option
@client_options.label_option
@upload_option
@client_options.timeout_option
@client_options.detach_option
@client_options.url_option
@client_options.token_options
def run(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Submit the action TARGET (book/42:upload-start or book:reindex) and follow its operation to the end.

    Progress goes to stderr: a bar on a terminal, otherwise one line for each change. The result goes to stdout as
    JSON. The exit status is 0 if the operation succeeded, 1 if it failed or could not be submitted, 3 if it was
    canceled, 124 if the timeout came first. Ctrl-C stops following, not the operation.

    \b
    Example:
      opstream run book/42:upload-start --input @upload.json | jq .transactionId
      opstream run book:scan --upload scan.tif --upload cover=images/1.png
    """
    submit_and_follow(RunSettings(**given))


def _headers(settings: RunSettings) -> dict[str, str]:
    headers = {
        "Operation-Callback": settings.callback,
        "Operation-Start-At": settings.start_at,
        "Operation-Priority": settings.priority or "",
        "Operation-Start-After": "" if settings.start_after is None else f"{settings.start_after:.0f}",
    }
    return {name: value for name, value in headers.items() if value}


def submit_and_follow(settings: RunSettings) -> None:
    """Submit an action, follow its operation, and print its result.

    Raises:
        CommandError: as `client_session` and `follow_session`.
        click.UsageError: the target or the id is not valid, or there are two start times.
    """
    if settings.start_at and settings.start_after is not None:
        raise click.UsageError("--start-at and --start-after exclude each other: leave one of them out")
    from opstream.client import new_operation_id

    operation_id = settings.operation_id or new_operation_id()
    again = f"run it again with --operation-id {operation_id}"
    with client_session(
        settings.url, token=client_options.token_of(settings), hint=f"it may have been submitted: to find out, {again}"
    ) as (client, display):
        uploads = upload_all(client, settings.uploads, operation_id, RESPONSE_TIMEOUT)
        with first_response(settings.url, settings.timeout, advice=f"{again}, which is safe") as seconds:
            operation = client.submit(
                settings.target,
                msgspec.Raw(settings.action_input),
                operation_id=operation_id,
                headers=_headers(settings),
                labels=settings.labels,
                uploads=uploads,
                timeout=seconds,
            )
        if settings.is_detached:
            print_json(operation.monitor)
            return
        click.echo(f"operation {operation.id} of {printable(settings.target)}", err=True)
        with follow_session(operation.id, settings.url), display:
            display.show(operation.monitor)
            result = client.result(
                operation,
                msgspec.Raw,
                timeout=settings.timeout,
                on_change=lambda changed: display.show(changed.monitor),
            )
        print_json(result)
