"""Says what a selection of events may lack because the stream has lost it, by what others have seen of the journal.

A reader notices a gap between two messages. It can't notice that the end is cut off, that the beginning is gone, or a
gap that its filters hide. Others can: the view, the archive, consumers and the broker itself (docs/adr/0032). What was
lost outside of the selection says nothing about it, and is left out as far as that can be known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from opstream_journal import Connection, JournalError, NotProvisioned
from opstream_journal.jetstream.scans.stream_scan import (
    StreamIdentity,
    lost_bytes,
    missing_sequences,
    scan_stream,
    stream_identity,
)
from opstream_journal.stores.journal_witnesses import archived_sequence, read_evidence, sample_evidence
from opstream_schemas.integrity.setback import Loss, SequenceRange, SetbackEvidence
from opstream_schemas.subjects import ARCHIVE_STREAM, OPERATIONS_STREAM
from opstream_schemas.text import format_count

from .event_reader import EventReader, HistoryQuery

PROBLEM: Final = "the stream has lost events, see above ('opstream verify' says what else is gone, and what to do)"
"""What is wrong with the events of a selection, for the last line of a command."""

_SETTLING_TIME: Final = 10.0
"""Seconds before a second look at a stream with replicas, of which a new leader may have less for a moment."""


class Reach(NamedTuple):
    """The part of a stream that a selection is about."""

    first: int
    """The first stream sequence."""
    last: int
    """The last one."""
    is_from_beginning: bool
    """Whether what was before the stream's first message would be selected, too."""
    is_to_end: bool
    """Whether what was after its last message would be."""
    is_filtered: bool
    """Whether the broker leaves messages out, so that a reader sees no gap."""


async def lost_events(connection: Connection, query: HistoryQuery, *, next_sequence: int) -> list[str]:
    """Return what the selection lacks and a reader of it can't notice, one fact a line; empty if nothing shows a loss.

    It takes some eighty requests, whatever the size of the journal.

    Args:
        connection: the connection.
        query: the selection.
        next_sequence: the stream sequence before which a reader has read all.

    Raises:
        NotProvisioned: there is no such stream.
        JournalUnavailable: a leader did not answer.
        BrokerRefused: the broker refused.
    """
    found, replicas = await _look(connection, query, next_sequence)
    if found and replicas > 1:
        await connection.sleep(_SETTLING_TIME)
        found, _ = await _look(connection, query, next_sequence)
    return found


async def problem_with_losses(connection: Connection, reader: EventReader, report: Callable[[str], None]) -> str:
    """Return what the events of a reader lack, in words, with what it could not notice; empty if nothing.

    Args:
        connection: the connection.
        reader: which has read all that there is.
        report: called with a line of text for each fact.
    """
    try:
        lost = await lost_events(connection, reader.query, next_sequence=reader.next_sequence)
    except JournalError as error:
        unknown = f"whether the stream has lost events can't be known ({error})"
        return " and ".join(filter(None, (reader.problem, unknown)))
    for line in lost:
        report(f"the stream has lost events: {line}")
    return " and ".join(filter(None, (reader.problem, PROBLEM if lost else "")))


async def _look(connection: Connection, query: HistoryQuery, next_sequence: int) -> tuple[list[str], int]:
    stream = await stream_identity(connection, ARCHIVE_STREAM if query.is_archive else OPERATIONS_STREAM)
    reach = await _reach(connection, stream, query, next_sequence)
    if query.is_archive:
        return await _lost_from_archive(connection, stream, reach), stream.replicas
    evidence = await _evidence(connection)
    found = []
    if evidence.later_witnesses and reach.is_to_end:
        found += evidence.end_lines()
    if (early := evidence.entries[Loss.TOO_EARLY]) and reach.is_from_beginning:
        operations = format_count(early, "operation")
        found.append(
            f"it begins at sequence {stream.first:,}; events before that were not due to expire, of {operations} for "
            f"example: {', '.join(evidence.examples)}"
        )
    found += await _hidden_gaps(connection, stream, reach)
    if not found and evidence.entries[Loss.INSIDE] and reach.is_filtered and reach.is_to_end and reach.first == 1:
        found.append(f"events between others are missing, for example of {', '.join(evidence.examples)}")
    is_explained = bool(evidence.later_witnesses or evidence.entry_count or evidence.missing)
    if evidence.lost_bytes and not is_explained and (reach.is_to_end or reach.is_from_beginning):
        found.append(_cut_line(evidence.lost_bytes))
    return found, stream.replicas


async def _lost_from_archive(connection: Connection, stream: StreamIdentity, reach: Reach) -> list[str]:
    found = await _hidden_gaps(connection, stream, reach)
    if (size := await lost_bytes(connection, stream)) and (reach.is_to_end or reach.is_from_beginning):
        found.append(_cut_line(size))
    if not reach.is_to_end:
        return found
    try:
        evidence, archived = await _evidence(connection), await archived_sequence(connection)
    except NotProvisioned:
        return found  # the archive outlives its journal, and nothing says how far that went
    last = max(archived, evidence.journal.last)
    later = [one for one in evidence.later_witnesses if one.sequence > last]
    if later:
        gone = SequenceRange(last + 1, later[0].sequence)
        found.append(
            f"the journal has lost its sequences {gone} before they were archived: {later[0].who} has read them"
        )
    return found


async def _evidence(connection: Connection) -> SetbackEvidence:
    try:
        return await sample_evidence(connection, datetime.now(UTC))
    except NotProvisioned:
        return await read_evidence(connection)  # without a view


async def _reach(connection: Connection, stream: StreamIdentity, query: HistoryQuery, next_sequence: int) -> Reach:
    last_stored_at = stream.last_stored_time
    is_to_end = query.until is None or last_stored_at is None or last_stored_at < query.until
    first = max(query.first or 1, 1)
    if query.since is not None:
        first = max(first, await _first_since(connection, stream, query.since))
    is_from_beginning = first <= stream.first
    if stream.first > stream.last and query.since is not None and last_stored_at is not None:
        is_from_beginning = is_from_beginning and last_stored_at >= query.since
    return Reach(
        first=first,
        last=stream.last if is_to_end else next_sequence - 1,
        is_from_beginning=is_from_beginning,
        is_to_end=is_to_end,
        is_filtered=bool(query.event_filter.subject_filters(is_archive=query.is_archive)),
    )


async def _first_since(connection: Connection, stream: StreamIdentity, since: datetime) -> int:
    """Return the sequence of the first message that the broker stored since then; after the last one without any."""
    scan = scan_stream(connection, stream.name, since=since, last=stream.last)
    async with contextlib.aclosing(scan) as batches:
        async for batch in batches:
            return batch[0].sequence
    return stream.last + 1


async def _hidden_gaps(connection: Connection, stream: StreamIdentity, reach: Reach) -> list[str]:
    """Gaps that a filter hides, and those of a stream without any message that is left to show them."""
    if not reach.is_filtered or not stream.missing:
        return []
    gaps = await missing_sequences(connection, stream)
    if gaps is None:
        return [f"{format_count(stream.missing, 'sequence')} between others are missing"]
    count = sum(
        max(0, min(gap.last, reach.last) - max(gap.first, reach.first) + 1)
        for gap in gaps
        if gap.last >= reach.first and gap.first <= reach.last
    )
    where = f"between {max(reach.first, stream.first):,} and {reach.last:,}"
    return [f"{format_count(count, 'sequence')} {where} missing; the filters may select some of them"] if count else []


def _cut_line(size: int) -> str:
    return f"the broker has cut {format_count(size, 'byte')} from damaged blocks since it started"
