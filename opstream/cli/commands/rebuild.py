"""What `opstream rebuild` does: brings the view in line with the journal, in place. Called by `rebuild_command`."""

from __future__ import annotations

import sys
import time

import click
import msgspec
import uvloop

from opstream.terminal.console import INTERRUPTED, Failure
from opstream.terminal.progress_bar import Tally
from opstream_journal import JournalError, NotProvisioned, View
from opstream_projector.consistency.entry_check import Looker
from opstream_projector.consistency.journal_fold import Walk
from opstream_projector.consistency.rebuild import Rebuild as Judge
from opstream_projector.consistency.rebuild import Summary
from opstream_projector.consistency.view_scan import Sweep

from . import view_session as sweeps


class Rebuild(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream rebuild`."""

    servers: tuple[str, ...]
    is_json: bool
    connect_timeout: float
    """Seconds."""


def rebuild(settings: Rebuild) -> None:
    """Rebuild, and print what was done.

    Raises:
        Failure: it came to no end; what was written until then is right, and it may simply be begun anew.
    """
    try:
        summary = uvloop.run(_rebuild(settings))
    except NotProvisioned as error:
        raise Failure(str(error)) from error
    except JournalError as error:
        raise Failure(f"{error}. What was rewritten so far is right: run it again") from error
    except KeyboardInterrupt:
        raise Failure("interrupted. What was rewritten so far is right: run it again", status=INTERRUPTED) from None
    click.echo(msgspec.json.encode(summary) if settings.is_json else str(summary))


async def _rebuild(settings: Rebuild) -> Summary:
    began = time.monotonic()
    async with sweeps.opened(settings.servers, "opstream-rebuild", settings.connect_timeout) as (link, journal, found):
        judge = Judge(View(link), Looker(link, journal, found), now=sweeps.utc_now)
        sweep = Sweep(link, found, Walk(), Tally(sys.stderr, time.monotonic))
        await sweep.run(judge)
    sweeps.report(sweep.walk, judge.unfoldable)
    sweeps.tell_operations(judge.unstorable, "operations don't fit into the view, the API reads them from the journal")
    return Summary(
        events=sweep.walk.events,
        operations=sweep.walk.operations,
        rewritten=judge.rewritten,
        missing=judge.missing,
        removed=judge.removed,
        seconds=time.monotonic() - began,
    )
