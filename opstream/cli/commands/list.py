"""`opstream list`: lists operations, newest first."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import click
import msgspec

from opstream.cli.client_session import RESPONSE_TIMEOUT, client_session, first_response
from opstream.cli.lists.selection import Selection, filter_of, order_of, selection_options, take_selection
from opstream.cli.options import client as client_options
from opstream.cli.options.option import option
from opstream.terminal.console import line_width, shown_json, supports_colour
from opstream.terminal.list_row import HEADING, ListedOperation, list_row

if TYPE_CHECKING:
    from opstream.client import OperationPage, OperationsClient

_WATCH_SECONDS: Final = 2.0
"""Between two looks of `--watch`."""
_CLEAR: Final = "\x1b[H\x1b[2J"
_PAGE: Final = 1_000
_decode: Final = msgspec.json.Decoder(ListedOperation).decode


class ListSettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """The options of `opstream list`."""

    selection: Selection
    limit: int
    is_watching: bool
    is_json: bool
    url: str


@click.command("list")
@selection_options
@option(
    "--limit",
    variable="LIMIT",
    type=click.IntRange(1, 1_000_000),
    default=50,
    metavar="N",
    help="List at most so many.",
)
@option(
    "--watch",
    "is_watching",
    variable="WATCH",
    is_flag=True,
    help="Look again every two seconds, until Ctrl-C. Without a terminal, print what has changed since the last look.",
)
@option("--json", "is_json", variable="JSON", is_flag=True, help="One JSON object per line, also on a terminal.")
@client_options.url_option
@client_options.token_options
def list(**given: Any) -> None:  # noqa: A001, ANN401 - the name of the command; the options above, named as the settings are
    """List operations, newest first: those that all of the options select.

    On a terminal it prints a table, elsewhere one JSON object per line. The service needs an index (docs/list.md).

    \b
    Example:
      opstream list --status Failed --action book:upload-start --since 1h
    """
    print_list(ListSettings(selection=take_selection(given), **given))


def print_list(settings: ListSettings) -> None:
    """Print a list, once or until Ctrl-C.

    Raises:
        CommandError: as `client_session` and `first_response`.
    """
    with client_session(settings.url, token=client_options.token_of(settings)) as (client, _):
        if settings.is_watching:
            _watch(client, settings)
            return
        is_table = sys.stdout.isatty() and not settings.is_json
        rows = itertools.islice(items(client, settings.url, settings.selection, settings.limit), settings.limit)
        is_empty = True
        for item in rows:
            if is_table and is_empty:
                click.echo(HEADING)
            is_empty = False
            click.echo(_row(item) if is_table else shown_json(bytes(item)))
        if is_table and is_empty:
            click.echo(
                "no operation fits; 'opstream count --by action' and '--by error/code' show what there is", err=True
            )


def items(
    client: OperationsClient, url: str, selection: Selection, limit: int, select: str = ""
) -> Iterator[msgspec.Raw]:
    """Yield the items of a list, page by page.

    Args:
        client: of the service.
        url: of the service, for messages.
        selection: which operations.
        limit: how many are wanted, at most.
        select: names of members, separated by commas; empty for all.
    """
    chosen = {
        "filter": filter_of(selection, datetime.now(UTC)),
        "orderby": order_of(selection),
        "maxpagesize": str(min(limit, _PAGE)),
        "select": select,
    }
    query = urlencode({name: value for name, value in chosen.items() if value})
    while True:
        page = _page(client, url, query)
        yield from page.items
        query = page.next_query
        if not query:
            return


def _page(client: OperationsClient, url: str, query: str) -> OperationPage:
    with first_response(url, RESPONSE_TIMEOUT) as seconds:
        return client.page(query, timeout=seconds)


def _watch(client: OperationsClient, settings: ListSettings) -> None:
    is_table = sys.stdout.isatty() and not settings.is_json
    seen: dict[bytes, None] = {}
    while True:
        found = [
            bytes(item)
            for item in itertools.islice(
                items(client, settings.url, settings.selection, settings.limit), settings.limit
            )
        ]
        if is_table:
            lines = [HEADING, *map(_row, map(msgspec.Raw, found))]
            click.echo(f"{_CLEAR}{datetime.now(UTC):%H:%M:%S} UTC\n" + "\n".join(lines))
        else:
            for item in reversed(found):  # the newest last, as in a log
                if item not in seen:
                    click.echo(shown_json(item))
            seen = dict.fromkeys(found)
        time.sleep(_WATCH_SECONDS)


def _row(item: msgspec.Raw) -> str:
    return list_row(_decode(item), has_colour=supports_colour(sys.stdout), width=line_width(sys.stdout))
