"""The commands for auditors and analysts, which read the history from the broker itself. Part of `cli`.

They need no service of opstream's to run, and change nothing. As in `cli`, what does the work is loaded only when one
of them runs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from opstream.cli.options import common as service_options
from opstream.cli.options import history as options
from opstream.cli.options.option import PathArgument
from opstream_schemas.names import check_operation_id


@click.command(short_help="Print the history of all operations.")
@options.select_options
@options.replay_follow_option
@options.format_option
@service_options.nats_option
@service_options.connect_timeout_option
def replay(*, is_following: bool, **given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Print the events that the broker holds, oldest first.

    Events go to stdout, everything else to stderr. The last line there says with which --from-sequence to go on later,
    so that nothing is left out or comes twice. What is no event is passed over and told, and so are sequences that are
    missing; the exit status is then 1. It is 0 if all was printed, 130 after Ctrl-C.

    \b
    Example:
      opstream replay --since 2h --action 'book:*' --type failed | jq -r .data.error.message
    """
    wanted = options.wanted(datetime.now(UTC), given, is_following=is_following)
    from .replay import Replay, replay

    replay(Replay(wanted=wanted, **given))


@click.command(short_help="Tell the life of one operation.")
@click.argument("operation", metavar="ID", callback=options.checked(check_operation_id), type=str)
@options.search_options
@options.with_data_option
@options.audit_json_option
@service_options.nats_option
@service_options.connect_timeout_option
def audit(*, is_json: bool, is_whole: bool, servers: tuple[str, ...], connect_timeout: float, **given: Any) -> None:  # noqa: ANN401
    """Tell the life of the operation ID: who asked, each attempt and its runner, and how long each phase took.

    From the broker's journal, or with --from-archive from the archive, which has to be looked through from --since on
    (before the operation began). The exit status is 1 if there is no such operation, or if its events are not those
    that were recorded.

    \b
    Example:
      opstream audit 019abc12-3456-7890-abcd-ef0123456789 --json | jq .seconds
    """
    if not given["is_archive"] and (given["since"] or given["until"] or given["action"] != ("*", "*")):
        raise click.UsageError(
            "--since, --until and --action are for the archive: add --from-archive, or leave them out"
        )
    given |= {"resource": "", "types": (), "first": None}
    wanted = options.wanted(datetime.now(UTC), given)
    from .audit import Audit, audit

    audit(Audit(wanted=wanted, is_json=is_json, is_whole=is_whole, servers=servers, connect_timeout=connect_timeout))


@click.command(short_help="Write the history of all operations as Parquet.")
@click.argument("path", metavar="FILE.parquet", type=PathArgument(path_type=Path, dir_okay=False))
@options.select_options
@options.overwrite_option
@service_options.nats_option
@service_options.connect_timeout_option
def export(
    *,
    path: Path,
    is_overwriting: bool,
    servers: tuple[str, ...],
    connect_timeout: float,
    **given: Any,  # noqa: ANN401
) -> None:
    """Write the events that the broker holds into a Parquet file, one row each.

    It needs pyarrow: pip install 'opstream[parquet]'. The file appears once it is whole. What is no event is passed
    over and told, and so are sequences that are missing; the file is written all the same, and the exit status is 1.

    \b
    Example:
      opstream export failures.parquet --since 30d --type failed
    """
    wanted = options.wanted(datetime.now(UTC), given)
    from .export import Export, export

    export(
        Export(
            path=path,
            wanted=wanted,
            is_overwriting=is_overwriting,
            servers=servers,
            connect_timeout=connect_timeout,
        )
    )


COMMANDS: Final = (replay, audit, export)
