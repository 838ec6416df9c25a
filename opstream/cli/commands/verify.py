"""`opstream verify`: compares the view with the journal, or checks the hash chains of the journal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import msgspec
import uvloop

from opstream.cli import view_session as sweeps
from opstream.cli.options import common as options
from opstream.cli.options import history as replay_options
from opstream.cli.options.option import PathType, option
from opstream.history.chain_verifier import VerifyChainSettings, verify_chain
from opstream.terminal.console import EXIT_INTERRUPTED, CommandError, printable
from opstream.terminal.progress_bar import ProgressBar
from opstream_journal import JournalError, NotProvisioned
from opstream_projector.consistency.entry_check import EntryDifference, EntryReader
from opstream_projector.consistency.journal_fold import JournalFold
from opstream_projector.consistency.verify import GRACE
from opstream_projector.consistency.verify import ViewVerifier as Judge
from opstream_projector.consistency.view_scan import ViewScan
from opstream_schemas.text import format_count

_FILE: Final = PathType(path_type=Path, dir_okay=False)
_PROJECTOR_HINT: Final = "is a projector running?"
_LAG_INTERVAL: Final = 5.0
"""Seconds between two lines about its lag."""


class VerifySettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream verify`, the view's part of it."""

    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""
    grace: float = GRACE
    """Seconds for which a projector may be behind."""


@click.command(short_help="Check the journal: against the view, or its hash chains.")
@option("--chain", "is_chain", variable="CHAIN", is_flag=True, help="Check the hash chain of every operation instead.")
@replay_options.archive_option
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
    help="A public key (PEM) that checkpoints may be signed with; repeat it for older ones. The one that belongs to "
    "--sign need not be named.",
)
@option(
    "--from-checkpoint",
    "is_quick",
    variable="FROM_CHECKPOINT",
    is_flag=True,
    help="Begin behind the last checkpoint instead of at the beginning.",
)
@option(
    "--accept-findings",
    "is_accepting",
    variable="ACCEPT_FINDINGS",
    is_flag=True,
    help="Sign although the chains show findings; the checkpoint says how many.",
)
@options.nats_option
@options.connect_timeout_option
def verify(
    *,
    is_chain: bool,
    is_archive: bool,
    checkpoint: Path | None,
    sign: Path | None,
    keys: tuple[Path, ...],
    is_quick: bool,
    is_accepting: bool,
    servers: tuple[str, ...],
    connect_timeout: float,
) -> None:
    """Fold the whole journal and compare it with the view; or, with --chain, check that nobody has tampered with it.

    Each difference or finding is one line on stdout; the exit status is 0 if there is none, otherwise 1. Nothing is
    changed. docs/audit.md says what the chain and checkpoints prove, and what they don't.

    \b
    Example:
      opstream keygen journal.key > journal.pub
      opstream verify --chain --checkpoint journal.checkpoints --sign journal.key
      opstream verify --chain --checkpoint journal.checkpoints --key journal.pub
    """
    if not is_chain:
        if is_archive or checkpoint or sign or keys or is_quick or is_accepting:
            raise click.UsageError("--from-archive and all about checkpoints need --chain: add it")
        verify_view(VerifySettings(servers=servers, connect_timeout=connect_timeout))
        return
    if checkpoint is None and (sign or keys or is_quick):
        raise click.UsageError("--sign, --key and --from-checkpoint need --checkpoint FILE: name the file")
    if checkpoint is not None and not (sign or keys):
        raise click.UsageError("a checkpoint needs a key: --key PUBLIC to compare with it, --sign PRIVATE to add one")
    if is_accepting and sign is None:
        raise click.UsageError("--accept-findings is about signing: add --sign FILE")
    verify_chain(
        VerifyChainSettings(
            servers=servers,
            connect_timeout=connect_timeout,
            is_archive=is_archive,
            checkpoint=checkpoint,
            sign=sign,
            keys=keys,
            is_quick=is_quick,
            is_accepting=is_accepting,
        )
    )


def verify_view(settings: VerifySettings) -> None:
    """Compare the view with the journal, and print each difference on stdout.

    Raises:
        SystemExit: with status 1, if there is a difference.
        Failure: it came to no end.
    """
    try:
        differences = uvloop.run(_verify(settings))
    except NotProvisioned as error:
        raise CommandError(str(error)) from error
    except JournalError as error:
        raise CommandError(f"{error}. Nothing was changed: run it again") from error
    except KeyboardInterrupt:
        raise CommandError("interrupted: not everything was compared", status=EXIT_INTERRUPTED) from None
    if differences:
        sys.exit(1)


async def _verify(settings: VerifySettings) -> int:
    began = time.monotonic()
    tally = ProgressBar(sys.stderr, time.monotonic)
    async with sweeps.view_session(settings.servers, "opstream-verify", settings.connect_timeout) as (
        link,
        journal,
        found,
    ):
        judge = Judge(
            EntryReader(link, journal, found),
            report=lambda difference: _print_difference(tally, difference),
            report_lag=_LagReporter(tally, time.monotonic),
            now=sweeps.utc_now,
            grace=settings.grace,
        )
        sweep = ViewScan(link, found, JournalFold(), tally)
        await sweep.run(judge)
    sweeps.print_skipped(sweep.journal_fold, judge.unfoldable)
    seconds, walk = time.monotonic() - began, sweep.journal_fold
    rate = walk.events / seconds
    click.echo(
        f"{format_count(walk.events, 'event')} of {format_count(walk.operations, 'operation')} read in {seconds:.1f} s "
        f"({rate:,.0f} events/s): "
        f"{_conclusion(judge)}",
        err=True,
    )
    return judge.differences


class _LagReporter:
    """Tells that the projector is behind, but not all the time.

    Args:
        tally: where to.
        clock: monotonic seconds.
    """

    def __init__(self, tally: ProgressBar, clock: Callable[[], float]) -> None:
        self._tally = tally
        self._clock = clock
        self._last_printed = -_LAG_INTERVAL

    def __call__(self, count: int) -> None:
        now = self._clock()
        if now - self._last_printed >= _LAG_INTERVAL:
            self._last_printed = now
            self._tally.print_line(f"{count:,} operations are not up to date: {_PROJECTOR_HINT}")


def _conclusion(judge: Judge) -> str:
    if not judge.differences:
        return "the view is the fold of the journal"
    found = format_count(judge.differences, "difference")
    if judge.lagging == judge.differences:
        return f"{found}, all of them because the view is not up to date: {_PROJECTOR_HINT}"
    behind = f", {judge.lagging:,} of them because the view is not up to date" if judge.lagging else ""
    return f"{found}{behind}: 'opstream rebuild' puts the view right"


def _print_difference(tally: ProgressBar, difference: EntryDifference) -> None:
    tally.clear()
    click.echo(printable(str(difference)))
