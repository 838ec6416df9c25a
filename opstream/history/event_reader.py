"""Reads the selected events of the journal or its archive, in the order of the stream.

Messages that are not events and sequences that are missing are reported and counted, so that the result is never taken
for complete when it is not.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from opstream.terminal.console import CommandError
from opstream_journal import Connection, NotProvisioned
from opstream_journal.jetstream.scans.scanned_message import ScannedMessage
from opstream_journal.jetstream.scans.stream_scan import scan_stream, stream_bounds
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.event_filter import EventFilter, decode_envelope, is_event_subject
from opstream_schemas.events import CloudEvent
from opstream_schemas.subjects import ARCHIVE_STREAM, OPERATIONS_STREAM
from opstream_schemas.text import format_count

NO_ARCHIVE: Final = "the broker has no archive: 'opstream provision --archive' makes one"

_OUTAGE_TIMEOUT: Final = 60.0
"""Seconds for which the broker may be away."""
_FOLLOW_OUTAGE_TIMEOUT: Final = 86_400.0
"""The same for a reader that follows."""
_MAX_REPORTED: Final = 20
_CLOCK_SKEW: Final = timedelta(minutes=5)
"""By which the clock of an event's writer may be ahead of the broker's: its time may be later than that of its copy."""


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which events to read, from which stream."""

    event_filter: EventFilter = EventFilter()
    first: int | None = None
    """Stream sequence to begin with; None for the first that exists."""
    since: datetime | None = None
    """Leave out what the broker stored before. In the archive, which has copies, the time of the event counts."""
    until: datetime | None = None
    """Leave out what the broker stored then or later. In the archive the time of the event counts."""
    is_archive: bool = False
    is_following: bool = False
    """Wait for new events at the end of the stream."""


class StoredEvent(NamedTuple):
    """An event as it is stored, and its decoded envelope."""

    message: ScannedMessage
    envelope: CloudEvent


