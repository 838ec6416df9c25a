"""Options of the commands that read the history from the broker."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from opstream_schemas.errors import InvalidName
from opstream_schemas.event_filter import EVENT_NAMES, EventFilter, EventTypeFilter, parse_action_filter
from opstream_schemas.names import check_name, check_operation_id

from .option import Decorator, F, checked, option, split_list
from .value_types import MomentType, resolve_moment

if TYPE_CHECKING:
    from opstream.history.event_reader import HistoryQuery


def history_query(now: datetime, given: dict[str, Any], *, is_following: bool = False) -> HistoryQuery:
    """The query that the options of `query_options` describe.

    Args:
        now: the time from which ages count.
        given: values of options; those of `query_options` are removed.
        is_following: the value of `--follow`.

    Raises:
        click.UsageError: the options contradict each other.
    """
    from opstream.history.event_reader import HistoryQuery

    resource, (action_resource, action) = given.pop("resource"), given.pop("action")
    if resource and action_resource not in {"*", resource}:
        raise click.UsageError(
            f"--resource {resource} and --action {action_resource}:{action} have nothing in common: leave one out"
        )
    since, until = resolve_moment(given.pop("since"), now), resolve_moment(given.pop("until"), now)
    if since is not None and until is not None and since >= until:
        raise click.UsageError(f"--since {since.isoformat()} is not before --until {until.isoformat()}")
    if is_following and until is not None:
        raise click.UsageError("--follow never ends, so it has no --until: leave one out")
    return HistoryQuery(
        event_filter=EventFilter(
            operation_id=given.pop("operation"),
            resource=resource or action_resource,
            action=action,
            types=given.pop("types"),
        ),
        first=given.pop("first"),
        since=since,
        until=until,
        is_archive=given.pop("is_archive"),
        is_following=is_following,
    )


def _parse_types(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[EventTypeFilter, ...]:
    try:
        return tuple(EventTypeFilter.parse(text) for text in split_list(ctx, param, value))
    except InvalidName as error:
        raise click.BadParameter(str(error), ctx, param) from error


since_option: Final[Decorator[Any]] = option(
    "--since",
    variable="SINCE",
    type=MomentType(),
    metavar="TIME",
    help="Only events that the broker stored then or later (with --from-archive: that happened then or later): a date, "
    "RFC 3339 (2026-11-24T15:30:00Z), or an age such as 2h or 3d.",
)
until_option: Final[Decorator[Any]] = option(
    "--until",
    variable="UNTIL",
    type=MomentType(),
    metavar="TIME",
    help="Only events that the broker stored (with --from-archive: that happened) before that.",
)
resource_option: Final[Decorator[Any]] = option(
    "--resource",
    variable="RESOURCE",
    default="",
    metavar="NAME",
    callback=checked(lambda text: text and check_name(text, "resource")),
    help="Only operations on that kind of resource, e.g. book.",
)
action_option: Final[Decorator[Any]] = option(
    "--action",
    variable="ACTION",
    default="*:*",
    metavar="RESOURCE:ACTION",
    callback=checked(parse_action_filter),
    help="Only operations of that action, e.g. book:upload-start or book:*.",
)
type_option: Final[Decorator[Any]] = option(
    "--type",
    "types",
    variable="TYPE",
    multiple=True,
    metavar="TYPE",
    callback=_parse_types,
    help=f"Only that type of event; may be repeated. One of {', '.join(EVENT_NAMES)}, or in full, e.g. "
    "opstream.action.succeeded.v1.",
)
operation_option: Final[Decorator[Any]] = option(
    "--operation",
    variable="OPERATION",
    default="",
    metavar="ID",
    callback=checked(lambda text: text and check_operation_id(text)),
    help="Only the events of that operation.",
)
from_sequence_option: Final[Decorator[Any]] = option(
    "--from-sequence",
    "first",
    variable="FROM_SEQUENCE",
    type=click.IntRange(min=1),
    metavar="N",
    help="Begin with that stream sequence. Reading is incomplete, and the exit status 1, if it has expired.",
)
archive_option: Final[Decorator[Any]] = option(
    "--from-archive/--from-journal",
    "is_archive",
    variable="FROM_ARCHIVE",
    default=False,
    help="Read the archive, which keeps events longer and has sequences of its own, or the journal.",
)


def query_options(command: F) -> F:
    """Add the options that select events; `history_query` reads their values."""
    for decorate in (
        archive_option,
        from_sequence_option,
        operation_option,
        type_option,
        action_option,
        resource_option,
        until_option,
        since_option,
    ):
        command = decorate(command)
    return command


def timeline_options(command: F) -> F:
    """Add the options that say where to search for one operation; `history_query` reads their values."""
    for decorate in (archive_option, action_option, until_option, since_option):
        command = decorate(command)
    return command


with_data_option: Final[Decorator[Any]] = option(
    "--with-data",
    "is_whole",
    variable="WITH_DATA",
    is_flag=True,
    help="Print input and result whole, however large they are, instead of their size and hash.",
)
audit_json_option: Final[Decorator[Any]] = option(
    "--json",
    "is_json",
    variable="JSON",
    is_flag=True,
    help="The same as one JSON object, for machines, with the seconds of each kind of phase. With --access: one JSON "
    "object per line, also on a terminal.",
)
overwrite_option: Final[Decorator[Any]] = option(
    "--overwrite", "is_overwriting", variable="OVERWRITE", is_flag=True, help="Replace the file if it exists."
)
replay_follow_option: Final[Decorator[Any]] = option(
    "--follow/--no-follow",
    "is_following",
    variable="FOLLOW",
    default=False,
    help="Also print the events that are recorded from now on, until Ctrl-C.",
)
format_option: Final[Decorator[Any]] = option(
    "--format",
    "form",
    variable="FORMAT",
    type=click.Choice(("cloudevents", "records", "table")),
    help="One CloudEvent per line, as it is stored; or one record per line with sequence, storedAt, subject and event; "
    "or a table for people. Without it a table on a terminal, otherwise CloudEvents.",
)
