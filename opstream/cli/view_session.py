"""What `opstream rebuild` and `opstream verify` share: the way to the broker, and what is said at the end.

Callers: `rebuilding`, `verifying`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import click

from opstream.terminal.console import printable
from opstream_journal import Journal, Link, NotProvisioned, connect, insist
from opstream_journal.provisioning.provision import current_sizing
from opstream_journal.stores.snapshots import Snapshots
from opstream_projector.consistency.journal_fold import Oddities, Walk
from opstream_projector.consistency.view_scan import Named

_NO_JOURNAL: Final = "the broker has no journal: is it the right one? 'opstream provision' makes it"


@asynccontextmanager
async def opened(
    servers: Sequence[str], name: str, connect_timeout: float
) -> AsyncIterator[tuple[Link, Journal, Snapshots]]:
    """The broker, for one sweep.

    Args:
        servers: URLs of the broker.
        name: of the connection.
        connect_timeout: seconds.

    Raises:
        JournalError: it can't be reached, or has no journal.
    """
    link = await connect(servers, name, connect_timeout=connect_timeout)
    try:
        if await insist(link, lambda: current_sizing(link), connect_timeout) is None:
            raise NotProvisioned(_NO_JOURNAL)
        journal = Journal(link, max_msg_size=-1, clock=time.monotonic)
        await journal.start()
        snapshots = Snapshots(link)
        await snapshots.start()
        yield link, journal, snapshots
        await snapshots.stop()
    finally:
        await link.close()


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def report(walk: Walk, unfoldable: Named) -> None:
    """Tell on stderr what was passed over, and which operations could not be folded whole."""
    _tell_messages(walk.odd, "messages are no events of the operation under whose subject they lie")
    _tell_messages(walk.unknown, "events are of types that this version does not know, and were passed over")
    if walk.unknown.count:
        _say("  what decides on these operations waits for a version that knows them: update opstream")
    tell_operations(
        unfoldable,
        "operations can't be folded whole; what can be read of them counts. End each that is open with "
        "'opstream fail ID --force'",
    )


def tell_operations(named: Named, what: str) -> None:
    """Tell of operations, if there are any."""
    if named.count:
        _say(f"{named.count:,} {what}:")
        for operation_id, why in named.first.items():
            _say(f"  {operation_id}: {printable(why)}")
        _tell_rest(named.count - len(named.first))


def _tell_messages(oddities: Oddities, what: str) -> None:
    if oddities.count:
        _say(f"{oddities.count:,} {what}:")
        for example in oddities.examples:
            _say(f"  {printable(example)}")
        _tell_rest(oddities.count - len(oddities.examples))


def _tell_rest(count: int) -> None:
    if count:
        _say(f"  and {count:,} more")


def _say(text: str) -> None:
    click.echo(text, err=True)
