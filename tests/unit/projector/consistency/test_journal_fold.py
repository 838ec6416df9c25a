"""The fold of the whole journal: each operation's state at its end, in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_journal.jetstream.scans.scanned_message import ScannedMessage
from opstream_projector.consistency.journal_fold import FoldedOperation, JournalFold
from opstream_projector.consistency.view_scan import OperationExamples, SeenRevisions
from opstream_schemas import subjects
from opstream_schemas.events import RecordedEvent
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import Operation
from tests.support.schemas.histories import History, histories, request, started

pytestmark = pytest.mark.unit

KIND = Kind("book", "upload-start")


def message(sequence: int, operation_id: str, payload: bytes, kind: Kind = KIND, name: str = "x") -> ScannedMessage:
    subject = subjects.event_subject(operation_id, kind, name)
    return ScannedMessage(sequence=sequence, subject=subject, data=payload, nanoseconds=0)


def subject_and_payload(history: History, event: RecordedEvent) -> tuple[str, bytes, Kind, str]:
    return history.id, event.stored, history.operation.kind, event.data.name if event.data else "x"


@st.composite
def journals(draw: st.DrawFn) -> tuple[list[ScannedMessage], dict[str, Operation]]:
    """Some operations whose events lie between each other, and what each comes to.

    A sequence is part of the state, so the fold is done again with those that the events have here.
    """
    found = draw(st.lists(histories(unknown=True), min_size=1, max_size=6, unique_by=lambda history: history.id))
    queues = [[subject_and_payload(history, event) for event in history.events] for history in found]
    order = draw(st.permutations([number for number, queue in enumerate(queues) for _ in queue]))
    messages = [message(sequence, *queues[number].pop(0)) for sequence, number in enumerate(order, start=1)]
    alone = {history.id: JournalFold() for history in found}
    wanted: dict[str, Operation] = {}
    for history in found:
        own = [one for one in messages if one.subject.split(".")[1] == history.id]
        fold = alone[history.id]
        last = [*fold.fold(own), *fold.drain()]
        assert len(last) == 1
        assert last[0].operation is not None
        wanted[history.id] = last[0].operation
    return messages, wanted


@given(journals(), st.integers(1, 4), st.integers(1, 7))
def test_every_operation_is_returned(
    journal: tuple[list[ScannedMessage], dict[str, Operation]], max_states: int, size: int
) -> None:
    """Whatever lies between its events, an operation is returned with its last state, or without one after an eviction;
    there are never more states than allowed, and none is left at the end."""
    messages, wanted = journal
    fold = JournalFold(max_states=max_states)
    found: list[FoldedOperation] = []
    for start in range(0, len(messages), size):
        found += fold.fold(messages[start : start + size])
        assert fold.state_count <= max_states
    found += fold.drain()
    assert fold.state_count == 0
    assert fold.messages == fold.events == len(messages)
    assert {one.operation_id for one in found} == wanted.keys()
    for operation_id, operation in wanted.items():
        own = [one for one in found if one.operation_id == operation_id]
        if len(own) == 1:
            assert own[0].operation == operation
        for one in own[1:]:
            assert one.operation is None  # its beginning was evicted: only its own events have the state
        assert all(one.operation is None or one.operation.position <= operation.position for one in own)


@given(journals())
def test_with_room_for_all_each_is_returned_once(journal: tuple[list[ScannedMessage], dict[str, Operation]]) -> None:
    """Exactly the last state of each operation is returned."""
    messages, wanted = journal
    fold = JournalFold()
    found = [*fold.fold(messages), *fold.drain()]
    assert len(found) == len(wanted)
    assert {one.operation_id: one.operation for one in found} == wanted
    assert all(one.is_last for one in found)
    assert fold.operations == len(wanted)


def test_what_is_not_an_event_is_not_trusted() -> None:
    """After an invalid message the operation is returned without a state."""
    history = History("op-1").append(request(), started())
    fold = JournalFold()
    messages = [message(1, "op-1", history.payloads[0]), message(2, "op-1", b"nothing")]
    assert fold.fold([*messages, message(3, "op-1", history.payloads[1])]) == []
    assert list(fold.drain()) == [FoldedOperation("op-1", None, is_last=True)]
    assert fold.invalid.count == 1


def test_fired_timers_are_skipped() -> None:
    """They count as messages, but not as events."""
    fold = JournalFold()
    wake = ScannedMessage(sequence=1, subject="wake.book.upload-start.op-1.retry", data=b"1", nanoseconds=0)
    assert fold.fold([wake]) == []
    assert (fold.messages, fold.events, fold.invalid.count) == (1, 0, 0)


@given(st.sets(st.integers(90, 400)), st.integers(90, 400))
def test_seen_revisions(revisions: set[int], probe: int) -> None:
    """The set contains the added revisions within its window, and no others; its memory is bounded."""
    seen = SeenRevisions(100, size=16)
    for one in revisions:
        seen.add(one)
    assert (probe in seen) == (probe in revisions and 100 <= probe < 100 + 16 * 8)


def test_operation_examples() -> None:
    """The first ones are named, each once; all are counted."""
    named = OperationExamples()
    for number in range(50):
        named.add(f"op-{number}", "why")
        named.add("op-0", "again")
    assert (named.count, len(named.examples), named.examples["op-0"]) == (50, 20, "why")
