"""`opstream restore`: brings a backup to a broker."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from opstream.cli.options import common as common_options
from opstream.cli.options.option import PathType, option
from opstream.terminal.console import EXIT_INTERRUPTED, EXIT_SETBACK, CommandError
from opstream.terminal.progress_bar import ProgressBar
from opstream_schemas.logs.access_log import AdminAct
from opstream_schemas.text import format_count
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

from .backup import CHECKPOINTS

if TYPE_CHECKING:
    from opstream.backup.manifest import Manifest
    from opstream.backup.reconciliation import Reconciled
    from opstream.backup.restored_keys import RestoredKeys
    from opstream_journal import Connection

_ADVICE: Final = "What is there is marked, and no service starts on it: run the same command again, which begins again"
_FILE: Final = PathType(path_type=Path, dir_okay=False)
_MEBIBYTE: Final = 1024 * 1024


class RestoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream restore`."""

    folder: Path
    replicas: int | None = None
    is_replacing: bool = False
    is_revoking_keys: bool = False
    erased: tuple[Path, ...] = ()
    """Lists of erased operations."""
    is_checking: bool = False
    """Check the backup, and need no broker."""
    keys: tuple[Path, ...] = ()
    """Public keys of the checkpoint."""
    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""


@click.command
@click.argument("folder", metavar="DIR", type=PathType(path_type=Path, file_okay=False))
@option(
    "--replicas",
    variable="REPLICAS",
    type=click.IntRange(1, 5),
    metavar="N",
    help="Copies of every stream: 3 in a cluster. As many as the backup had without it.",
)
@option(
    "--replace",
    "is_replacing",
    variable="REPLACE",
    is_flag=True,
    help="Delete opstream's streams on the broker first, with all that is in them. Only after the backup was checked.",
)
@option(
    "--revoke-keys",
    "is_revoking_keys",
    variable="REVOKE_KEYS",
    is_flag=True,
    help="Revoke all API keys of the backup: some of them may have been revoked after it was made.",
)
@option(
    "--erased",
    variable="ERASED",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="A list of erased operations, as 'opstream keys erased' prints it: their keys are destroyed, should this "
    "broker have them, before any service can start.",
)
@option(
    "--check",
    "is_checking",
    variable="CHECK",
    is_flag=True,
    help="Only check the files of the backup; no broker is needed.",
)
@option(
    "--key",
    "keys",
    variable="KEY",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="The public key (PEM) of the backup's checkpoint: the restored journal is compared with it at the end.",
)
@common_options.nats_option
@common_options.connect_timeout_option
def restore(
    *,
    folder: Path,
    replicas: int | None,
    is_replacing: bool,
    is_revoking_keys: bool,
    erased: tuple[Path, ...],
    is_checking: bool,
    keys: tuple[Path, ...],
    servers: tuple[str, ...],
    credentials: BrokerCredentials,
    connect_timeout: float,
) -> None:
    """Bring the backup in DIR to a broker that has no streams of opstream's. Stop all services first.

    DIR is the folder that 'opstream backup' has printed, or one that holds exactly one such folder.

    Every file is checked before the broker is touched. Then the streams are restored with their consumers, the view is
    brought in line with the journal, and open operations get their timers and locks again. Until the end no service
    starts on that broker. A restore that was killed begins again when the command is repeated.

    \b
    Example:
      opstream restore /backups/20261130T021500Z --check
      opstream restore /backups/20261130T021500Z --nats nats://new:4222 --replicas 3
    """
    options = RestoreOptions(
        folder=folder,
        replicas=replicas,
        is_replacing=is_replacing,
        is_revoking_keys=is_revoking_keys,
        erased=erased,
        is_checking=is_checking,
        keys=keys,
        servers=servers,
        credentials=credentials,
        connect_timeout=connect_timeout,
    )
    restore_backup(options)


