"""`opstream verify`: compares the view with the journal, or with --chain verifies the hash chains of a stream."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec
import uvloop

from opstream.cli.options import common as common_options
from opstream.cli.options import history as history_options
from opstream.cli.options.option import PathType, option
from opstream.terminal.console import EXIT_INTERRUPTED, EXIT_SETBACK, CommandError, printable
from opstream.terminal.progress_bar import ProgressBar
from opstream_schemas.text import format_count
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream.history.chain_verifier import ChainVerifier, ChainVerifierSettings
    from opstream_projector.consistency.entry_check import EntryDifference
    from opstream_projector.consistency.verify import ViewVerifier

_FILE: Final = PathType(path_type=Path, dir_okay=False)
_PROJECTOR_HINT: Final = "is a projector running?"
_LAG_INTERVAL: Final = 5.0
"""Seconds between two lines about the lag of the projector."""


class VerifySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream verify` without --chain."""

    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    connect_timeout: float
    """Seconds."""
    grace: float | None = None
    """Seconds by which a projector may be behind; None for `GRACE` of the projector's verify."""


@click.command
@option("--chain", "is_chain", variable="CHAIN", is_flag=True, help="Check the hash chain of every operation instead.")
@history_options.archive_option
@option(
    "--checkpoint",
    variable="CHECKPOINT",
    type=_FILE,
    metavar="FILE",
    help="With --chain: compare everything with the signed checkpoints in FILE, e.g. --checkpoint journal.checkpoints.",
)
@option(
    "--sign",
    variable="SIGN",
    type=_FILE,
    metavar="FILE",
    help="Add a checkpoint, signed with the private key in FILE ('opstream keygen' makes one).",
)
@option(
    "--key",
    "keys",
    variable="KEY",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="A public key (PEM) of checkpoints that are trusted; repeat it for older keys. The one of --sign is trusted "
    "without it.",
)
@option(
    "--from-checkpoint",
    "is_quick",
    variable="FROM_CHECKPOINT",
    is_flag=True,
    help="Begin after the last checkpoint instead of at the beginning.",
)
@option(
    "--accept-findings",
    "is_accepting",
    variable="ACCEPT_FINDINGS",
    is_flag=True,
    help="Sign although the chains show findings; the checkpoint says how many.",
)
@option(
    "--accept-beginning",
    "is_beginning_accepted",
    variable="ACCEPT_BEGINNING",
    is_flag=True,
    help="With --chain: take the beginning of the stream for right, although messages before it went early.",
)
@common_options.nats_option
@common_options.connect_timeout_option
def verify(
    *,
    is_chain: bool,
    is_archive: bool,
    checkpoint: Path | None,
    sign: Path | None,
    keys: tuple[Path, ...],
    is_quick: bool,
    is_accepting: bool,
    is_beginning_accepted: bool,
    servers: tuple[str, ...],
    credentials: BrokerCredentials,
    connect_timeout: float,
) -> None:
    """Fold the whole journal and compare it with the view; or, with --chain, check that the journal was not tampered
    with.

    Each difference or finding is one line on stdout; the exit status is 0 if there is none, otherwise 1. It is 3 if the
    journal has lost events, which the view, the archive or a consumer still knows of. Nothing is changed.
    docs/running.md says what to do then, docs/audit.md what the chain and checkpoints prove, and what they don't.

    \b
    Example:
      opstream keygen journal.key > journal.pub
      opstream verify --chain --checkpoint journal.checkpoints --sign journal.key
      opstream verify --chain --checkpoint journal.checkpoints --key journal.pub
    """
    if not is_chain:
        if is_archive or checkpoint or sign or keys or is_quick or is_accepting or is_beginning_accepted:
            raise click.UsageError(
                "--from-archive, --accept-beginning and the options of checkpoints need --chain: add it"
            )
        verify_view(VerifySettings(servers=servers, credentials=credentials, connect_timeout=connect_timeout))
        return
    if checkpoint is None and (sign or keys or is_quick):
        raise click.UsageError("--sign, --key and --from-checkpoint need --checkpoint FILE: name the file")
    if checkpoint is not None and not (sign or keys):
        raise click.UsageError("a checkpoint needs a key: --key PUBLIC to compare with it, --sign PRIVATE to add one")
    if is_accepting and sign is None:
        raise click.UsageError("--accept-findings is about signing: add --sign FILE")
    from opstream.history.chain_verifier import ChainVerifierSettings

    settings = ChainVerifierSettings(
        is_archive=is_archive,
        checkpoint=checkpoint,
        sign=sign,
        keys=keys,
        is_quick=is_quick,
        is_accepting=is_accepting,
        is_beginning_accepted=is_beginning_accepted,
    )
    verify_chain(settings, servers, connect_timeout, credentials)


