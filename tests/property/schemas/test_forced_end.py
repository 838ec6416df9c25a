"""Forced ends of any history with any messages in between: every way to read it gives the same end (ADR 0014)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opstream_projector.projection.snapshot_fold import fold_all, fold_onto, supersedes
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.events import Failed, RecordedEvent, decode_event, digest, encode_event
from opstream_schemas.operation.fold import fold, fold_damaged, fold_for_reader
from opstream_schemas.operation.forced_end import (
    Inspection,
    OperationMessage,
    decode_events,
    events_from_request,
    forced_end_event,
    inspect_messages,
)
from opstream_schemas.operation.state import Operation, Status
from tests.support.schemas.histories import NOW, History, events, histories
from tests.support.schemas.junk_messages import ERROR, id_of, undecidable_messages

pytestmark = pytest.mark.unit


def ended(messages: list[OperationMessage]) -> tuple[Inspection, list[OperationMessage]]:
    """The inspection, and the messages with the forced end."""
    found = inspect_messages(id_of(messages), messages)
    end = forced_end_event(found, ERROR, "a foreign message", id="end", source="test", time=NOW)
    return found, [*messages, OperationMessage(messages[-1].sequence + 1, encode_event(end))]


def read_all(messages: list[OperationMessage]) -> Operation | None:
    """The fold of all messages, from the first."""
    return fold_for_reader(None, decode_events(messages))


@given(undecidable_messages())
def test_it_ends_what_can_be_read(messages: list[OperationMessage]) -> None:
    """The operation has the state that could be read, as Failed, and refuses every command."""
    found, messages = ended(messages)
    kept, operation = found.operation, read_all(messages)

    assert kept is not None
    assert operation is not None
    assert operation.is_terminal
    assert (operation.status, operation.error) == (Status.FAILED, ERROR)
    assert (operation.stream_sequence, operation.last_hash) == (messages[-1].sequence, digest(messages[-1].payload))
    assert operation.skipped == kept.skipped + found.passed_over
    assert (operation.attempt, operation.created_at) == (kept.attempt, kept.created_at)
    again = inspect_messages(operation.id, messages)
    assert (again.problem, again.operation) == (None, operation)


@given(undecidable_messages())
def test_deciders_and_readers_see_the_same(messages: list[OperationMessage]) -> None:
    """Unknown types before the end don't stop deciders; the state is terminal, so there is nothing to decide."""
    _, messages = ended(messages)

    operation = read_all(messages)

    assert operation == fold(None, decode_events(messages)) == fold(operation, ())


@given(undecidable_messages(), st.data())
def test_reading_on_is_reading_all(messages: list[OperationMessage], data: st.DataObject) -> None:
    """From any earlier state the end folds to the same bytes as from the start, or raises an error."""
    found, messages = ended(messages)
    cut = data.draw(st.integers(1, len(messages) - 1))
    known, _ = fold_damaged(None, own(messages[:cut]))

    try:
        operation = fold_for_reader(known, decode_events(messages[cut:]))
    except (FoldRefused, InvalidEvent):
        assert found.passed_over
        return
    assert msgspec.json.encode(operation) == msgspec.json.encode(read_all(messages))


@given(undecidable_messages(), st.data())
def test_the_projector_sees_the_same(messages: list[OperationMessage], data: st.DataObject) -> None:
    """After any deliveries the projector never folds the end wrongly, and from the whole journal it folds it."""
    _, messages = ended(messages)
    delivered = [event for event in own(messages) if data.draw(st.booleans())]

    before = fold_onto(None, own(messages[:-1])).operation
    some = fold_onto(None, delivered).operation
    whole = fold_all(decode_events(messages)).operation

    assert whole == read_all(messages)
    assert whole is not None
    assert supersedes(whole, before)
    assert some is None or not some.is_terminal or some == whole


@given(undecidable_messages(), st.data())
def test_an_end_of_other_messages_is_foreign(messages: list[OperationMessage], data: st.DataObject) -> None:
    """If the message right before it is another one, or one was stored in between, it ends nothing."""
    _, messages = ended(messages)
    last, end = messages[-2:]
    stranger = data.draw(st.binary(max_size=20) | events.map(encode_event))
    assume(stranger != last.payload)
    if data.draw(st.booleans()):
        messages[-2] = OperationMessage(last.sequence, stranger)
    else:
        messages[-1:] = [OperationMessage(last.sequence + 1, stranger), OperationMessage(end.sequence + 1, end.payload)]

    with pytest.raises((FoldRefused, InvalidEvent)):
        read_all(messages)


@given(histories(ending=False), st.integers(1, 3), st.integers(0, 2))
def test_a_newer_version_may_read_more(history: History, passed_over: int, more: int) -> None:
    """If this version can fold messages that the operator's version passed over, the end is still valid."""
    kept = history.states[max(0, len(history.states) - 1 - more)]
    last = OperationMessage(history.events[-1].sequence, history.payloads[-1])
    found = Inspection(
        operation_id=kept.id,
        operation=kept,
        passed_over=passed_over,
        message_count=9,
        last_message=last,
        problem=FoldRefused("old"),
    )
    end = forced_end_event(found, ERROR, "", id="end", source="test", time=NOW)
    stored = decode_event(encode_event(end), last.sequence + 1)

    operation = fold_for_reader(None, [*history.events, stored])

    assert operation is not None
    assert (operation.status, operation.position) == (Status.FAILED, end.position)


@given(histories(ending=False))
def test_without_a_request_there_is_no_operation(history: History) -> None:
    """Without a request there is no operation, only its end."""
    messages = [
        OperationMessage(1, b"{}"),
        *(OperationMessage(one.sequence + 1, one.stored) for one in history.events[1:]),
    ]
    found = inspect_messages(history.id, messages)
    end = forced_end_event(found, ERROR, "", id="end", source="test", time=NOW)
    messages.append(OperationMessage(messages[-1].sequence + 1, encode_event(end)))

    assert (found.operation, found.passed_over, end.position) == (None, len(messages) - 1, len(messages))
    assert isinstance(end.data, Failed)
    assert list(events_from_request(history.id, decode_events(messages))) == []


def own(messages: list[OperationMessage]) -> list[RecordedEvent]:
    """The events that the projector does not sort out as foreign."""
    found = []
    for message in messages:
        try:
            event = decode_event(message.payload, message.sequence)
        except InvalidEvent:
            continue
        if event.operation_id == id_of(messages):
            found.append(event)
    return found
