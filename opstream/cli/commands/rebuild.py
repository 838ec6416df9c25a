"""`opstream rebuild`: brings the view in line with the journal, in place."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
import uvloop

from opstream.cli.options import common as common_options
from opstream.cli.options.option import PathType, option
from opstream.terminal import logs
from opstream.terminal.console import EXIT_INTERRUPTED, EXIT_SETBACK, CommandError
from opstream.terminal.progress_bar import ProgressBar
from opstream_schemas.text import format_count
from opstream_schemas.urls import NO_CREDENTIALS, BrokerCredentials

if TYPE_CHECKING:
    from opstream_projector.consistency.rebuild import RebuildSummary

_ADVICE: Final = "What was rewritten so far is right: run it again"
_RESTART: Final = (
    "restart the APIs whose /readyz does not show JournalSetback: they may still have in memory what was removed"
)


class RebuildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `opstream rebuild`."""

    servers: tuple[str, ...]
    credentials: BrokerCredentials = NO_CREDENTIALS
    is_json: bool
    connect_timeout: float
    """Seconds."""
    is_forced: bool = False
    """Replace also what only the view has, after it was exported."""
    export: Path | None = None
    """The file for what only the view has; None for a default name if `is_forced`, otherwise for no file."""


@click.command
@common_options.nats_option
@option("--json", "is_json", variable="JSON", is_flag=True, help="Print the summary as JSON.")
@option(
    "--force",
    "is_forced",
    variable="FORCE",
    is_flag=True,
    help="Although the journal has lost events: export the entries that know more, then replace or remove them.",
)
@option(
    "--export",
    variable="EXPORT",
    type=PathType(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the entries that know more than the journal to this new file, as JSON lines. With --force the default "
    "is lost-entries-TIME.jsonl in the working directory.",
)
@common_options.connect_timeout_option
@common_options.log_level_option
def rebuild(log_level: str, **given: Any) -> None:  # noqa: ANN401 - the options above, named as the settings are
    """Fold the whole journal, and rewrite every entry of the view that differs, in place.

    All services may run meanwhile: statuses stay right, and newer entries of a projector are not overwritten. Run it
    after the view was lost or damaged, as often as you like; if it is stopped, run it again. Progress goes to stderr, a
    summary of one line to stdout. The exit status is 0 if every operation that can be folded is in the view, and 3 if
    the journal has lost events: then entries that know more than it stay as they are, unless you give --force.

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
        summary, is_saved = uvloop.run(_rebuild(settings))
    except KeyboardInterrupt:
        raise CommandError(f"interrupted. {_ADVICE}", status=EXIT_INTERRUPTED) from None
    click.echo(msgspec.json.encode(summary) if settings.is_json else str(summary))
    if summary.kept and not is_saved:
        kept = format_count(summary.kept, "entry", "entries")
        raise CommandError(
            f"the journal has lost events, see above; {kept} of the view with what it has lost stay as they are",
            status=EXIT_SETBACK,
        )


async def _rebuild(settings: RebuildSettings) -> tuple[RebuildSummary, bool]:
    """Rebuild. Return the summary, and whether a forced one has saved all that stays and is contradicted by nothing."""
    from opstream.cli.lost_entries_file import LostEntriesFile
    from opstream.cli.view_session import print_operations, print_setback, print_skipped, utc_now, view_session
    from opstream_journal import SnapshotStore
    from opstream_journal.stores.sequence_skip import skip_archived_sequences
    from opstream_projector.consistency.entry_check import EntryReader
    from opstream_projector.consistency.journal_fold import JournalFold
    from opstream_projector.consistency.rebuild import LostEntry, RebuildSummary, ViewRebuilder
    from opstream_projector.consistency.view_scan import ViewScan

    began = time.monotonic()
    path = settings.export or Path(f"lost-entries-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl")
    is_exporting = settings.is_forced or settings.export is not None
    session = view_session(
        settings.servers, "rebuild", settings.connect_timeout, credentials=settings.credentials, advice=_ADVICE
    )
    with LostEntriesFile(path) as exported:
        if is_exporting:
            exported.check()

        def keep(entry: LostEntry) -> None:
            if is_exporting:
                exported.add(entry)

        async with session as (connection, journal, snapshots):
            reader = EntryReader(connection, journal, snapshots, now=utc_now)
            rebuilder = ViewRebuilder(SnapshotStore(connection), reader, now=utc_now, keep=keep)
            scan = ViewScan(connection, snapshots, JournalFold(), ProgressBar(sys.stderr, time.monotonic))
            await scan.run(rebuilder)
            exported.finish()
            if exported.count:
                entries = format_count(exported.count, "entry", "entries")
                click.echo(f"{entries} with what the journal has lost: {path.absolute()}", err=True)
            elif is_exporting:
                click.echo("the view has nothing that the journal has lost: no file was written", err=True)
            if settings.is_forced:
                await rebuilder.discard(exported.entries(), scan)
                if exported.count > rebuilder.kept:
                    click.echo(_RESTART, err=True)
                if skipped := await skip_archived_sequences(connection):
                    what = format_count(skipped, "sequence")
                    click.echo(
                        f"{what} skipped, up to which the archive has copied; it copies all later ones", err=True
                    )
    print_skipped(scan.journal_fold, rebuilder.unfoldable)
    print_operations(rebuilder.unstorable, "operations don't fit into the view, the API reads them from the journal")
    is_saved = settings.is_forced and rebuilder.kept == scan.evidence.entry_count - scan.evidence.contradicted
    if is_saved and rebuilder.kept:
        entries = format_count(rebuilder.kept, "of these entries stays", "of these entries stay")
        click.echo(
            f"{entries} in the view, since the journal does not contradict them: clients read them until their "
            "retention ends. 'opstream verify' counts them until then, and nothing more is to be done",
            err=True,
        )
    if not is_saved:
        print_setback(scan.evidence, is_exported=exported.count > 0)
    summary = RebuildSummary(
        events=scan.journal_fold.events,
        operations=scan.journal_fold.operations,
        rewritten=rebuilder.rewritten,
        missing=rebuilder.missing,
        removed=rebuilder.removed,
        kept=rebuilder.kept,
        seconds=time.monotonic() - began,
    )
    return summary, is_saved
