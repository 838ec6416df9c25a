"""`opstream events`: prints the history of an operation."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from opstream.cli.client_session import RESPONSE_TIMEOUT, one_line, session
from opstream.cli.options import client as options
from opstream.terminal.console import line_width, supports_colour
from opstream.terminal.event_row import HEADING, event_row


class EventsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream events`."""

    operation_id: str
    url: str
    is_following: bool
    is_json: bool


@click.command(short_help="Print the history of an operation.")
@options.operation_argument
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
    print_events(EventsSettings(**given))


def print_events(settings: EventsSettings) -> None:
    """Print the events of an operation: a table on a terminal, otherwise one CloudEvent per line.

    Raises:
        Failure, click.UsageError: as `run`.
    """
    is_table = sys.stdout.isatty() and not settings.is_json
    with session(settings.url) as (client, _):
        patience = None if settings.is_following else RESPONSE_TIMEOUT
        found = client.events(settings.operation_id, follow=settings.is_following, timeout=patience)
        for number, event in enumerate(found):
            if not is_table:
                click.echo(one_line(event.stored))
                continue
            if not number:
                click.echo(HEADING)
            is_on = supports_colour(sys.stdout)
            line = event_row(
                event.position, event.time, event.name, event.data, is_on=is_on, room=line_width(sys.stdout)
            )
            click.echo(line, color=is_on or None)
