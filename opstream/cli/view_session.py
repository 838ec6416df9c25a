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
from opstream_journal import Connection, Journal, NotProvisioned, connect, retry_until_ready
from opstream_journal.provisioning.provision import current_sizing
from opstream_journal.stores.snapshots import RawSnapshots
from opstream_projector.consistency.journal_fold import JournalFold, SkippedMessages
from opstream_projector.consistency.view_scan import OperationExamples

_NO_JOURNAL: Final = "the broker has no journal: is it the right one? 'opstream provision' makes it"


@asynccontextmanager
async def view_session(
    servers: Sequence[str], name: str, connect_timeout: float
) -> AsyncIterator[tuple[Connection, Journal, RawSnapshots]]:
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
        if await retry_until_ready(link, lambda: current_sizing(link), connect_timeout) is None:
            raise NotProvisioned(_NO_JOURNAL)
        journal = Journal(link, max_msg_size=-1, clock=time.monotonic)
        await journal.start()
        snapshots = RawSnapshots(link)
        await snapshots.start()
        yield link, journal, snapshots
        await snapshots.stop()
    finally:
        await link.close()


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def print_skipped(walk: JournalFold, unfoldable: OperationExamples) -> None:
    """Tell on stderr what was passed over, and which operations could not be folded whole."""
    _print_messages(walk.invalid, "messages are no events of the operation under whose subject they lie")
    _print_messages(walk.unknown, "events are of types that this version does not know, and were passed over")
    if walk.unknown.count:
        _print("  what decides on these operations waits for a version that knows them: update opstream")
    print_operations(
        unfoldable,
        "operations can't be folded whole; what can be read of them counts. End each that is open with "
        "'opstream fail ID --force'",
    )


def print_operations(named: OperationExamples, what: str) -> None:
    """Tell of operations, if there are any."""
    if named.count:
        _print(f"{named.count:,} {what}:")
        for operation_id, why in named.examples.items():
            _print(f"  {operation_id}: {printable(why)}")
        _print_remaining(named.count - len(named.examples))


def _print_messages(oddities: SkippedMessages, what: str) -> None:
    if oddities.count:
        _print(f"{oddities.count:,} {what}:")
        for example in oddities.examples:
            _print(f"  {printable(example)}")
        _print_remaining(oddities.count - len(oddities.examples))


def _print_remaining(count: int) -> None:
    if count:
        _print(f"  and {count:,} more")


def _print(text: str) -> None:
    click.echo(text, err=True)
