"""What `opstream verify` does with the view: compares it with the journal. Called by `verify_command`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

import click
import msgspec
import uvloop

from opstream.terminal.console import INTERRUPTED, Failure, printable
from opstream.terminal.progress_bar import Tally
from opstream_journal import JournalError, NotProvisioned
from opstream_projector.consistency.entry_check import Difference, Looker
from opstream_projector.consistency.journal_fold import Walk
from opstream_projector.consistency.verify import GRACE
from opstream_projector.consistency.verify import Verify as Judge
from opstream_projector.consistency.view_scan import Sweep
from opstream_schemas.text import counted

from . import view_session as sweeps

_QUESTION: Final = "is a projector running?"
_QUIET: Final = 5.0
"""Seconds between two lines about its lag."""


class Verify(msgspec.Struct, frozen=True, kw_only=True):
    """`opstream verify`, the view's part of it."""

    servers: tuple[str, ...]
    connect_timeout: float
    """Seconds."""
    grace: float = GRACE
    """Seconds for which a projector may be behind."""


def verify(settings: Verify) -> None:
    """Compare the view with the journal, and print each difference on stdout.

    Raises:
        SystemExit: with status 1, if there is a difference.
        Failure: it came to no end.
    """
    try:
        differences = uvloop.run(_verify(settings))
    except NotProvisioned as error:
        raise Failure(str(error)) from error
    except JournalError as error:
        raise Failure(f"{error}. Nothing was changed: run it again") from error
    except KeyboardInterrupt:
        raise Failure("interrupted: not everything was compared", status=INTERRUPTED) from None
    if differences:
        sys.exit(1)


async def _verify(settings: Verify) -> int:
    began = time.monotonic()
    tally = Tally(sys.stderr, time.monotonic)
    async with sweeps.opened(settings.servers, "opstream-verify", settings.connect_timeout) as (link, journal, found):
        judge = Judge(
            Looker(link, journal, found),
            tell=lambda difference: _tell(tally, difference),
            tell_lag=_Lag(tally, time.monotonic),
            now=sweeps.utc_now,
            grace=settings.grace,
        )
        sweep = Sweep(link, found, Walk(), tally)
        await sweep.run(judge)
    sweeps.report(sweep.walk, judge.unfoldable)
    seconds, walk = time.monotonic() - began, sweep.walk
    rate = walk.events / seconds
    click.echo(
        f"{counted(walk.events, 'event')} of {counted(walk.operations, 'operation')} read in {seconds:.1f} s "
        f"({rate:,.0f} events/s): "
        f"{_verdict(judge)}",
        err=True,
    )
    return judge.differences


class _Lag:
    """Tells that the projector is behind, but not all the time.

    Args:
        tally: where to.
        clock: monotonic seconds.
    """

    def __init__(self, tally: Tally, clock: Callable[[], float]) -> None:
        self._tally = tally
        self._clock = clock
        self._told = -_QUIET

    def __call__(self, count: int) -> None:
        now = self._clock()
        if now - self._told >= _QUIET:
            self._told = now
            self._tally.say(f"{count:,} operations are not up to date: {_QUESTION}")


def _verdict(judge: Judge) -> str:
    if not judge.differences:
        return "the view is the fold of the journal"
    found = counted(judge.differences, "difference")
    if judge.behind == judge.differences:
        return f"{found}, all of them because the view is not up to date: {_QUESTION}"
    behind = f", {judge.behind:,} of them because the view is not up to date" if judge.behind else ""
    return f"{found}{behind}: 'opstream rebuild' puts the view right"


def _tell(tally: Tally, difference: Difference) -> None:
    tally.clear()
    click.echo(printable(str(difference)))
