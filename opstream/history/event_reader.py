"""Walks through the journal or its archive for a reader: what is wanted of it, in its order, and what is wrong with it.

Called by `replaying`, `exporting` and `auditing`. Whatever can't be given to the reader is told on the way and counted,
so that nobody takes a part for the whole: messages that are no events, and sequences that are missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from opstream.terminal.console import CommandError
from opstream_journal import Connection, NotProvisioned
from opstream_journal.jetstream.ordered_consumer import ScannedMessage
from opstream_journal.jetstream.stream_scan import scan_stream, stream_bounds
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.event_filter import EventFilter, decode_envelope, is_event_subject
from opstream_schemas.events import CloudEvent
from opstream_schemas.subjects import ARCHIVE_STREAM, OPERATIONS_STREAM
from opstream_schemas.text import format_count


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to read."""

    selection: EventFilter = EventFilter()
    first: int | None = None
    """Stream sequence to begin with; None for the first that there is."""
    since: datetime | None = None
    """Nothing that the broker stored before; in the archive, whose messages are copies, nothing that happened before,
    as the events say."""
    until: datetime | None = None
    """Nothing that the broker stored, or that happened, then or later."""
    is_archive: bool = False
    is_following: bool = False


NO_ARCHIVE: Final = "the broker has no archive: 'opstream provision --archive' makes one"
OUTAGE_TIMEOUT: Final = 60.0
"""Seconds that the broker may be away; who follows waits for a day."""

_FOLLOW_OUTAGE_TIMEOUT: Final = 86_400.0
_MAX_REPORTED: Final = 20
_CLOCK_SKEW: Final = timedelta(minutes=5)
"""By which a writer's clock may be ahead of the broker's, so that an event may say a later time than its copy's."""


class StoredEvent(NamedTuple):
    """An event."""

    message: ScannedMessage
    envelope: CloudEvent


class EventReader:
    """One way through a stream.

    Args:
        link: the connection.
        wanted: what to read.
        tell: is called with each trouble, in one line; after some, no more.
    """

    def __init__(self, link: Connection, wanted: HistoryQuery, tell: Callable[[str], None]) -> None:
        self._link = link
        self._query = wanted
        self._report = tell
        self._filters = wanted.selection.subject_filters(is_archive=wanted.is_archive)
        self._stream = ARCHIVE_STREAM if wanted.is_archive else OPERATIONS_STREAM
        self._expected_sequence = 0
        self._problem_count = 0
        self.first_sequence = 0
        """Stream sequence of the first message that there was; known once the walk has begun."""
        self.last_sequence = 0
        """Stream sequence of the last one at that time."""
        self.next_sequence = wanted.first or 1
        """Where to go on: all before it has been given to the caller, who came back for more."""
        self.skipped = 0
        """Messages that are no events."""
        self.missing = 0
        """Stream sequences that are not there, behind such as are."""

    async def batches(self) -> AsyncGenerator[list[StoredEvent], None]:
        """The events that are wanted, batch by batch; a batch may be empty.

        Raises:
            Failure: there is no archive, or the sequence to begin with is beyond the stream's end.
            JournalError: the broker was away for too long, lacks the stream, or refused.
        """
        wanted = self._query
        try:
            found = await stream_bounds(self._link, self._stream)
        except NotProvisioned as error:
            if not wanted.is_archive:
                raise
            raise CommandError(NO_ARCHIVE) from error
        self.first_sequence, self.last_sequence = found.first, found.last
        self._check_first()
        batches = scan_stream(
            self._link,
            self._stream,
            first=self.next_sequence,
            since=self._since(),
            last=self.last_sequence,
            filters=self._filters,
            is_following=wanted.is_following,
            patience=_FOLLOW_OUTAGE_TIMEOUT if wanted.is_following else OUTAGE_TIMEOUT,
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
        """What the reader did not get; empty if that is nothing."""
        parts = []
        if self.skipped:
            parts.append(f"{format_count(self.skipped, 'message')} passed over as no event")
        if self.missing:
            parts.append(f"{format_count(self.missing, 'sequence')} missing (expired, deleted or lost)")
        return " and ".join(parts)

    def _check_first(self) -> None:
        first = self._query.first
        if first is None:
            self.next_sequence = (
                self.first_sequence
            )  # whoever is interrupted at once must not be sent to what has expired
            return
        if first > self.last_sequence + 1:
            raise CommandError(
                f"stream {self._stream} ends at sequence {self.last_sequence}, so {first} can't be where you were: "
                f"is it the "
                "right broker, and the right stream (--from-archive)?"
            )
        if first < self.first_sequence:
            self._report_missing(first, self.first_sequence - 1)
            self.next_sequence = self.first_sequence
        if self._query.since is None and not self._filters:
            self._expected_sequence = self.next_sequence

    def _since(self) -> datetime | None:
        """Where the broker begins; in the archive a little early, since its times are those of the copying."""
        since = self._query.since
        return since - _CLOCK_SKEW if since is not None and self._query.is_archive else since

    def _check_gaps(self, batch: Sequence[ScannedMessage]) -> None:
        """Without filters the sequences have no gaps, since nothing can be deleted from the middle of the stream."""
        if self._filters:
            return
        expected = self._expected_sequence or batch[0].sequence
        self._expected_sequence = batch[-1].sequence + 1
        if batch[0].sequence == expected and self._expected_sequence - expected == len(batch):
            return
        for one in batch:
            if one.sequence != expected:
                self._report_missing(expected, one.sequence - 1)
            expected = one.sequence + 1

    def _before_until(self, batch: list[ScannedMessage]) -> list[ScannedMessage]:
        until = None if self._query.is_archive else self._query.until
        if until is None or all(one.stored_at < until for one in batch):
            return batch
        return batch[: next(index for index, one in enumerate(batch) if one.stored_at >= until)]

    def _select(self, batch: Sequence[ScannedMessage]) -> list[StoredEvent]:
        kept = []
        selection = self._query.selection
        for one in batch:
            if not is_event_subject(one.subject):
                continue
            try:
                envelope = decode_envelope(one.subject, one.data)
            except InvalidEvent as error:
                self.skipped += 1
                self._report_problem(f"sequence {one.sequence} is passed over: {error}")
                continue
            if selection.matches(envelope) and (not self._query.is_archive or self._is_in_time(envelope.time)):
                kept.append(StoredEvent(one, envelope))
        return kept

    def _is_in_time(self, time: datetime) -> bool:
        since, until = self._query.since, self._query.until
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
            self._report("there is more of that kind, which is only counted from now on")
