"""`opstream count`: counts operations, in all or by the values of a field."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import click
import msgspec

from opstream.cli.client_session import RESPONSE_TIMEOUT, client_session, first_response
from opstream.cli.lists.selection import Selection, filter_of, selection_options, take_selection
from opstream.cli.options import client as client_options
from opstream.cli.options.option import option
from opstream.terminal.console import line_width, shown_json, supports_colour

if TYPE_CHECKING:
    from opstream.client import OperationCount, OperationsClient

_FIELDS: Final = {
    "status": "status",
    "action": "kind",
    "error/code": "error/code",
    "caller": "caller",
    "resourceId": "resourceId",
}
"""What `--by` takes, and what the service calls it."""
_NAMES: Final = {field: name for name, field in _FIELDS.items()}
_LABEL: Final = "label/"


class CountSettings(client_options.TokenSettings, frozen=True, kw_only=True):
    """The options of `opstream count`."""

    selection: Selection
    by: str
    """The field, as the service calls it; empty for one number."""
    limit: int
    is_json: bool
    url: str


def _parse_field(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not value or value in _FIELDS:
        return _FIELDS.get(value, "")
    if value.startswith(_LABEL) and value != _LABEL:
        return value
    known = ", ".join((*_FIELDS, f"{_LABEL}KEY"))
    raise click.BadParameter(f"{value!r} is nothing to count by: write {known}", ctx, param)


@click.command
@selection_options
@option(
    "--by",
    variable="BY",
    default="",
    metavar="FIELD",
    callback=_parse_field,
    help=f"Count for each value of a field: {', '.join(_FIELDS)} or {_LABEL}KEY.",
)
@option(
    "--limit",
    variable="LIMIT",
    type=click.IntRange(1, 1_000),
    default=50,
    metavar="N",
    help="With --by, show at most so many values, the most frequent ones.",
)
@option("--json", "is_json", variable="JSON", is_flag=True, help="JSON, also on a terminal and for one number.")
@client_options.url_option
@client_options.token_options
def count(**given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Count operations: those that all of the options select.

    Without --by it prints one number. With it, on a terminal, a table of the values with how the operations stand and
    how long they took, the most frequent first; elsewhere one JSON object per line. The service needs an index
    (docs/list.md).

    \b
    Example:
      opstream count --status Failed --since 1d
      opstream count --since 1d --by action
      opstream count --status Failed --since 1h --by error/code
    """
    print_count(CountSettings(selection=take_selection(given), **given))


def print_count(settings: CountSettings) -> None:
    """Print how many operations are selected, or a row for each value of a field.

    Raises:
        CommandError: as `client_session` and `first_response`.
    """
    with client_session(settings.url, token=client_options.token_of(settings)) as (client, _):
        condition = filter_of(settings.selection, datetime.now(UTC))
        if settings.by:
            _print_groups(_counted(client, settings, condition), settings)
        elif settings.is_json:
            click.echo(shown_json(msgspec.json.encode(_whole(client, settings, condition))))
        else:
            click.echo(_whole(client, settings, condition)["count"])


def _whole(client: OperationsClient, settings: CountSettings, condition: str) -> dict[str, Any]:
    """Return number and statuses of all selected operations; the rest of a count that ended early is asked for."""
    number, statuses = 0, dict[str, int]()
    rest = condition
    while True:
        found = _counted(client, settings, rest)
        number += found.count
        for status, more in found.statuses.items():
            statuses[status] = statuses.get(status, 0) + more
        if found.incomplete is None:
            return {"count": number, "statuses": statuses}
        earlier = f"{found.incomplete.field} lt {_instant(found.incomplete.begin)}"
        rest = f"({condition}) and {earlier}" if condition else earlier


def _counted(client: OperationsClient, settings: CountSettings, condition: str) -> OperationCount:
    chosen = {"filter": condition, "by": settings.by, "top": str(settings.limit) if settings.by else ""}
    query = urlencode({name: value for name, value in chosen.items() if value})
    with first_response(settings.url, RESPONSE_TIMEOUT) as seconds:
        return client.count(query, timeout=seconds)


def _print_groups(found: OperationCount, settings: CountSettings) -> None:
    from opstream.terminal.rows.count_row import HEADING, Took, count_row

    is_table = sys.stdout.isatty() and not settings.is_json
    if is_table and found.value:
        click.echo(f"{HEADING}  {_NAMES.get(settings.by, settings.by)}")
    for group in found.value:
        if not is_table:
            click.echo(shown_json(msgspec.json.encode(group)))
            continue
        took = None if group.duration is None else Took(group.duration.p50, group.duration.p95, group.duration.max)
        has_colour, width = supports_colour(sys.stdout), line_width(sys.stdout)
        row = count_row(group.key, group.count, group.statuses, took, has_colour=has_colour, width=width)
        click.echo(row, color=has_colour or None)
    if found.groups > len(found.value):
        others = found.count - sum(group.count for group in found.value)
        text = f"{found.groups - len(found.value)} further values with {others} operations"
        click.echo(f"opstream: {text}: --limit shows more", err=True)
    if found.incomplete is not None:
        begin, field = _instant(found.incomplete.begin), found.incomplete.field
        text = f"only operations with {field} from {begin} on are counted, since the others take longer: name a time"
        click.echo(f"opstream: {text} with --since, or count the rest with --filter '{field} lt {begin}'", err=True)


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