def verify_chain(
    settings: ChainVerifierSettings,
    servers: Sequence[str],
    connect_timeout: float,
    credentials: BrokerCredentials = NO_CREDENTIALS,
) -> None:
    """Verify the chains of a stream, print the findings, and sign a checkpoint if there is a private key.

    Raises:
        CommandError: there are findings, a file can't be used, or the verification did not finish.
    """
    from opstream.history.chain_verifier import ChainVerifier

    verifier = ChainVerifier(settings)
    try:
        asyncio.run(_verify_chain(verifier, servers, connect_timeout, credentials))
    except KeyboardInterrupt:
        raise CommandError(
            "interrupted before the end; if no checkpoint is listed above, none was made", status=EXIT_INTERRUPTED
        ) from None


async def _verify_chain(
    verifier: ChainVerifier, servers: Sequence[str], connect_timeout: float, credentials: BrokerCredentials
) -> None:
    from opstream.cli.broker_session import broker_session

    async with broker_session(servers, "verify", connect_timeout, credentials=credentials) as connection:
        await verifier.run(connection)


def verify_view(settings: VerifySettings) -> None:
    """Compare the view with the journal, and print each difference on stdout.

    Raises:
        SystemExit: with status 1, there is a difference; with status 3, the journal has lost events.
        CommandError: the comparison did not finish.
    """
    try:
        status = uvloop.run(_verify_view(settings))
    except KeyboardInterrupt:
        raise CommandError("interrupted: not everything was compared", status=EXIT_INTERRUPTED) from None
    if status:
        sys.exit(status)


async def _verify_view(settings: VerifySettings) -> int:
    """Compare, print, and return the exit status."""
    from opstream.cli.view_session import print_cut_streams, print_setback, print_skipped, utc_now, view_session
    from opstream_journal.stores.journal_witnesses import cut_streams
    from opstream_projector.consistency.entry_check import EntryReader
    from opstream_projector.consistency.journal_fold import JournalFold
    from opstream_projector.consistency.verify import GRACE, ViewVerifier
    from opstream_projector.consistency.view_scan import ViewScan

    began = time.monotonic()
    bar = ProgressBar(sys.stderr, time.monotonic)
    advice = "Nothing was changed: run it again"
    session = view_session(
        settings.servers, "verify", settings.connect_timeout, credentials=settings.credentials, advice=advice
    )
    async with session as (connection, journal, snapshots):
        verifier = ViewVerifier(
            EntryReader(connection, journal, snapshots, now=utc_now),
            report=lambda difference: _print_difference(bar, difference),
            report_lag=_LagReporter(bar, time.monotonic),
            now=utc_now,
            grace=GRACE if settings.grace is None else settings.grace,
        )
        scan = ViewScan(connection, snapshots, JournalFold(), bar)
        await scan.run(verifier)
        cut = await cut_streams(connection)
    fold = scan.journal_fold
    print_skipped(fold, verifier.unfoldable)
    seconds = time.monotonic() - began
    events, operations = format_count(fold.events, "event"), format_count(fold.operations, "operation")
    rate = f"{fold.events / seconds:,.0f} events/s"
    print_cut_streams(cut)
    print_setback(scan.evidence)
    conclusion = _conclusion(verifier, is_setback=scan.evidence.is_setback)
    click.echo(f"{events} of {operations} read in {seconds:.1f} s ({rate}): {conclusion}", err=True)
    return EXIT_SETBACK if scan.evidence.is_setback else int(verifier.differences > 0)


class _LagReporter:
    """Prints that the projector is behind, at most once in `_LAG_INTERVAL`.

    Args:
        bar: prints the line.
        clock: monotonic seconds.
    """

    def __init__(self, bar: ProgressBar, clock: Callable[[], float]) -> None:
        self._bar = bar
        self._clock = clock
        self._last_printed = -_LAG_INTERVAL

    def __call__(self, count: int) -> None:
        now = self._clock()
        if now - self._last_printed >= _LAG_INTERVAL:
            self._last_printed = now
            self._bar.print_line(f"{count:,} operations are not up to date: {_PROJECTOR_HINT}")


def _conclusion(verifier: ViewVerifier, *, is_setback: bool) -> str:
    older = ""
    if verifier.of_other_version:
        entries = format_count(verifier.of_other_version, "entry", "entries")
        older = f", {entries} of it written by another version of opstream"
    if is_setback:
        return f"the journal has lost events, see above; {format_count(verifier.differences, 'difference')}{older}"
    if not verifier.differences:
        return f"the view is the fold of the journal{older}"
    differences = format_count(verifier.differences, "difference")
    if verifier.lagging == verifier.differences:
        return f"{differences}, all of them because the view is not up to date: {_PROJECTOR_HINT}"
    lagging = f", {verifier.lagging:,} of them because the view is not up to date" if verifier.lagging else ""
    return f"{differences}{lagging}: 'opstream rebuild' puts the view right"


def _print_difference(bar: ProgressBar, difference: EntryDifference) -> None:
    bar.clear()
    click.echo(printable(str(difference)))
