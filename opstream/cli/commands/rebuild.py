"""`opstream rebuild`: brings the view in line with the journal, in place."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
import uvloop

from opstream.cli.options import common as common_options
from opstream.cli.options.option import option
from opstream.terminal import logs
from opstream.terminal.console import EXIT_INTERRUPTED, CommandError
from opstream.terminal.progress_bar import ProgressBar

if TYPE_CHECKING:
    from opstream_projector.consistency.rebuild import RebuildSummary

_ADVICE: Final = "What was rewritten so far is right: run it again"


class RebuildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream rebuild`."""

    servers: tuple[str, ...]
    is_json: bool
    connect_timeout: float
    """Seconds."""


@click.command
@common_options.nats_option
@option("--json", "is_json", variable="JSON", is_flag=True, help="Print the summary as JSON.")
@common_options.connect_timeout_option
@common_options.log_level_option
def rebuild(log_level: str, **given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Fold the whole journal, and rewrite every entry of the view that differs, in place.

    All services may run meanwhile: statuses stay right, and newer entries of a projector are not overwritten. Run it
    after the view was lost or damaged, as often as you like; if it is stopped, run it again. Entries of operations that
    the journal does not know are removed. Progress goes to stderr, a summary of one line to stdout. The exit status is
    0 if every operation that can be folded is in the view.

    \b
    Example:
      opstream rebuild --nats nats://n1:4222
    """
    logs.configure(log_level)
    rebuild_view(RebuildSettings(**given))


def rebuild_view(settings: RebuildSettings) -> None:
    """Rebuild the view, and print what was done.

    Raises:
        CommandError: it did not finish; what was rewritten until then is right, and it can be run again.
    """
    try:
        summary = uvloop.run(_rebuild(settings))
    except KeyboardInterrupt:
        raise CommandError(f"interrupted. {_ADVICE}", status=EXIT_INTERRUPTED) from None
    click.echo(msgspec.json.encode(summary) if settings.is_json else str(summary))


async def _rebuild(settings: RebuildSettings) -> RebuildSummary:
    from opstream.cli.view_session import print_operations, print_skipped, utc_now, view_session
    from opstream_journal import SnapshotStore
    from opstream_projector.consistency.entry_check import EntryReader
    from opstream_projector.consistency.journal_fold import JournalFold
    from opstream_projector.consistency.rebuild import RebuildSummary, ViewRebuilder
    from opstream_projector.consistency.view_scan import ViewScan

    began = time.monotonic()
    session = view_session(settings.servers, "rebuild", settings.connect_timeout, advice=_ADVICE)
    async with session as (connection, journal, snapshots):
        reader = EntryReader(connection, journal, snapshots)
        rebuilder = ViewRebuilder(SnapshotStore(connection), reader, now=utc_now)
        scan = ViewScan(connection, snapshots, JournalFold(), ProgressBar(sys.stderr, time.monotonic))
        await scan.run(rebuilder)
    print_skipped(scan.journal_fold, rebuilder.unfoldable)
    print_operations(rebuilder.unstorable, "operations don't fit into the view, the API reads them from the journal")
    return RebuildSummary(
        events=scan.journal_fold.events,
        operations=scan.journal_fold.operations,
        rewritten=rebuilder.rewritten,
        missing=rebuilder.missing,
        removed=rebuilder.removed,
        seconds=time.monotonic() - began,
    )
