"""`opstream events`: prints the history of an operation."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import click

from opstream.cli.client_session import RESPONSE_TIMEOUT, client_session, json_line
from opstream.cli.options import client as client_options
from opstream.terminal.console import line_width, shown_json, supports_colour
from opstream.terminal.event_row import HEADING, event_row
from opstream.terminal.standard_streams import is_reader_gone
from opstream.terminal.wait_notice import wait_notice
from opstream_schemas.urls import hide_credentials


class EventsSettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """The options of `opstream events`."""

    operation_id: str
    url: str
    is_following: bool
    is_json: bool


@click.command
@client_options.operation_argument
@client_options.follow_option
@client_options.json_option
@client_options.url_option
@client_options.token_options
def events(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Print what happened to the operation ID, oldest first.

    A table on a terminal, otherwise one CloudEvent per line, as the journal holds it (without its line breaks). With
    --follow until the operation has ended; after an outage the output continues where it stopped.

    \b
    Example:
      opstream events 019abc12-3456-7890-abcd-ef0123456789 --follow
    """
    print_events(EventsSettings(**given))


def print_events(settings: EventsSettings) -> None:
    """Print the events of an operation: a table on a terminal, otherwise one CloudEvent per line.

    Raises:
        CommandError: as `client_session`.
        click.UsageError: the id is not valid.
    """
    is_table = sys.stdout.isatty() and not settings.is_json
    with client_session(settings.url, token=client_options.token_of(settings), operation_id=settings.operation_id) as (
        client,
        _,
    ):
        timeout = None if settings.is_following else RESPONSE_TIMEOUT
        events = client.events(settings.operation_id, follow=settings.is_following, timeout=timeout)
        with wait_notice(f"a response of {hide_credentials(settings.url)}", timeout):
            first = list(itertools.islice(events, 1))
        for index, event in enumerate(itertools.chain(first, events)):
            if is_reader_gone():
                return
            if not is_table:
                click.echo(shown_json(json_line(event.stored)))
                continue
            if not index:
                click.echo(HEADING)
            has_colour, width = supports_colour(sys.stdout), line_width(sys.stdout)
            row = event_row(event.position, event.time, event.name, event.data, has_colour=has_colour, width=width)
            click.echo(row, color=has_colour or None)
