"""`opstream rebuild`: brings the view in line with the journal, in place."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import msgspec
import uvloop

from opstream.cli import view_session as sweeps
from opstream.cli.options import common as options
from opstream.cli.options.option import option
from opstream.terminal import logs
from opstream.terminal.console import EXIT_INTERRUPTED, CommandError
from opstream.terminal.progress_bar import ProgressBar
from opstream_journal import JournalError, NotProvisioned, SnapshotStore
from opstream_projector.consistency.entry_check import EntryReader
from opstream_projector.consistency.journal_fold import JournalFold
from opstream_projector.consistency.rebuild import RebuildSummary
from opstream_projector.consistency.rebuild import ViewRebuilder as Judge
from opstream_projector.consistency.view_scan import ViewScan


class RebuildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream rebuild`."""

    servers: tuple[str, ...]
    is_json: bool
    connect_timeout: float
    """Seconds."""


@click.command(short_help="Bring the view in line with the journal.")
@options.nats_option
@option("--json", "is_json", variable="JSON", is_flag=True, help="Print the summary as JSON.")
@options.connect_timeout_option
@options.log_level_option
def rebuild(log_level: str, **given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Fold the whole journal, and rewrite every entry of the view that differs, in place.

    Everything may go on meanwhile: statuses stay right, and nothing that a projector writes is set back. Run it after
    the view was lost or damaged, as often as you like; if it is stopped, run it again. Entries of operations that the
    journal does not know are removed. Progress goes to stderr, one line of summary to stdout. The exit status is 0 if
    all that can be folded is in the view.

    \b
    Example:
      opstream rebuild --nats nats://n1:4222
    """
    logs.configure(log_level)

    rebuild_view(RebuildSettings(**given))


def rebuild_view(settings: RebuildSettings) -> None:
    """Rebuild, and print what was done.

    Raises:
        Failure: it came to no end; what was written until then is right, and it may simply be begun anew.
    """
    try:
        summary = uvloop.run(_rebuild(settings))
    except NotProvisioned as error:
        raise CommandError(str(error)) from error
    except JournalError as error:
        raise CommandError(f"{error}. What was rewritten so far is right: run it again") from error
    except KeyboardInterrupt:
        raise CommandError(
            "interrupted. What was rewritten so far is right: run it again", status=EXIT_INTERRUPTED
        ) from None
    click.echo(msgspec.json.encode(summary) if settings.is_json else str(summary))


async def _rebuild(settings: RebuildSettings) -> RebuildSummary:
    began = time.monotonic()
    async with sweeps.view_session(settings.servers, "opstream-rebuild", settings.connect_timeout) as (
        link,
        journal,
        found,
    ):
        judge = Judge(SnapshotStore(link), EntryReader(link, journal, found), now=sweeps.utc_now)
        sweep = ViewScan(link, found, JournalFold(), ProgressBar(sys.stderr, time.monotonic))
        await sweep.run(judge)
    sweeps.print_skipped(sweep.journal_fold, judge.unfoldable)
    sweeps.print_operations(judge.unstorable, "operations don't fit into the view, the API reads them from the journal")
    return RebuildSummary(
        events=sweep.journal_fold.events,
        operations=sweep.journal_fold.operations,
        rewritten=judge.rewritten,
        missing=judge.missing,
        removed=judge.removed,
        seconds=time.monotonic() - began,
    )
