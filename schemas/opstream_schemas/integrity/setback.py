"""Decides whether a journal went back: whether something knows of events that it should have and has not. Pure.

A broker that finds a damaged block cuts it there, and says so only in its own log. Its stream is then shorter than what
others have read of it: the view, the archive, consumers, checkpoints. Each of them is a witness (docs/adr/0032).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from opstream_schemas.text import format_count

from .chain_state import Finding
from .checkpoint import CLOCK_SKEW

_MAX_EXAMPLES: Final = 5
"""Items of each kind that are named; all others are only counted."""


class Loss(StrEnum):
    """Where an event is missing that the journal should have."""

    BEYOND_END = "after the journal's end"
    INSIDE = "between events that the journal has"
    TOO_EARLY = "before the journal's beginning, though it was not due to expire"


class JournalRange(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal holds now."""

    first: int
    """Its first stream sequence; in an empty journal, the next one."""
    last: int
    """Its last stream sequence, also if that message is gone."""
    max_age: float
    """Seconds after which events expire; 0 for never."""


class Witness(msgspec.Struct, frozen=True, order=True):
    """Something that has seen the journal up to a stream sequence."""

    sequence: int
    who: str
    """In words: `the archive`."""


class SequenceRange(msgspec.Struct, frozen=True):
    """Stream sequences, both ends included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def count(self) -> int:
        """Return how many there are."""
        return self.last - self.first + 1


def loss_of(sequence: int, recorded_at: datetime | None, journal: JournalRange, now: datetime) -> Loss | None:
    """Return where an event is missing that the journal does not have; None if it has expired.

    Args:
        sequence: its stream sequence.
        recorded_at: a time at which it was recorded, or an earlier one; None if it isn't known.
        journal: what the journal holds.
        now: the time.
    """
    if sequence > journal.last:
        return Loss.BEYOND_END
    if sequence >= journal.first:
        return Loss.INSIDE
    if recorded_at is None or has_expired(recorded_at, journal.max_age, now):
        return None
    return Loss.TOO_EARLY


def edge_findings(evidence: SetbackEvidence) -> tuple[list[Finding], list[Finding]]:
    """Return findings about the beginning and about the end of a journal, from what others know of it.

    Args:
        evidence: of the archive, the consumers and the view.
    """
    journal, early = evidence.journal, evidence.entries[Loss.TOO_EARLY]
    beginning, end = [], []
    if early:
        what = f"the journal begins at {journal.first}, but the view has {format_count(early, 'operation')} whose last "
        what += f"event was before that and not due to expire, for example {evidence.examples[0]}"
        beginning.append(Finding(1, what))
    if later := evidence.later_witnesses:
        what = f"the journal ends before this, but others have read more: {_listed(later)}"
        end.append(Finding(journal.last + 1, what))
    if evidence.lost_bytes:  # what is missing inside of the journal is found by the chains' verifier itself
        cut = f"the broker has cut {format_count(evidence.lost_bytes, 'byte')} from damaged blocks since it started"
        end.append(Finding(journal.last, cut))
    return beginning, end


def has_expired(recorded_at: datetime, max_age: float, now: datetime) -> bool:
    """Return True if an event of that time may be gone, with a margin for clocks that differ.

    Args:
        recorded_at: when it was recorded.
        max_age: seconds after which events expire; 0 for never.
        now: the time.
    """
    return bool(max_age) and recorded_at.timestamp() + max_age <= now.timestamp() + CLOCK_SKEW


class HoleFinder:
    """Finds the stream sequences that a read of a whole stream in order did not bring.

    Args:
        first: the stream sequence at which the read begins.
        last: the one at which it ends.
    """

    def __init__(self, first: int, last: int) -> None:
        self._next = first
        self._last = last
        self._holes: list[SequenceRange] = []

    def add(self, sequences: Sequence[int]) -> None:
        """Add the next messages, at least one."""
        if sequences[0] == self._next and sequences[-1] - self._next + 1 == len(sequences):
            self._next = sequences[-1] + 1
            return
        for sequence in sequences:
            self._add_hole(sequence - 1)
            self._next = sequence + 1

    def finish(self, first: int) -> list[SequenceRange]:
        """Return the holes. The stream begins at `first` now: what is missing before that went in the meantime."""
        self._add_hole(self._last)
        cut = (SequenceRange(max(hole.first, first), hole.last) for hole in self._holes)
        return [hole for hole in cut if hole.first <= hole.last]

    def _add_hole(self, last: int) -> None:
        if last >= self._next:
            self._holes.append(SequenceRange(self._next, last))
            self._next = last + 1


class SetbackEvidence:
    """What proves that a journal went back. It counts all, and keeps a few examples.

    Args:
        journal: what the journal holds.
    """

    def __init__(self, journal: JournalRange) -> None:
        self.journal = journal
        self.holes: list[SequenceRange] = []
        """What is missing between the journal's first and last sequence."""
        self.missing = 0
        """Number of sequences inside of the journal without a message, as the broker counts them."""
        self.replica_holes: list[SequenceRange] = []
        """What is missing in the replica that was read, while the leader has it."""
        self.lost_bytes = 0
        """What the broker says it has cut from damaged blocks since it started."""
        self.entries: dict[Loss, int] = dict.fromkeys(Loss, 0)
        """Entries of the view that know more than the journal, by where the last event of each is missing."""
        self.ended = 0
        """Those of them that have ended: the view has the only copy of their outcome."""
        self.contradicted = 0
        """Those of all of them that say something else than the journal, so that a forced rebuild takes them away."""
        self.examples: list[str] = []
        """Ids of some of these operations."""
        self._witnesses: dict[str, int] = {}

    @property
    def is_setback(self) -> bool:
        """Return True if there is any proof."""
        is_short = bool(self.missing or self.holes or self.replica_holes or self.lost_bytes)
        return is_short or bool(self.entry_count or self.later_witnesses)

    @property
    def entry_count(self) -> int:
        """Return how many entries of the view know more than the journal."""
        return sum(self.entries.values())

    @property
    def later_witnesses(self) -> list[Witness]:
        """Return the witnesses that know a later end, the latest first."""
        last = self.journal.last
        return sorted((Witness(seen, who) for who, seen in self._witnesses.items() if seen > last), reverse=True)

    def add_witness(self, who: str, sequence: int) -> None:
        """Add something that has seen the journal up to a sequence; of the same one, the highest counts."""
        self._witnesses[who] = max(sequence, self._witnesses.get(who, 0))

    def add_entry(
        self, operation_id: str, sequence: int, loss: Loss, *, is_ended: bool, is_contradicted: bool = True
    ) -> None:
        """Add an entry of the view, with events up to `sequence`, of which the journal does not have all."""
        self.entries[loss] += 1
        self.ended += is_ended
        self.contradicted += is_contradicted
        self.add_witness("the view", sequence)
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(operation_id)

    def take_entries(self, other: SetbackEvidence) -> None:
        """Take the entries of the view from evidence about the same journal, read a little earlier."""
        self.entries, self.ended, self.examples = other.entries, other.ended, other.examples
        self.contradicted = other.contradicted

    def end_lines(self) -> list[str]:
        """Return what is known of a journal's end that is gone, one fact a line."""
        later, end = self.later_witnesses, self.journal.last
        if not later:
            return []
        gone = SequenceRange(end + 1, later[0].sequence)
        return [
            f"it ends at sequence {end:,}, and others have read more: {_listed(later)}",
            f"gone from its end: {format_count(gone.count, 'sequence')}, {gone}",
        ]

    def lines(self) -> list[str]:
        """Return what is known, one fact a line; empty if nothing proves a setback."""
        found = self.end_lines()
        if self.holes:
            count = format_count(sum(hole.count for hole in self.holes), "sequence")
            found.append(f"missing inside of it, where nothing expires or is deleted: {count}, {_named(self.holes)}")
        elif self.missing:
            found.append(
                f"missing inside of it, where nothing expires or is deleted: {format_count(self.missing, 'sequence')}"
            )
        if self.replica_holes:
            count = format_count(sum(hole.count for hole in self.replica_holes), "sequence")
            found.append(f"one replica of it lacks what its leader has: {count}, {_named(self.replica_holes)}")
        if self.lost_bytes:
            found.append(
                f"the broker has cut {format_count(self.lost_bytes, 'byte')} from damaged blocks since it started"
            )
        if self.entry_count:
            entries = format_count(self.entry_count, "operation")
            found.append(f"only the view has the last state of {entries}, {self.ended:,} of them ended")
            found.extend(f"  {count:,} {loss}" for loss, count in self.entries.items() if count)
            found.append(f"  for example {', '.join(self.examples)}")
        return found


def _listed(witnesses: Sequence[Witness]) -> str:
    shown = [f"{witness.who} up to {witness.sequence:,}" for witness in witnesses[:_MAX_EXAMPLES]]
    return ", ".join([*shown, *_rest(len(witnesses))])


def _named(holes: Sequence[SequenceRange]) -> str:
    return ", ".join([*map(str, holes[:_MAX_EXAMPLES]), *_rest(len(holes))])


def _rest(count: int) -> list[str]:
    return [f"and {count - _MAX_EXAMPLES:,} more"] if count > _MAX_EXAMPLES else []
