"""`opstream export`: writes the history that the broker holds into a Parquet file."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options import history as history_options
from opstream.cli.options.option import PathType
from opstream.terminal.console import EXIT_INTERRUPTED, CommandError, printable
from opstream.terminal.progress_bar import StreamProgress
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream.history.event_reader import HistoryQuery

if TYPE_CHECKING:
    from opstream.history.parquet_columns import ParquetColumns

NEXT_SEQUENCE_KEY: Final = "opstream.next_sequence"
"""Key of the file's metadata: the sequence at which the next export begins."""

_ROW_GROUP_SIZE: Final = 20_000
_ROW_GROUP_BYTES: Final = 32 * 1024 * 1024


class ExportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream export`."""

    path: Path
    query: HistoryQuery
    is_overwriting: bool
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


@click.command
@click.argument("path", metavar="FILE.parquet", type=PathType(path_type=Path, dir_okay=False))
@history_options.query_options
@history_options.overwrite_option
@common_options.nats_option
@common_options.connect_timeout_option
def export(
    *,
    path: Path,
    is_overwriting: bool,
    servers: tuple[str, ...],
    credentials: BrokerCredentials,
    connect_timeout: float,
    **given: Any,  # noqa: ANN401
) -> None:
    """Write the events that the broker holds into a Parquet file, one row each.

    It needs pyarrow: pip install pyarrow. The file appears when it is complete. Messages that are not
    events are skipped and reported, and so are missing sequences; the file is written nevertheless, and the exit status
    is 1.

    \b
    Example:
      opstream export failures.parquet --since 30d --type failed
    """
    query = history_options.history_query(datetime.now(UTC), given)
    write_parquet(
        ExportSettings(
            path=path,
            query=query,
            is_overwriting=is_overwriting,
            servers=servers,
            credentials=credentials,
            connect_timeout=connect_timeout,
        )
    )


def write_parquet(settings: ExportSettings) -> None:
    """Write the selected events. The file appears when it is complete.

    Raises:
        CommandError: the file was not written, or some messages were skipped; or as `broker_session`.
        click.UsageError: the file exists, or its name says that it is something else.
        SystemExit: the command was interrupted.
    """
    if settings.path.suffix not in {"", ".parquet", ".pq"}:
        raise click.UsageError(f"{settings.path}: what is written is Parquet: write a name that ends in .parquet")
    _check_target(settings)
    try:
        import pyarrow as pa  # noqa: F401 - nothing is read for a file that can't be written
    except ImportError as error:
        raise CommandError("opstream export needs pyarrow: pip install pyarrow") from error
    # A random name, since two exports may write the same file at the same time.
    part = settings.path.with_name(f".{settings.path.name}.{secrets.token_hex(4)}.part")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        problem = asyncio.run(_export(settings, part))
        _check_target(settings)
        part.replace(settings.path)
    except OSError as error:
        raise CommandError(f"can't write {settings.path} ({error.strerror or error}): choose another place") from error
    except KeyboardInterrupt:
        click.echo("interrupted; nothing was written", err=True)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        part.unlink(missing_ok=True)
    if problem:
        raise CommandError(f"{settings.path} is not complete: {problem}")


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """Make SIGTERM end the command as Ctrl-C does, so that no partial file is left."""
    raise KeyboardInterrupt


def _check_target(settings: ExportSettings) -> None:
    if settings.path.exists() and not settings.path.is_file():
        raise click.UsageError(f"{settings.path} is not a regular file: name another file")
    if settings.path.exists() and not settings.is_overwriting:
        raise click.UsageError(f"{settings.path} exists: choose another name, or replace it with --overwrite")


async def _export(settings: ExportSettings, part: Path) -> str:
    """Write the file, and return what it lacks; empty if it is complete."""
    from pyarrow import parquet

    from opstream.cli.broker_session import broker_session
    from opstream.history.event_reader import EventReader
    from opstream.history.lost_events import problem_with_losses
    from opstream.history.parquet_columns import SCHEMA, ParquetColumns

    count = 0
    async with broker_session(
        settings.servers, "export", settings.connect_timeout, credentials=settings.credentials
    ) as connection:
        with StreamProgress("messages", is_plain=True) as progress, part.open("xb") as file:

            def report(text: str) -> None:
                progress.print_line(printable(text))

            reader = EventReader(connection, settings.query, report)
            with parquet.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
                rows = ParquetColumns()
                async with aclosing(reader.batches()) as batches:
                    async for batch in batches:
                        for event in batch:
                            rows.add(event)
                        count += len(batch)
                        if _is_group_full(rows):
                            await asyncio.to_thread(writer.write_table, rows.table())
                            rows = ParquetColumns()
                        sequence = batch[-1].message.sequence if batch else reader.next_sequence
                        progress.advance(reader.first_sequence, sequence, reader.last_sequence)
                writer.write_table(rows.table())
                writer.add_key_value_metadata({NEXT_SEQUENCE_KEY: str(reader.next_sequence)})
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
            what = "1 event" if count == 1 else f"{count} events"
            progress.print_line(f"{what} in {settings.path}; go on with --from-sequence {reader.next_sequence}")
            return await problem_with_losses(connection, reader, report)


def _is_group_full(rows: ParquetColumns) -> bool:
    return len(rows) >= _ROW_GROUP_SIZE or rows.size >= _ROW_GROUP_BYTES
