"""Checkpoints: what a stream held at one time, so that a later look can tell whether it still does. Pure.

Callers: `opstream verify --chain --checkpoint`, which signs and stores them (`opstream/history/checkpoint_file.py`).

The messages behind the previous checkpoint are covered in segments of up to 1,024 messages, each with a digest of its
own: once the oldest ones have expired, all segments are still checked that begin behind the edge.
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
"""Messages of a segment, of which the last one of a checkpoint has fewer."""
CLOCK_SKEW: Final = 300.0
"""Seconds that the clocks of broker and verifier may differ."""
_NANOSECONDS: Final = 1_000_000_000


class Segment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A run of messages: an array of its six members in a checkpoint."""

    first: int
    """Stream sequence with which it begins, be there a message or not."""
    last: int
    """Stream sequence with which it ends."""
    messages: int
    oldest: int
    """When the broker stored the first message, seconds since 1970, by its clock."""
    newest: int
    """When it stored the last one."""
    digest: str
    """SHA-256 (hex) over one line `{sequence} {subject} {SHA-256 of the body, hex}\\n` for each message."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What a stream held, from where the checkpoint before ends."""

    number: int
    """From 1."""
    previous: str
    """SHA-256 (hex) of the line of the checkpoint before; empty for the first."""
    time: Instant
    """When it was made, by the clock of whoever made it."""
    stream: str
    created: str
    """When the stream was made, as its broker says: tells it from another one of the same name."""
    max_age: float
    """Seconds after which the stream's messages expired then; 0 for never."""
    begin: int
    """The stream's first sequence then."""
    first: int
    """The first stream sequence that it covers."""
    last: int
    """The last one; lower than `first` if there was nothing new."""
    messages: int
    """That it covers."""
    findings: int
    """That the chain had in what it covers; somebody decided to sign all the same."""
    heads: str
    """SHA-256 (hex) of the file with the operations that were open then."""
    segments: tuple[Segment, ...]


def checkpoint_problem(before: Checkpoint | None, checkpoint: Checkpoint, line_before: str) -> str:
    """Why a checkpoint can't follow the one before it; empty if it can.

    Args:
        before: the one before; None for the first.
        checkpoint: the next one.
        line_before: SHA-256 (hex) of the line of the one before; empty for the first.
    """
    number = before.number + 1 if before else 1
    if checkpoint.number != number:
        return f"checkpoint {number} is missing before number {checkpoint.number}"
    if checkpoint.previous != line_before:
        return f"checkpoint {number} was made after another one than that which stands before it"
    if before and (checkpoint.stream, checkpoint.created) != (before.stream, before.created):
        return f"checkpoint {number} is of another stream than the one before it"
    sequence = checkpoint.first if before is None else before.last + 1
    for segment in checkpoint.segments:
        if segment.first != sequence or segment.last < segment.first:
            return f"the segments of checkpoint {number} leave something out"
        sequence = segment.last + 1
    return "" if sequence == checkpoint.last + 1 else f"the segments of checkpoint {number} don't reach its end"


