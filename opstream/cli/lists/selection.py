"""Options that select operations in a list, and the filter that they make (docs/list.md)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import click
import msgspec

from opstream.cli.options.option import Decorator, F, option, split_list
from opstream.cli.options.value_types import Moment, MomentType, resolve_moment
from opstream_schemas.errors import InvalidName
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Status


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The values of these options."""

    statuses: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    since: Moment | None = None
    ended_since: Moment | None = None
    resource_ids: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    condition: str = ""


def filter_of(selection: Selection, now: datetime) -> str:
    """Return the filter that selects what all of the options name; empty for every operation.

    Args:
        selection: their values.
        now: the time from which an age counts.
    """
    parts = [
        *_among("status", selection.statuses),
        *_among("kind", selection.actions),
        *_among("resourceId", selection.resource_ids),
        *_among("error/code", selection.codes),
        *_among("caller", selection.callers),
        *(f"label/{key} eq {quoted(value)}" for key, _, value in (text.partition("=") for text in selection.labels)),
    ]
    for field, moment in (("createdAt", selection.since), ("finishedAt", selection.ended_since)):
        since = resolve_moment(moment, now)
        if since is not None:
            parts.append(f"{field} ge {since.isoformat().replace('+00:00', 'Z')}")
    if selection.condition:
        parts.append(f"({selection.condition})" if parts else selection.condition)
    return " and ".join(parts)


def order_of(selection: Selection) -> str:
    """Return the order of a list of these operations: by their ends, if only those are bounded; empty for the usual."""
    return "finishedAt desc" if selection.ended_since is not None and selection.since is None else ""


def quoted(text: str) -> str:
    """Return a text as a filter writes it."""
    return "'" + text.replace("'", "''") + "'"


def selection_options(command: F) -> F:
    """Add the options that select operations."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command


def take_selection(given: dict[str, Any]) -> Selection:
    """Remove the values of these options from those of a command, and return them."""
    return Selection(**{name: given.pop(name) for name in Selection.__struct_fields__})


def _among(field: str, values: tuple[str, ...]) -> list[str]:
    if not values:
        return []
    if len(values) == 1:
        return [f"{field} eq {quoted(values[0])}"]
    return [f"{field} in ({', '.join(map(quoted, values))})"]


def _parse_statuses(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    known: Mapping[str, str] = {status.lower(): str(status) for status in Status}
    found = split_list(ctx, param, value)
    for text in found:
        if text.lower() not in known:
            raise click.BadParameter(f"{text!r} is no status: write {', '.join(Status)}", ctx, param)
    return tuple(known[text.lower()] for text in found)


def _parse_actions(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    found = split_list(ctx, param, value)
    for text in found:
        try:
            Kind.parse(text)
        except InvalidName as error:
            raise click.BadParameter(f"{text!r} is no action: write RESOURCE:ACTION ({error})", ctx, param) from error
    return found


def _parse_labels(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    found = split_list(ctx, param, value)
    for text in found:
        key, equals, label = text.partition("=")
        if not key or not equals or not label:
            raise click.BadParameter(f"{text!r} is no label: write KEY=VALUE", ctx, param)
    return found


_OPTIONS: Final[tuple[Decorator[Any], ...]] = (
    option(
        "--status",
        "statuses",
        variable="STATUS",
        multiple=True,
        callback=_parse_statuses,
        metavar="STATUS",
        help="Only operations with that status: Running, Failed, …; repeat it, or write several with commas.",
    ),
    option(
        "--action",
        "actions",
        variable="ACTION",
        multiple=True,
        callback=_parse_actions,
        metavar="RESOURCE:ACTION",
        help="Only operations of that action, or of one of several.",
    ),
    option(
        "--since",
        variable="SINCE",
        type=MomentType(),
        metavar="TIME",
        help="Only operations that were requested then or later: a date, RFC 3339, or an age such as 2h or 3d.",
    ),
    option(
        "--ended-since",
        variable="ENDED_SINCE",
        type=MomentType(),
        metavar="TIME",
        help="Only operations that ended then or later, in the same forms. A list without --since is in that order.",
    ),
    option(
        "--resource-id",
        "resource_ids",
        variable="RESOURCE_ID",
        multiple=True,
        callback=split_list,
        metavar="ID",
        help="Only operations of the resource with that id, or of one of several.",
    ),
    option(
        "--label",
        "labels",
        variable="LABEL",
        multiple=True,
        callback=_parse_labels,
        metavar="KEY=VALUE",
        help="Only operations with that label; of several, with all.",
    ),
    option(
        "--code",
        "codes",
        variable="CODE",
        multiple=True,
        callback=split_list,
        metavar="CODE",
        help="Only operations that ended with that error code, or one of several.",
    ),
    option(
        "--caller",
        "callers",
        variable="CALLER",
        multiple=True,
        callback=split_list,
        metavar="NAME",
        help="Only operations of that caller, or of one of several.",
    ),
    option(
        "--filter",
        "condition",
        variable="FILTER",
        default="",
        metavar="FILTER",
        help="Only operations that this filter selects, too, e.g. \"contains(message, 'disk full')\" (docs/list.md).",
    ),
)
