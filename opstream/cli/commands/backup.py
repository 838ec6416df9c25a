"""`opstream backup`: copies everything that opstream has on a broker, while it works."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options.option import PathType, option
from opstream.terminal.console import EXIT_INTERRUPTED, CommandError
from opstream.terminal.progress_bar import ProgressBar
from opstream_schemas.text import format_count
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream.backup.backup_folder import NewBackup
    from opstream.backup.manifest import Manifest
    from opstream_journal import Connection

CHECKPOINTS: Final = "journal.checkpoints"
"""The file of checkpoints in a backup."""

_ADVICE: Final = "Nothing of this backup was kept: run it again"
_MEBIBYTE: Final = 1024 * 1024


class BackupSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream backup`."""

    directory: Path
    """In which the backup gets a folder of its own."""
    sign: Path | None = None
    """The private key of a checkpoint."""
    is_verifying: bool = True
    """Read everything once more at the end."""
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


@click.command
@click.argument("directory", metavar="DIR", type=PathType(path_type=Path, file_okay=False))
@option(
    "--sign",
    variable="SIGN",
    type=PathType(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Add a checkpoint of the journal, signed with the private key in FILE ('opstream keygen' makes one): it "
    "proves after a restore that nothing was changed. It reads the whole journal.",
)
@option(
    "--verify/--no-verify",
    "is_verifying",
    variable="VERIFY_BACKUP",
    default=True,
    help="Read everything that was written once more, and compare it with its sums.",
)
@common_options.nats_option
@common_options.connect_timeout_option
def backup(
    *,
    directory: Path,
    sign: Path | None,
    is_verifying: bool,
    servers: tuple[str, ...],
    credentials: BrokerCredentials,
    connect_timeout: float,
) -> None:
    """Copy all streams and buckets of opstream from the broker into a new folder in DIR, while everything works.

    The folder is named after the time, and printed on stdout. It has what clients sent and what actions returned, the
    hashes of API keys, and the secret that makes operation ids, so only its owner may read it. It has no private keys
    of processes and no settings of services. A backup that does not end leaves nothing. docs/backup.md says what to
    keep beside it.

    \b
    Example:
      opstream backup /backups
      opstream backup /backups --sign journal.key --nats nats://n1:4222
    """
    settings = BackupSettings(
        directory=directory,
        sign=sign,
        is_verifying=is_verifying,
        servers=servers,
        credentials=credentials,
        connect_timeout=connect_timeout,
    )
    make_backup(settings)


def make_backup(settings: BackupSettings) -> None:
    """Make a backup, and print its folder.

    Raises:
        CommandError: the broker was lost, the folder can't be written to, or the chain of the journal has findings.
    """
    try:
        asyncio.run(_make_backup(settings))
    except KeyboardInterrupt:
        raise CommandError("interrupted: nothing of this backup was kept", status=EXIT_INTERRUPTED) from None


async def _make_backup(settings: BackupSettings) -> None:
    from opstream.backup.backup import BackupMaker
    from opstream.backup.backup_folder import NewBackup, check_backup, free_path
    from opstream.cli.broker_session import broker_session

    began = time.monotonic()
    bar = ProgressBar(sys.stderr, time.monotonic)
    path = free_path(settings.directory, datetime.now(UTC))
    session = broker_session(
        settings.servers, "backup", settings.connect_timeout, credentials=settings.credentials, advice=_ADVICE
    )
    with NewBackup(path) as folder:
        async with session as connection:

            async def sign() -> Sequence[str]:
                return await _sign(connection, folder, settings.sign) if settings.sign is not None else ()

            maker = BackupMaker(connection, folder, bar, None if settings.sign is None else sign)
            manifest = await maker.run()
        total = sum(record.bytes for record in manifest.files())

        def check(partial: Path) -> None:
            if settings.is_verifying:
                bar.begin("bytes checked", total)
                check_backup(partial, bar.show)
                bar.end()

        folder.finish(manifest, check=check)
    seconds = time.monotonic() - began
    click.echo(_summary(manifest, total, seconds, is_verified=settings.is_verifying), err=True)
    click.echo(str(path))


async def _sign(connection: Connection, folder: NewBackup, key: Path) -> Sequence[str]:
    from opstream.history.chain_verifier import ChainVerifier, ChainVerifierSettings
    from opstream.history.checkpoint_file import heads_path

    path = folder.working_path / CHECKPOINTS
    settings = ChainVerifierSettings(
        is_archive=False, checkpoint=path, sign=key, keys=(), is_quick=False, is_accepting=False
    )
    try:
        await ChainVerifier(settings).run(connection)
    except CommandError as error:
        raise CommandError(
            f"no checkpoint could be made: {error.message}. {_ADVICE} without --sign, if you need one all the same",
            status=error.exit_code,
        ) from error
    return path.name, heads_path(path).name


def _summary(manifest: Manifest, total: int, seconds: float, *, is_verified: bool) -> str:
    streams, size = format_count(len(manifest.streams), "stream"), total / _MEBIBYTE
    checked = "checked" if is_verified else "not checked"
    signed = ", with a checkpoint" if manifest.checkpoint else ""
    return f"{streams}, {size:,.1f} MiB in {seconds:.1f} s, {checked}{signed}"