def restore_backup(options: RestoreOptions) -> None:
    """Check a backup and restore it, and print what to do next.

    Raises:
        CommandError: the backup is damaged, the broker has streams of ours, refuses or was lost; with status 3, the
            journal of the backup had lost events.
    """
    from opstream.backup.backup_folder import check_backup, find_backup

    options = msgspec.structs.replace(options, folder=find_backup(options.folder))
    began = time.monotonic()
    bar = ProgressBar(sys.stderr, time.monotonic)
    total = sum(one.stat().st_size for one in options.folder.glob("*") if one.is_file())
    bar.begin("bytes checked", total)
    manifest = check_backup(options.folder, bar.show)
    bar.end()
    if options.keys and not manifest.checkpoint:
        raise CommandError(f"{options.folder} has no checkpoint, so --key proves nothing: leave it out")
    click.echo(_checked(options.folder, manifest, total), err=True)
    if options.is_checking:
        return
    try:
        done, keys = asyncio.run(_restore(options, manifest, bar))
    except KeyboardInterrupt:
        raise CommandError(f"interrupted. {_ADVICE}", status=EXIT_INTERRUPTED) from None
    _print_result(options, manifest, done, keys, time.monotonic() - began)


async def _restore(
    options: RestoreOptions, manifest: Manifest, bar: ProgressBar
) -> tuple[Reconciled, RestoredKeys | None]:
    from opstream.backup.restore import Restorer, RestoreSettings
    from opstream.cli.admin_acts import record_act
    from opstream.cli.broker_session import broker_session
    from opstream.cli.cluster_size import known_servers, too_few_servers
    from opstream_journal.provisioning.provision import check_provisioned

    settings = RestoreSettings(
        folder=options.folder,
        replicas=options.replicas,
        is_replacing=options.is_replacing,
        is_revoking_keys=options.is_revoking_keys,
        erased=options.erased,
    )
    session = broker_session(
        options.servers, "restore", options.connect_timeout, credentials=options.credentials, advice=_ADVICE
    )
    async with session as connection:
        restorer = Restorer(connection, settings, manifest, bar)
        if restorer.replicas > 1 and not known_servers(connection):
            raise CommandError(too_few_servers(restorer.replicas, 0, ""))
        done = await restorer.run()
    session = broker_session(
        options.servers,
        "restore",
        options.connect_timeout,
        credentials=options.credentials,
        advice="The backup is restored, and this remains to be done",
    )
    async with session as connection:
        await check_provisioned(connection)
        await record_act(
            connection, AdminAct.RESTORED, detail=f"a backup that ended at {manifest.ended_at.isoformat()}"
        )
        if options.keys:
            await _verify_chain(connection, options)
    return done, restorer.keys


async def _verify_chain(connection: Connection, options: RestoreOptions) -> None:
    from opstream.history.chain_verifier import ChainVerifier, ChainVerifierSettings

    settings = ChainVerifierSettings(
        is_archive=False,
        checkpoint=options.folder / CHECKPOINTS,
        sign=None,
        keys=options.keys,
        is_quick=False,
        is_accepting=False,
    )
    await ChainVerifier(settings).run(connection)


def _checked(folder: Path, manifest: Manifest, total: int) -> str:
    streams, size = format_count(len(manifest.streams), "stream"), total / _MEBIBYTE
    return (
        f"{folder} is whole: {streams}, {size:,.1f} MiB, made by opstream {manifest.opstream_version} on nats-server "
        f"{manifest.server_version}, from {manifest.began_at:%Y-%m-%d %H:%M:%S} to {manifest.ended_at:%H:%M:%S} UTC"
    )


def _print_result(
    options: RestoreOptions, manifest: Manifest, done: Reconciled, keys: RestoredKeys | None, seconds: float
) -> None:
    from opstream.backup.restore import next_steps
    from opstream.cli.view_session import print_setback

    operations, opened = (
        format_count(done.operations, "operation"),
        format_count(done.opened, "of them is open", "of them are open"),
    )
    click.echo(
        f"restored in {seconds:.1f} s: {operations}, {opened}; {format_count(done.rewritten, 'entry', 'entries')} of "
        f"the view put right, {format_count(done.locks, 'lock')} given back",
        err=True,
    )
    click.echo(
        "what was recorded after the backup is gone, and what clients were told of it is not true any more:", err=True
    )
    for line in next_steps(manifest, has_key=bool(options.keys), keys=keys):
        click.echo(f"  {line}", err=True)
    if done.evidence.is_setback:
        print_setback(done.evidence)
        raise CommandError("the journal of the backup had lost events already, see above", status=EXIT_SETBACK)
