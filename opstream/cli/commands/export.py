"""`opstream export`: writes the history that lies on the broker into a Parquet file."""

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

from opstream.cli.options import common as service_options
from opstream.cli.options import history as options
from opstream.cli.options.option import PathType
from opstream.history.event_reader import EventReader, HistoryQuery
from opstream.terminal.console import EXIT_INTERRUPTED, CommandError, printable
from opstream.terminal.progress_bar import StreamProgress
from opstream_journal import JournalError, connect

if TYPE_CHECKING:
    from opstream.history.parquet_columns import ParquetColumns
NEXT_SEQUENCE_KEY: Final = "opstream.next_sequence"
"""The file's own note of where the next export has to begin."""
_ROW_GROUP_SIZE: Final = 20_000
_ROW_GROUP_BYTES: Final = 32 * 1024 * 1024


class ExportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream export`."""

    path: Path
    wanted: HistoryQuery
    is_overwriting: bool
    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""


@click.command(short_help="Write the history of all operations as Parquet.")
@click.argument("path", metavar="FILE.parquet", type=PathType(path_type=Path, dir_okay=False))
@options.query_options
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
    wanted = options.history_query(datetime.now(UTC), given)
    write_parquet(
        ExportSettings(
            path=path,
            wanted=wanted,
            is_overwriting=is_overwriting,
            servers=servers,
            connect_timeout=connect_timeout,
        )
    )


def write_parquet(settings: ExportSettings) -> None:
    """Write the events that are wanted. The file is there once it is whole, and not before.

    Raises:
        Failure: it was not written; or it was, but not everything that lies there is in it.
        click.UsageError: the file exists.
    """
    _check_target(settings)
    try:
        from opstream.history import parquet_columns as columns  # noqa: F401 - so that nothing is read for a file that can't be written
    except ImportError as error:
        raise CommandError(
            "Parquet is written by pyarrow, which is missing: pip install 'opstream[parquet]'"
        ) from error
    part = settings.path.with_name(f".{settings.path.name}.{secrets.token_hex(4)}.part")  # two at once are two files
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        problem = asyncio.run(_export(settings, part))
        _check_target(settings)
        part.replace(settings.path)
    except OSError as error:
        raise CommandError(f"can't write {settings.path} ({error.strerror or error}): choose another place") from error
    except JournalError as error:
        raise CommandError(printable(str(error))) from error
    except KeyboardInterrupt:
        click.echo("interrupted; nothing was written", err=True)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        part.unlink(missing_ok=True)
    if problem:
        raise CommandError(f"{settings.path} holds not all that lies there: {problem}")


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """SIGTERM ends it as Ctrl-C does, so that nothing half is left on the disk."""
    raise KeyboardInterrupt


def _check_target(settings: ExportSettings) -> None:
    if settings.path.exists() and not settings.path.is_file():
        raise click.UsageError(f"{settings.path} is no ordinary file, and would be replaced by one: name a file")
    if settings.path.exists() and not settings.is_overwriting:
        raise click.UsageError(f"{settings.path} exists: choose another name, or replace it with --overwrite")


async def _export(settings: ExportSettings, part: Path) -> str:
    """What is missing in the file; empty if that is nothing."""
    from pyarrow import parquet

    from opstream.history.parquet_columns import SCHEMA, ParquetColumns

    count = 0
    link = await connect(settings.servers, "opstream-export", connect_timeout=settings.connect_timeout)
    try:
        with StreamProgress("messages", is_plain=True) as progress, part.open("xb") as file:
            walk = EventReader(link, settings.wanted, lambda text: progress.print_line(printable(text)))
            with parquet.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
                rows = ParquetColumns()
                async with aclosing(walk.batches()) as batches:
                    async for batch in batches:
                        for one in batch:
                            rows.add(one)
                        count += len(batch)
                        if _is_group_full(rows):
                            await asyncio.to_thread(writer.write_table, rows.table())
                            rows = ParquetColumns()
                        sequence = batch[-1].message.sequence if batch else walk.next_sequence
                        progress.advance(walk.first_sequence, sequence, walk.last_sequence)
                writer.write_table(rows.table())
                writer.add_key_value_metadata({NEXT_SEQUENCE_KEY: str(walk.next_sequence)})
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
            what = "1 event" if count == 1 else f"{count} events"
            progress.print_line(f"{what} in {settings.path}; go on with --from-sequence {walk.next_sequence}")
            return walk.problem
    finally:
        await link.close()


def _is_group_full(rows: ParquetColumns) -> bool:
    return len(rows) >= _ROW_GROUP_SIZE or rows.size >= _ROW_GROUP_BYTES
