"""What `retry` and `cancel` share: one operation by its id, or all that options select."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import click
import msgspec
from click.core import ParameterSource

from opstream.cli.client_session import first_response, print_json, wait_for_end
from opstream.cli.options.option import Decorator, F, option
from opstream.terminal.console import CommandError
from opstream_schemas.bulk.kinds import DEFAULT_RATE, MAX_RATE
from opstream_schemas.bulk.records import BulkResult
from opstream_schemas.operation.state import Status

from .selection import Selection, filter_of, selection_options, take_selection

if TYPE_CHECKING:
    from opstream.client import OperationsClient
    from opstream.terminal.operation_display import OperationDisplay

_NOTHING: Final = Selection()
_FILTERED: Final = frozenset({*Selection.__struct_fields__, "is_dry_run"})
_decode_result: Final = msgspec.json.Decoder(BulkResult).decode


class BulkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The values of the options of a bulk request."""

    selection: Selection = _NOTHING
    is_dry_run: bool = False
    per_second: int = DEFAULT_RATE


def bulk_options(command: F) -> F:
    """Add the argument ID, which may be left out, and the options that select operations in its place."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return click.argument("operation_id", metavar="[ID]", required=False, default="")(selection_options(command))


def take_bulk(given: dict[str, Any]) -> BulkSettings | None:
    """Remove the values of these options from those of a command, and return them; None if an ID is given.

    Raises:
        click.UsageError: an ID and a selection are given, or neither.
    """
    settings = BulkSettings(
        selection=take_selection(given), is_dry_run=given.pop("is_dry_run"), per_second=given.pop("per_second")
    )
    ctx = click.get_current_context()
    if given["operation_id"]:
        # A variable may be set for other commands, such as 'opstream list'.
        if any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in _FILTERED):
            raise click.UsageError("name either an ID, or options that select operations", ctx)
        return None
    if settings.selection == _NOTHING:
        raise click.UsageError(
            "name the ID of an operation, or options that select some, e.g. --action book:upload-start --since 1d", ctx
        )
    return settings


def run_bulk(
    client: OperationsClient,
    display: OperationDisplay,
    act: str,
    bulk: BulkSettings,
    *,
    url: str,
    reason: str,
    is_waiting: bool,
    timeout: float | None,
) -> None:
    """Send a bulk request, and print its status monitor, or what a dry run says.

    Args:
        client: of the service.
        display: shows the progress.
        act: `retry` or `cancel`.
        bulk: what is asked for.
        url: of the service, for messages.
        reason: of a cancel.
        is_waiting: whether to follow the bulk operation to its end.
        timeout: seconds to follow it; None for no limit.

    Raises:
        CommandError: as `first_response`; also if it was waited for, and failed, was canceled, or was refused items.
    """
    query = urlencode({"filter": filter_of(bulk.selection, datetime.now(UTC)), "perSecond": bulk.per_second})
    with first_response(url, timeout) as seconds:
        if bulk.is_dry_run:
            print_json(msgspec.Raw(msgspec.json.encode(client.preview(act, query, timeout=seconds))))
            return
        operation = client.bulk(act, query, reason=reason, timeout=seconds)
    if is_waiting:
        operation = wait_for_end(client, display, operation, url, timeout)
    print_json(operation.monitor)
    if not is_waiting:
        return
    result = operation.monitor.result
    if operation.status is not Status.SUCCEEDED or isinstance(result, msgspec.UnsetType):
        raise CommandError(f"the bulk operation {operation.id} ended as {operation.status}")
    found = _decode_result(result)
    if found.refused:
        raise CommandError(
            f"{found.refused:,} of {found.matched:,} operations were refused: 'opstream events {operation.id}' has them"
        )


_OPTIONS: Final[tuple[Decorator[Any], ...]] = (
    option(
        "--dry-run",
        "is_dry_run",
        variable="DRY_RUN",
        is_flag=True,
        help="Only print how many operations are selected, and the oldest of them.",
    ),
    option(
        "--per-second",
        variable="PER_SECOND",
        type=click.IntRange(1, MAX_RATE),
        default=DEFAULT_RATE,
        metavar="N",
        help="Begin so many of the selected operations in a second, at most.",
    ),
)
