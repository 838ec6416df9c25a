"""Checkpoints: what a stream held at one time, so that a later run can verify that it still does. Pure.

A checkpoint covers the messages after the previous one, in segments of up to 1,024 messages with a digest each. After
the oldest messages have expired, all segments that begin later can still be verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final

import msgspec

from opstream_schemas.events import Instant

from .chain_state import Finding

SEGMENT_SIZE: Final = 1_024
"""Number of messages of a segment. The last segment of a checkpoint may have fewer."""
CLOCK_SKEW: Final = 300.0
"""Seconds by which the clocks of broker and verifier may differ."""
_NANOSECONDS: Final = 1_000_000_000


class Segment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A range of messages. In a checkpoint it is an array of these six members."""

    first: int
    """Stream sequence at which it begins; there need not be a message."""
    last: int
    """Stream sequence at which it ends."""
    messages: int
    oldest: int
    """Time at which the broker stored the first message: seconds since 1970, by its clock."""
    newest: int
    """The same of the last message."""
    digest: str
    """SHA-256 (hex) over one line `{sequence} {subject} {SHA-256 of the body, hex}\\n` for each message."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What a stream held after the end of the previous checkpoint."""

    number: int
    """From 1."""
    previous: str
    """SHA-256 (hex) of the line of the previous checkpoint; empty for the first."""
    time: Instant
    """Time at which it was made, by the clock of the command that made it."""
    stream: str
    created: str
    """Creation time of the stream, from the broker. It distinguishes streams of the same name."""
    max_age: float
    """The stream's age limit then, in seconds; 0 for none."""
    begin: int
    """The stream's first sequence then."""
    first: int
    """First stream sequence that it covers."""
    last: int
    """Last stream sequence that it covers; lower than `first` if there was nothing new."""
    messages: int
    """Number of messages that it covers."""
    findings: int
    """Number of findings in what it covers; the operator signed it all the same."""
    heads: str
    """SHA-256 (hex) of the file with the heads of the operations that were open then."""
    segments: tuple[Segment, ...]


def checkpoint_problem(before: Checkpoint | None, checkpoint: Checkpoint, line_before: str) -> str:
    """Return why a checkpoint can't follow the previous one; empty if it can.

    Args:
        before: the previous checkpoint; None for the first.
        checkpoint: the checkpoint.
        line_before: SHA-256 (hex) of the line of the previous one; empty for the first.
    """
    number = before.number + 1 if before else 1
    if checkpoint.number != number:
        return f"checkpoint {number} is missing before number {checkpoint.number}"
    if checkpoint.previous != line_before:
        return f"checkpoint {number} was made after another checkpoint than the one before it"
    if before and (checkpoint.stream, checkpoint.created) != (before.stream, before.created):
        return f"checkpoint {number} is of another stream than the one before it"
    sequence = checkpoint.first if before is None else before.last + 1
    for segment in checkpoint.segments:
        if segment.first != sequence or segment.last < segment.first:
            return f"the segments of checkpoint {number} leave something out"
        sequence = segment.last + 1
    return "" if sequence == checkpoint.last + 1 else f"the segments of checkpoint {number} don't reach its end"


