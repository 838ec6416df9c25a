"""What `opstream rebuild` and `opstream verify` share: the broker with journal and view, and the report at the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import click

from opstream.terminal.console import printable
from opstream_journal import Connection, Journal, NotProvisioned, retry_until_ready
from opstream_journal.provisioning.provision import current_sizing
from opstream_journal.stores.journal_witnesses import CONSEQUENCES
from opstream_journal.stores.snapshots import RawSnapshots
from opstream_projector.consistency.journal_fold import JournalFold, SkippedMessages
from opstream_projector.consistency.view_scan import OperationExamples
from opstream_schemas.integrity.setback import SetbackEvidence
from opstream_schemas.text import format_count
from opstream_schemas.urls import BrokerCredentials

from .broker_session import NO_JOURNAL, broker_session

_SAVE_STEP: Final = (
    "'opstream rebuild --export FILE' now, while the broker runs: it saves what only the view has, which a restored "
    "backup replaces, too"
)
_RESTORE_STEP: Final = (
    "stop the broker, and copy its store folder before it is started again; restore the journal from a backup, or let "
    "a damaged replica be copied again (docs/running.md, When the journal has lost events)"
)


@asynccontextmanager
async def view_session(
    servers: Sequence[str], command: str, connect_timeout: float, *, credentials: BrokerCredentials, advice: str
) -> AsyncIterator[tuple[Connection, Journal, RawSnapshots]]:
    """Connect to the broker, and start what reads the journal and the view.

    Args:
        servers, command, connect_timeout, credentials, advice: as for `broker_session`.

    Raises:
        CommandError: as `broker_session`; also if the broker has no journal.
    """
    async with broker_session(servers, command, connect_timeout, credentials=credentials, advice=advice) as connection:
        if await retry_until_ready(connection, lambda: current_sizing(connection), connect_timeout) is None:
            raise NotProvisioned(NO_JOURNAL)
        journal = Journal(connection, max_msg_size=-1, clock=time.monotonic)
        await journal.start()
        snapshots = RawSnapshots(connection)
        await snapshots.start()
        yield connection, journal, snapshots
        await snapshots.stop()


def utc_now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


def print_skipped(journal_fold: JournalFold, unfoldable: OperationExamples) -> None:
    """Print on stderr which messages were skipped, and which operations could not be folded completely."""
    _print_messages(journal_fold.invalid, "messages are not events of the operation that their subject names")
    _print_messages(journal_fold.unknown, "events have types that this version does not know, and were skipped")
    if journal_fold.unknown.count:
        _print("  what decides on these operations waits for a version that knows them: update opstream")
    print_operations(
        unfoldable,
        "operations can't be folded completely; what can be read of them counts. End each that is open with "
        "'opstream fail ID --force'",
    )


def print_operations(operations: OperationExamples, what: str) -> None:
    """Print on stderr how many operations there are, if any, and examples with the reason of each."""
    if operations.count:
        _print(f"{operations.count:,} {what}:")
        for operation_id, reason in operations.examples.items():
            _print(f"  {operation_id}: {printable(reason)}")
        _print_remaining(operations.count - len(operations.examples))


def print_setback(evidence: SetbackEvidence, *, is_exported: bool = False) -> None:
    """Print on stderr what proves that the journal has lost events, and what to do; nothing without proof.

    Args:
        evidence: which proves it.
        is_exported: whether what only the view has was just written to a file.
    """
    if not evidence.is_setback:
        return
    _print("the journal has lost events:")
    for line in evidence.lines():
        _print(f"  {printable(line)}")
    _print("next steps:")
    for step in setback_steps(evidence, is_exported=is_exported):
        _print(f"  {step}")


def setback_steps(evidence: SetbackEvidence, *, is_exported: bool) -> list[str]:
    """Return what the operator can do about a setback in order, and what nothing more can be done about, a line each.

    Args:
        evidence: which proves it.
        is_exported: as for `print_setback`.
    """
    steps = []
    has_gap = bool(evidence.missing or evidence.holes or evidence.replica_holes)
    if has_gap or evidence.entry_count or evidence.later_witnesses:
        steps.append("stop the services")
        if evidence.entry_count and not is_exported:
            steps.append(_SAVE_STEP)
        steps.append(_RESTORE_STEP)
        steps.append("if there is nothing to restore, or it was saved already:")
    if evidence.contradicted or any(one.who == "the archive" for one in evidence.later_witnesses):
        steps.append(
            "'opstream rebuild --force' saves what only the view has to a file, and goes on without it; it "
            "says which APIs to restart then"
        )
    if evidence.entry_count > evidence.contradicted:
        steps.append(
            "'opstream rebuild --export FILE' saves what only the view has. No more has to be done for entries that "
            "the journal does not contradict: clients read them from the view until their retention ends, which ends "
            "this finding, too"
        )
    if has_gap:
        steps.append("no command closes a gap: it stays a finding until the events before it have expired")
    if evidence.lost_bytes:
        steps.append("what the broker has cut stays a finding until the broker is restarted, also after a restore")
    return steps


def print_cut_streams(cut: Mapping[str, int]) -> None:
    """Print on stderr which other streams the broker has cut since it started, by their bytes, and what follows."""
    for stream, size in cut.items():
        what = f"the broker has cut {format_count(size, 'byte')} from damaged blocks of {stream} since it started"
        _print(f"{what}: {CONSEQUENCES[stream]}")


def _print_messages(skipped: SkippedMessages, what: str) -> None:
    if skipped.count:
        _print(f"{skipped.count:,} {what}:")
        for example in skipped.examples:
            _print(f"  {printable(example)}")
        _print_remaining(skipped.count - len(skipped.examples))


def _print_remaining(count: int) -> None:
    if count:
        _print(f"  and {count:,} more")


def _print(text: str) -> None:
    click.echo(text, err=True)
