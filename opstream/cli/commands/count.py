"""`opstream count`: counts operations."""

from __future__ import annotations

from typing import Any, Final

import click

from opstream.cli.client_session import client_session
from opstream.cli.commands.list import items
from opstream.cli.lists.selection import Selection, selection_options, take_selection
from opstream.cli.options import client as client_options

_ALL: Final = 1_000_000_000


class CountSettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """The options of `opstream count`."""

    selection: Selection
    url: str


@click.command
@selection_options
@client_options.url_option
@client_options.token_options
def count(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Count operations: those that all of the options select.

    It reads their ids page by page, so a million takes a minute: name a time. The service needs an index
    (docs/list.md).

    \b
    Example:
      opstream count --status Failed --since 1d
    """
    print_count(CountSettings(selection=take_selection(given), **given))


def print_count(settings: CountSettings) -> None:
    """Print the number of the selected operations.

    Raises:
        CommandError: as `client_session` and `first_response`.
    """
    with client_session(settings.url, token=client_options.token_of(settings)) as (client, _):
        click.echo(sum(1 for _ in items(client, settings.url, settings.selection, _ALL, select="id")))