class EventReader:
    """Reads a stream once.

    Args:
        connection: to the broker.
        query: what to read.
        report: called with a line of text for each problem, up to a limit.
    """

    def __init__(self, connection: Connection, query: HistoryQuery, report: Callable[[str], None]) -> None:
        self._connection = connection
        self.query = query
        self._report = report
        self._filters = query.event_filter.subject_filters(is_archive=query.is_archive)
        self._stream = ARCHIVE_STREAM if query.is_archive else OPERATIONS_STREAM
        self._expected_sequence = 0
        self._problem_count = 0
        self.first_sequence = 0
        """Stream sequence of the first message, as of the first call of `batches`."""
        self.last_sequence = 0
        """Stream sequence of the last message, as of the first call of `batches`."""
        self.next_sequence = query.first or 1
        """Stream sequence to continue with: all events before it are in batches that the caller has processed."""
        self.skipped = 0
        """Number of messages that are not events."""
        self.missing = 0
        """Number of stream sequences that do not exist although one before them does."""

    async def batches(self) -> AsyncGenerator[list[StoredEvent], None]:
        """The selected events, batch by batch; a batch may be empty.

        Raises:
            CommandError: there is no archive, or the sequence to begin with is after the end of the stream.
            JournalError: the broker was away for too long, lacks the stream, or refused.
        """
        query = self.query
        try:
            bounds = await stream_bounds(self._connection, self._stream)
        except NotProvisioned as error:
            if not query.is_archive:
                raise
            raise CommandError(NO_ARCHIVE) from error
        self.first_sequence, self.last_sequence = bounds.first, bounds.last
        self._check_first()
        batches = scan_stream(
            self._connection,
            self._stream,
            first=self.next_sequence,
            since=self._since(),
            last=self.last_sequence,
            filters=self._filters,
            is_following=query.is_following,
            patience=_FOLLOW_OUTAGE_TIMEOUT if query.is_following else _OUTAGE_TIMEOUT,
        )
        async with contextlib.aclosing(batches):
            async for batch in batches:
                self._check_gaps(batch)
                within = self._before_until(batch)
                yield self._select(within)
                self.next_sequence = within[-1].sequence + 1 if within else self.next_sequence
                if len(within) < len(batch):
                    self.next_sequence = batch[len(within)].sequence
                    return
        if self._expected_sequence and self._expected_sequence <= self.last_sequence:
            self._report_missing(self._expected_sequence, self.last_sequence)
        self.next_sequence = max(self.next_sequence, self.last_sequence + 1)

    @property
    def problem(self) -> str:
        """What is not in the batches, in words; empty if they are complete."""
        parts = []
        if self.skipped:
            parts.append(f"{format_count(self.skipped, 'message')} skipped (not an event)")
        if self.missing:
            parts.append(f"{format_count(self.missing, 'sequence')} missing (expired, deleted or lost)")
        return " and ".join(parts)

    def _check_first(self) -> None:
        first = self.query.first
        if first is None:
            # Already now: if the reader is interrupted at once, it must not continue with sequences that have expired.
            self.next_sequence = self.first_sequence
            return
        if first > self.last_sequence + 1:
            raise CommandError(
                f"stream {self._stream} ends at sequence {self.last_sequence}, so it can't continue with {first}: "
                "is it the right broker, and the right stream (--from-archive)? If it is, the stream has lost events: "
                "'opstream verify' says what"
            )
        if first < self.first_sequence:
            self._report_missing(first, self.first_sequence - 1)
            self.next_sequence = self.first_sequence
        if self.query.since is None and not self._filters:
            self._expected_sequence = self.next_sequence

    def _since(self) -> datetime | None:
        """When the broker begins; a little earlier in the archive, where its times are those of the copies."""
        since = self.query.since
        return since - _CLOCK_SKEW if since is not None and self.query.is_archive else since

    def _check_gaps(self, batch: Sequence[ScannedMessage]) -> None:
        """Report missing sequences. Without filters there are none: the stream denies deletes."""
        if self._filters:
            return
        expected = self._expected_sequence or batch[0].sequence
        self._expected_sequence = batch[-1].sequence + 1
        if batch[0].sequence == expected and self._expected_sequence - expected == len(batch):
            return
        for message in batch:
            if message.sequence != expected:
                self._report_missing(expected, message.sequence - 1)
            expected = message.sequence + 1

    def _before_until(self, batch: list[ScannedMessage]) -> list[ScannedMessage]:
        until = None if self.query.is_archive else self.query.until
        if until is None or all(message.stored_at < until for message in batch):
            return batch
        return batch[: next(index for index, message in enumerate(batch) if message.stored_at >= until)]

    def _select(self, batch: Sequence[ScannedMessage]) -> list[StoredEvent]:
        events = []
        for message in batch:
            if not is_event_subject(message.subject):
                continue
            try:
                envelope = decode_envelope(message.subject, message.data)
            except InvalidEvent as error:
                self.skipped += 1
                self._report_problem(f"sequence {message.sequence} is skipped: {error}")
                continue
            is_in_time = not self.query.is_archive or self._is_in_time(envelope.time)
            if is_in_time and self.query.event_filter.matches(envelope):
                events.append(StoredEvent(message, envelope))
        return events

    def _is_in_time(self, time: datetime) -> bool:
        since, until = self.query.since, self.query.until
        return (since is None or time >= since) and (until is None or time < until)

    def _report_missing(self, first: int, last: int) -> None:
        self.missing += last - first + 1
        which = f"sequence {first} is" if first == last else f"sequences {first} to {last} are"
        self._report_problem(f"{which} missing: expired, deleted or lost")

    def _report_problem(self, text: str) -> None:
        self._problem_count += 1
        if self._problem_count <= _MAX_REPORTED:
            self._report(text)
        elif self._problem_count == _MAX_REPORTED + 1:
            self._report("further problems of this kind are only counted")
