"""Streams that have stopped to answer publishes."""

from __future__ import annotations

import pytest

from opstream_journal.jetstream.unanswered_publishes import UnansweredPublishes

pytestmark = pytest.mark.unit


class Clock:
    """Seconds that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_is_not_lasting() -> None:
    """One publish without an answer says little; a second one some seconds later says that the stream is silent."""
    clock = Clock()
    unanswered = UnansweredPublishes(clock)
    unanswered.add("operations.op-1.book.upload.requested")
    assert (unanswered.streams, unanswered.lasting()) == (["OPERATIONS"], [])
    clock.now = 5.0
    unanswered.add("operations.op-2.book.upload.requested")
    assert unanswered.lasting() == ["OPERATIONS"]
    clock.now = 700.0
    assert unanswered.lasting() == []


def test_an_answer_ends_it() -> None:
    """An answer of the same stream, but of no other one, ends it; a new connection ends all."""
    clock = Clock()
    unanswered = UnansweredPublishes(clock)
    for subject in ("$KV.operations.op-1", "$KV.holds.h.a.b", "fire.book.upload.op-1.retry"):
        unanswered.add(subject)
    unanswered.remove("$KV.operations.op-2")
    assert unanswered.streams == ["KV_holds", "TIMERS"]
    unanswered.remove("timers.book.upload.op-1.retry")
    assert unanswered.streams == ["KV_holds"]
    assert unanswered
    unanswered.clear()
    assert not unanswered
