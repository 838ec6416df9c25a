"""Whether a journal has lost events: whatever is removed from it is found, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.integrity.checkpoint import CLOCK_SKEW
from opstream_schemas.integrity.setback import (
    HoleFinder,
    JournalRange,
    Loss,
    SequenceRange,
    SetbackEvidence,
    Witness,
    has_expired,
    loss_of,
)

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
AGE = 1_000.0


def parts(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The items in batches."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


@given(
    first=st.integers(1, 50),
    length=st.integers(0, 60),
    removed=st.sets(st.integers(1, 110)),
    size=st.integers(1, 20),
    expired=st.integers(0, 20),
)
def test_holes(first: int, length: int, removed: set[int], size: int, expired: int) -> None:
    """The holes are exactly the sequences that did not come, without those that have expired in the meantime."""
    last = first + length - 1
    finder = HoleFinder(first, last)
    there = [sequence for sequence in range(first, last + 1) if sequence not in removed]
    for batch in parts(there, size):
        finder.add(batch)
    begin = first + expired
    holes = finder.finish(begin)
    missing = [sequence for hole in holes for sequence in range(hole.first, hole.last + 1)]
    assert missing == [sequence for sequence in range(begin, last + 1) if sequence in removed]
    assert sum(hole.count for hole in holes) == len(missing)


@given(
    first=st.integers(1, 40),
    messages=st.integers(0, 40),
    sequence=st.integers(1, 100),
    age=st.sampled_from([0.0, AGE]),
    seconds=st.integers(-2_000, 3_000),
)
def test_loss(first: int, messages: int, sequence: int, age: float, seconds: int) -> None:
    """An event that is missing after the journal's beginning is lost, and so is one before it that was not due to
    expire."""
    journal = JournalRange(first=first, last=first + messages - 1, max_age=age)
    recorded_at = NOW - timedelta(seconds=seconds)
    loss = loss_of(sequence, recorded_at, journal, NOW)
    is_due = age > 0 and seconds + CLOCK_SKEW >= age
    assert has_expired(recorded_at, age, NOW) == is_due
    if sequence > journal.last:
        assert loss is Loss.BEYOND_END
    elif sequence >= first:
        assert loss is Loss.INSIDE
    else:
        assert loss is (None if is_due else Loss.TOO_EARLY)
        assert loss_of(sequence, None, journal, NOW) is None


@given(
    last=st.integers(0, 100),
    seen=st.lists(st.tuples(st.sampled_from(["the archive", "consumer projector"]), st.integers(0, 200)), max_size=6),
)
def test_witnesses(last: int, seen: list[tuple[str, int]]) -> None:
    """A witness proves a setback exactly if it has seen more than the journal's end; of each the latest counts."""
    evidence = SetbackEvidence(JournalRange(first=1, last=last, max_age=AGE))
    for who, sequence in seen:
        evidence.add_witness(who, sequence)
    latest = {who: max(number for name, number in seen if name == who) for who, _ in seen}
    assert {one.who: one.sequence for one in evidence.later_witnesses} == {
        who: number for who, number in latest.items() if number > last
    }
    assert evidence.is_setback == any(number > last for number in latest.values())
    assert bool(evidence.lines()) == evidence.is_setback


def test_what_it_says() -> None:
    """Each kind of proof is a fact of its own, with counts and examples."""
    evidence = SetbackEvidence(JournalRange(first=1, last=451, max_age=AGE))
    assert (evidence.is_setback, evidence.lines()) == (False, [])
    evidence.add_witness("the archive", 900)
    evidence.add_witness("consumer projector", 451)
    for number in range(7):
        evidence.add_entry(f"op-{number}", 500 + number, Loss.BEYOND_END, is_ended=number > 1)
    evidence.add_entry("early", 3, Loss.TOO_EARLY, is_ended=True)
    evidence.holes = [SequenceRange(7, 7), SequenceRange(20, 29)]
    evidence.replica_holes = [SequenceRange(40, 41)]
    evidence.lost_bytes = 1_024
    assert evidence.later_witnesses == [Witness(900, "the archive"), Witness(506, "the view")]
    assert evidence.lines() == [
        "it ends at sequence 451, and others have read more: the archive up to 900, the view up to 506",
        "gone from its end: 449 sequences, 452 to 900",
        "missing inside of it, where nothing expires or is deleted: 11 sequences, 7, 20 to 29",
        "one replica of it lacks what its leader has: 2 sequences, 40 to 41",
        "the broker has cut 1,024 bytes from damaged blocks since it started",
        "only the view has the last state of 8 operations, 6 of them ended",
        "  7 after the journal's end",
        "  1 before the journal's beginning, though it was not due to expire",
        "  for example op-0, op-1, op-2, op-3, op-4",
    ]


def test_what_the_broker_counts() -> None:
    """The broker's own count of missing sequences is proof, and is left out where they are known one by one."""
    evidence = SetbackEvidence(JournalRange(first=1, last=9, max_age=0.0))
    evidence.missing = 2
    assert evidence.is_setback
    assert evidence.lines() == ["missing inside of it, where nothing expires or is deleted: 2 sequences"]
    evidence.holes = [SequenceRange(4, 5)]
    assert evidence.lines() == ["missing inside of it, where nothing expires or is deleted: 2 sequences, 4 to 5"]


@pytest.mark.parametrize("kind", ["holes", "replica_holes"])
def test_a_hole_is_proof(kind: str) -> None:
    """Without any witness, a hole alone proves that something is lost."""
    evidence = SetbackEvidence(JournalRange(first=1, last=9, max_age=0.0))
    setattr(evidence, kind, [SequenceRange(3, 3)])
    assert evidence.is_setback
    assert "1 sequence, 3" in evidence.lines()[0]