class _SegmentDigest:
    """Builds one segment."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.messages = 0
        self.last = 0
        self._oldest = 0
        self._newest = 0
        self._hash = hashlib.sha256()

    def add(self, sequence: int, subject: str, body_hash: str, stored: int) -> None:
        self._hash.update(f"{sequence} {subject} {body_hash}\n".encode())
        self.messages += 1
        self.last = sequence
        self._newest = stored
        self._oldest = self._oldest or stored

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def segment(self, last: int) -> Segment:
        oldest, newest = self._oldest // _NANOSECONDS, -(-self._newest // _NANOSECONDS)
        return Segment(self.first, last, self.messages, oldest, newest, self.digest)


class CheckpointBuilder:
    """Builds the segments of a checkpoint.

    Args:
        first: the stream sequence at which the checkpoint begins.
    """

    def __init__(self, first: int) -> None:
        self.segments: list[Segment] = []
        self.messages = 0
        self._current = _SegmentDigest(first)

    def add_message(self, sequence: int, subject: str, body_hash: str, stored: int) -> None:
        """Add the next message.

        Args:
            sequence: its stream sequence.
            subject: its subject.
            body_hash: SHA-256 (hex) of its body.
            stored: when the broker stored it, in nanoseconds since 1970.
        """
        self._current.add(sequence, subject, body_hash, stored)
        self.messages += 1
        if self._current.messages == SEGMENT_SIZE:
            self.segments.append(self._current.segment(sequence))
            self._current = _SegmentDigest(sequence + 1)

    def finish(self, last: int) -> tuple[Segment, ...]:
        """Return all segments, up to the stream sequence `last`, where there need not be a message."""
        if last >= self._current.first:
            self.segments.append(self._current.segment(last))
        return tuple(self.segments)


class CheckpointVerifier:
    """Compares the messages of a stream with its checkpoints.

    Args:
        checkpoints: all checkpoints, oldest first.
        begin: the stream's first sequence now.
        end: its last sequence now.
        age: the shortest age limit of the stream since the first checkpoint, in seconds; 0 for none.
        now: the time.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], *, begin: int, end: int, age: float, now: datetime) -> None:
        self.compared = 0
        """Number of messages that are unchanged."""
        self.unproven = 0
        """Number of messages in a segment that has partly expired, so that they can't be compared."""
        self._begin = begin
        self._end = end
        self._age = age
        self._now = now.timestamp()
        self._spans = ((one, segment) for one in checkpoints for segment in one.segments)
        self._span = next(self._spans, None)
        self._current = _SegmentDigest(0)
        self._findings: list[Finding] = []
        self._faulty_range: tuple[Checkpoint, str, int, int] | None = None

    def advance_begin(self, begin: int) -> None:
        """Set the stream's first sequence, which has advanced because messages expired."""
        self._begin = begin

    def add_message(self, sequence: int, subject: str, body_hash: str, stored: int) -> None:
        """Add the next message, as in `CheckpointBuilder.add_message`."""
        while self._span is not None and sequence > self._span[1].last:
            self._close_segment(*self._span)
        if self._span is not None and sequence >= self._span[1].first:
            self._current.add(sequence, subject, body_hash, stored)

    def finish(self) -> None:
        """Compare the rest; the stream has ended."""
        while self._span is not None:
            self._close_segment(*self._span)
        self._flush_range()

    def pop_findings(self) -> list[Finding]:
        """Return the findings since the last call."""
        found, self._findings = self._findings, []
        return found

    def _close_segment(self, checkpoint: Checkpoint, segment: Segment) -> None:
        found = self._current
        if segment.first < self._begin:
            self.unproven += found.messages
            if not self._may_have_expired(segment):
                gone = "are gone before they could expire" if self._age else "are gone, although nothing expires"
                self._add_to_range(checkpoint, gone, segment.first, min(segment.last, self._begin - 1))
        elif segment.last > self._end:
            pass  # the tail is missing, which `boundary_findings` reports as a whole
        elif (found.messages, found.digest) != (segment.messages, segment.digest):
            self._add_to_range(checkpoint, "are not what it covers", segment.first, segment.last)
        else:
            self.compared += found.messages
        self._span = next(self._spans, None)
        self._current = _SegmentDigest(0)

    def _may_have_expired(self, segment: Segment) -> bool:
        """Return True if the missing messages can have expired: all of the segment, or at least its oldest message."""
        if not segment.messages:
            return True
        stored = segment.newest if segment.last < self._begin else segment.oldest
        return bool(self._age) and stored + self._age <= self._now + CLOCK_SKEW

    def _add_to_range(self, checkpoint: Checkpoint, what: str, first: int, last: int) -> None:
        """Collect adjacent segments with the same problem into one finding."""
        faulty = self._faulty_range
        if faulty is not None and faulty[0] is checkpoint and faulty[1] == what and faulty[3] == first - 1:
            self._faulty_range = (checkpoint, what, faulty[2], last)
        else:
            self._flush_range()
            self._faulty_range = (checkpoint, what, first, last)

    def _flush_range(self) -> None:
        if self._faulty_range is not None:
            checkpoint, what, first, last = self._faulty_range
            text = f"compared with {_described(checkpoint)}, messages {first} to {last} {what}"
            self._findings.append(Finding(first, text))
        self._faulty_range = None


def boundary_findings(checkpoints: Sequence[Checkpoint], begin: int, end: int) -> list[Finding]:
    """Return findings about the first and the last sequence of a stream.

    Args:
        checkpoints: all checkpoints, oldest first, at least one.
        begin: the stream's first sequence now.
        end: its last sequence now.
    """
    found = []
    first, last = checkpoints[0], checkpoints[-1]
    if begin < first.begin:
        what = f"the stream begins here, before message {first.begin}, with which it began at {_described(first)}"
        found.append(Finding(begin, what))
    if end < last.last:
        what = f"the stream ends before this, but {_described(last)} covers it up to {last.last}: its tail was removed"
        found.append(Finding(end + 1, what))
    return found


def premature_expiry_findings(last: Checkpoint, begin: int, age: float, now: datetime) -> list[Finding]:
    """Return findings about messages after the last checkpoint that are gone, although they can't have expired.

    Args:
        last: the last checkpoint.
        begin: the stream's first sequence now.
        age: as in `CheckpointVerifier`.
        now: the time.
    """
    first = last.last + 1
    if begin <= first or (age and last.time.timestamp() + age <= now.timestamp() + CLOCK_SKEW):
        return []
    gone = "gone before they could expire" if age else "gone, although nothing expires"
    return [Finding(first, f"messages {first} to {begin - 1}, which came after {_described(last)}, are {gone}")]


def checkpoints_with_gaps(checkpoints: Sequence[Checkpoint], begin: int) -> list[Checkpoint]:
    """Return the checkpoints with only those segments of which messages are gone, so nothing has to be read."""
    return [
        msgspec.structs.replace(one, segments=tuple(each for each in one.segments if each.first < begin))
        for one in checkpoints
    ]


def lowered_age_limit(checkpoints: Sequence[Checkpoint], max_age: float) -> str:
    """Return a sentence that says where the age limit was lowered; empty if it never was.

    A lower limit removes messages that were not due before.

    Args:
        checkpoints: all checkpoints, oldest first, at least one.
        max_age: the stream's limit now, seconds; 0 for none.
    """
    limits = [*(one.max_age for one in checkpoints), max_age]
    for one, (before, after) in zip(checkpoints, pairwise(limits), strict=True):
        if after and (after < before or not before):
            was = f"{before:.0f} s" if before else "none"
            change = f"from {was} to {after:.0f} s"
            return f"the age limit was lowered after {_described(one)}, {change}, and that is what counts"
    return ""


def _described(checkpoint: Checkpoint) -> str:
    return f"checkpoint {checkpoint.number} of {checkpoint.time:%Y-%m-%dT%H:%M:%SZ}"
