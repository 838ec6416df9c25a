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

from opstream.terminal.console import Failure
from opstream_journal import Link, NotProvisioned
from opstream_journal.jetstream.ordered_consumer import Scanned
from opstream_journal.jetstream.stream_scan import edges, scan
from opstream_schemas.errors import InvalidEvent
from opstream_schemas.event_filter import Selection, is_event_subject, open_envelope
from opstream_schemas.events import CloudEvent
from opstream_schemas.subjects import ARCHIVE_STREAM, OPERATIONS_STREAM
from opstream_schemas.text import counted


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to read."""

    selection: Selection = Selection()
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
PATIENCE: Final = 60.0
"""Seconds that the broker may be away; who follows waits for a day."""

_FOLLOWING_PATIENCE: Final = 86_400.0
_TOLD: Final = 20
_SKEW: Final = timedelta(minutes=5)
"""By which a writer's clock may be ahead of the broker's, so that an event may say a later time than its copy's."""


class Found(NamedTuple):
    """An event."""

    message: Scanned
    envelope: CloudEvent


class Walk:
    """One way through a stream.

    Args:
        link: the connection.
        wanted: what to read.
        tell: is called with each trouble, in one line; after some, no more.
    """

    def __init__(self, link: Link, wanted: Wanted, tell: Callable[[str], None]) -> None:
        self._link = link
        self._wanted = wanted
        self._tell = tell
        self._filters = wanted.selection.filters(is_archive=wanted.is_archive)
        self._stream = ARCHIVE_STREAM if wanted.is_archive else OPERATIONS_STREAM
        self._expected = 0
        self._troubles = 0
        self.begin = 0
        """Stream sequence of the first message that there was; known once the walk has begun."""
        self.end = 0
        """Stream sequence of the last one at that time."""
        self.next_sequence = wanted.first or 1
        """Where to go on: all before it has been given to the caller, who came back for more."""
        self.passed_over = 0
        """Messages that are no events."""
        self.missing = 0
        """Stream sequences that are not there, behind such as are."""

    async def batches(self) -> AsyncGenerator[list[Found], None]:
        """The events that are wanted, batch by batch; a batch may be empty.

        Raises:
            Failure: there is no archive, or the sequence to begin with is beyond the stream's end.
            JournalError: the broker was away for too long, lacks the stream, or refused.
        """
        wanted = self._wanted
        try:
            found = await edges(self._link, self._stream)
        except NotProvisioned as error:
            if not wanted.is_archive:
                raise
            raise Failure(NO_ARCHIVE) from error
        self.begin, self.end = found.first, found.last
        self._check_begin()
        batches = scan(
            self._link,
            self._stream,
            first=self.next_sequence,
            since=self._since(),
            last=self.end,
            filters=self._filters,
            is_following=wanted.is_following,
            patience=_FOLLOWING_PATIENCE if wanted.is_following else PATIENCE,
        )
        async with contextlib.aclosing(batches):
            async for batch in batches:
                self._check_gaps(batch)
                within = self._within(batch)
                yield self._sift(within)
                self.next_sequence = within[-1].sequence + 1 if within else self.next_sequence
                if len(within) < len(batch):
                    self.next_sequence = batch[len(within)].sequence
                    return
        if self._expected and self._expected <= self.end:
            self._note_missing(self._expected, self.end)
        self.next_sequence = max(self.next_sequence, self.end + 1)

    @property
    def problem(self) -> str:
        """What the reader did not get; empty if that is nothing."""
        parts = []
        if self.passed_over:
            parts.append(f"{counted(self.passed_over, 'message')} passed over as no event")
        if self.missing:
            parts.append(f"{counted(self.missing, 'sequence')} missing (expired, deleted or lost)")
        return " and ".join(parts)

    def _check_begin(self) -> None:
        first = self._wanted.first
        if first is None:
            self.next_sequence = self.begin  # whoever is interrupted at once must not be sent to what has expired
            return
        if first > self.end + 1:
            raise Failure(
                f"stream {self._stream} ends at sequence {self.end}, so {first} can't be where you were: is it the "
                "right broker, and the right stream (--from-archive)?"
            )
        if first < self.begin:
            self._note_missing(first, self.begin - 1)
            self.next_sequence = self.begin
        if self._wanted.since is None and not self._filters:
            self._expected = self.next_sequence

    def _since(self) -> datetime | None:
        """Where the broker begins; in the archive a little early, since its times are those of the copying."""
        since = self._wanted.since
        return since - _SKEW if since is not None and self._wanted.is_archive else since

    def _check_gaps(self, batch: Sequence[Scanned]) -> None:
        """Without filters the sequences have no gaps, since nothing can be deleted from the middle of the stream."""
        if self._filters:
            return
        expected = self._expected or batch[0].sequence
        self._expected = batch[-1].sequence + 1
        if batch[0].sequence == expected and self._expected - expected == len(batch):
            return
        for one in batch:
            if one.sequence != expected:
                self._note_missing(expected, one.sequence - 1)
            expected = one.sequence + 1

    def _within(self, batch: list[Scanned]) -> list[Scanned]:
        until = None if self._wanted.is_archive else self._wanted.until
        if until is None or all(one.stored_at < until for one in batch):
            return batch
        return batch[: next(index for index, one in enumerate(batch) if one.stored_at >= until)]

    def _sift(self, batch: Sequence[Scanned]) -> list[Found]:
        kept = []
        selection = self._wanted.selection
        for one in batch:
            if not is_event_subject(one.subject):
                continue
            try:
                envelope = open_envelope(one.subject, one.data)
            except InvalidEvent as error:
                self.passed_over += 1
                self._note(f"sequence {one.sequence} is passed over: {error}")
                continue
            if selection.holds(envelope) and (not self._wanted.is_archive or self._happened_then(envelope.time)):
                kept.append(Found(one, envelope))
        return kept

    def _happened_then(self, time: datetime) -> bool:
        since, until = self._wanted.since, self._wanted.until
        return (since is None or time >= since) and (until is None or time < until)

    def _note_missing(self, first: int, last: int) -> None:
        self.missing += last - first + 1
        which = f"sequence {first} is" if first == last else f"sequences {first} to {last} are"
        self._note(f"{which} missing: expired, deleted or lost")

    def _note(self, text: str) -> None:
        self._troubles += 1
        if self._troubles <= _TOLD:
            self._tell(text)
        elif self._troubles == _TOLD + 1:
            self._tell("there is more of that kind, which is only counted from now on")