class _SegmentDigest:
    """One segment in the making."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.messages = 0
        self.last = 0
        self._oldest = 0
        self._newest = 0
        self._hash = hashlib.sha256()

    def add(self, sequence: int, subject: str, body: str, stored: int) -> None:
        self._hash.update(f"{sequence} {subject} {body}\n".encode())
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
    """Covers a stream from a sequence on.

    Args:
        first: that sequence.
    """

    def __init__(self, first: int) -> None:
        self.segments: list[Segment] = []
        self.messages = 0
        self._current = _SegmentDigest(first)

    def add_message(self, sequence: int, subject: str, body: str, stored: int) -> None:
        """The next message: sequence, subject, SHA-256 (hex) of the body, and nanoseconds since 1970."""
        self._current.add(sequence, subject, body, stored)
        self.messages += 1
        if self._current.messages == SEGMENT_SIZE:
            self.segments.append(self._current.segment(sequence))
            self._current = _SegmentDigest(sequence + 1)

    def finish(self, last: int) -> tuple[Segment, ...]:
        """All segments, up to the stream sequence `last`, be there a message or not."""
        if last >= self._current.first:
            self.segments.append(self._current.segment(last))
        return tuple(self.segments)


class CheckpointVerifier:
    """Compares the messages of a stream with what checkpoints cover.

    Args:
        checkpoints: all of them, oldest first.
        begin: the stream's first sequence now.
        end: its last one.
        age: seconds after which its messages expire, the shortest since the first of the checkpoints; 0 for never.
        now: the time.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], *, begin: int, end: int, age: float, now: datetime) -> None:
        self.compared = 0
        """Messages that are what they were."""
        self.unproven = 0
        """Messages that are there, but in a segment of which some have expired: they can't be compared."""
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
        """Tell that the stream begins later by now."""
        self._begin = begin

    def add_message(self, sequence: int, subject: str, body: str, stored: int) -> None:
        """The next message, as for `CheckpointBuilder.take`."""
        while self._span is not None and sequence > self._span[1].last:
            self._close_segment(*self._span)
        if self._span is not None and sequence >= self._span[1].first:
            self._current.add(sequence, subject, body, stored)

    def finish(self) -> None:
        """The stream has ended."""
        while self._span is not None:
            self._close_segment(*self._span)
        self._flush_range()

    def pop_findings(self) -> list[Finding]:
        """What was found since the last call."""
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
            pass  # the tail is missing, which `edge_findings` tells as a whole
        elif (found.messages, found.digest) != (segment.messages, segment.digest):
            self._add_to_range(checkpoint, "are not what it covers", segment.first, segment.last)
        else:
            self.compared += found.messages
        self._span = next(self._spans, None)
        self._current = _SegmentDigest(0)

    def _may_have_expired(self, segment: Segment) -> bool:
        """Whether what is gone of a segment can have expired: all of it, or at least its oldest message."""
        if not segment.messages:
            return True
        stored = segment.newest if segment.last < self._begin else segment.oldest
        return bool(self._age) and stored + self._age <= self._now + CLOCK_SKEW

    def _add_to_range(self, checkpoint: Checkpoint, what: str, first: int, last: int) -> None:
        """Gather what is wrong with neighbours into one finding."""
        run = self._faulty_range
        if run is not None and run[0] is checkpoint and run[1] == what and run[3] == first - 1:
            self._faulty_range = (checkpoint, what, run[2], last)
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
    """What is wrong with where a stream begins and ends, compared with its checkpoints, of which there is one at least.

    Args:
        checkpoints: all of them, oldest first.
        begin: the stream's first sequence now.
        end: its last one.
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
    """What came after the last checkpoint and is gone, although it can't be old enough.

    Args:
        last: that checkpoint.
        begin: the stream's first sequence now.
        age: as for `CheckpointVerifier`.
        now: the time.
    """
    first = last.last + 1
    if begin <= first or (age and last.time.timestamp() + age <= now.timestamp() + CLOCK_SKEW):
        return []
    gone = "gone before they could expire" if age else "gone, although nothing expires"
    return [Finding(first, f"messages {first} to {begin - 1}, which came after {_described(last)}, are {gone}")]


def checkpoints_with_gaps(checkpoints: Sequence[Checkpoint], begin: int) -> list[Checkpoint]:
    """The checkpoints with only those segments of which something is gone: what `CheckpointVerifier` can tell
    unread."""
    return [
        msgspec.structs.replace(one, segments=tuple(each for each in one.segments if each.first < begin))
        for one in checkpoints
    ]


def lowered_age_limit(checkpoints: Sequence[Checkpoint], max_age: float) -> str:
    """Where the age limit went down, in a sentence; empty if it never did. What it removed had not been due before.

    Args:
        checkpoints: all of them, oldest first, of which there is one at least.
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
