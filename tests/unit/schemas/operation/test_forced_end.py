"""Forced ends, case by case: what they pass over, and what is not a valid forced end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from opstream_projector.projection.snapshot_fold import fold_all, fold_onto
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.events import Failed, ForcedEnd, Progressed, RecordedEvent, decode_event, digest, encode_event
from opstream_schemas.operation.commands import operator_error
from opstream_schemas.operation.fold import evolve, fold, fold_for_reader
from opstream_schemas.operation.forced_end import (
    OperationMessage,
    decode_events,
    events_from_request,
    forced_end_event,
    inspect_messages,
)
from opstream_schemas.operation.state import Operation, Status
from tests.support.schemas.histories import NOW, FromTheFuture, History, request, started

pytestmark = pytest.mark.unit

ERROR = operator_error("")
DAMAGE = b"{}"


def history() -> History:
    return History().append(request(), started(), Progressed(percent=20.0))


def messages(*payloads: bytes) -> list[OperationMessage]:
    """Payloads as messages with the sequences 1, 2, 3 …"""
    return [OperationMessage(number, payload) for number, payload in enumerate(payloads, start=1)]


def ended(*payloads: bytes, **changes: Any) -> list[OperationMessage]:
    """Messages and their forced end; `changes` are made to the event."""
    before = messages(*payloads)
    end = forced_end_event(inspect_messages("op-1", before), ERROR, "why", id="end", source="operator", time=NOW)
    return [*before, OperationMessage(len(before) + 1, encode_event(msgspec.structs.replace(end, **changes)))]


def read_all(found: list[OperationMessage]) -> Operation:
    operation = fold_for_reader(None, decode_events(found))
    assert operation is not None
    return operation


def again() -> bytes:
    """The same request, by another caller."""
    return encode_event(msgspec.structs.replace(History().next_event(request()), id="again"))


def newer() -> bytes:
    """An event of an unknown type that continues the history."""
    return encode_event(history().next_event(FromTheFuture()))


@pytest.mark.parametrize(
    ("ruins", "position", "passed_over", "skipped"),
    [
        ([DAMAGE], 5, 1, 1),
        ([again()], 5, 1, 1),
        ([newer()], 5, 0, 1),
        ([newer(), again(), DAMAGE], 7, 2, 3),
        ([DAMAGE, newer()], 6, 1, 2),
    ],
    ids=["damaged", "requested again", "newer", "everything", "newer behind damage"],
)
def test_what_it_passes_over(ruins: list[bytes], position: int, passed_over: int, skipped: int) -> None:
    """The end counts all messages before it; events before it are folded as far as they continue the operation."""
    found = ended(*history().payloads, *ruins)
    end = decode_events(found)[-1]
    operation = read_all(found)

    assert isinstance(end.data, Failed)
    assert end.data.forced == ForcedEnd(sequence=len(found) - 1, passed_over=passed_over, reason="why")
    assert (end.position, end.previous_hash) == (position, digest(found[-2].payload))
    assert (operation.status, operation.error, operation.skipped) == (Status.FAILED, ERROR, skipped)
    assert (operation.percent_complete, operation.finished_at) == (20.0, NOW)
    assert (operation.live, operation.position, operation.stream_sequence) == (None, position, len(found))
    assert operation == fold(None, decode_events(found)) == fold_all(decode_events(found)).operation


@pytest.mark.parametrize(
    "changes",
    [{"previous_hash": "0" * 64}, {"operation_id": "op-2"}, {"previous_hash": history().events[-1].digest}],
)
@pytest.mark.parametrize("ruin", [DAMAGE, again()], ids=["damaged", "requested again"])
def test_an_invalid_end_is_foreign(changes: dict[str, str], ruin: bytes) -> None:
    """An end without the hash of the message right before it, or of another operation, is foreign."""
    found = ended(*history().payloads, ruin, **changes)

    with pytest.raises((FoldRefused, InvalidEvent)):
        read_all(found)


def test_a_message_stored_in_between_makes_the_end_invalid() -> None:
    """A message that was stored after the operator's inspection is not passed over silently."""
    *before, end = ended(*history().payloads, again())
    found = [*before, OperationMessage(end.sequence, again()), OperationMessage(end.sequence + 1, end.payload)]

    with pytest.raises(FoldRefused):
        read_all(found)


def test_only_the_last_event_can_be_a_forced_end() -> None:
    """Any event after a forced end raises an error, as after any outcome."""
    found = [*ended(*history().payloads, again()), OperationMessage(9, again())]

    with pytest.raises(FoldRefused):
        read_all(found)


def test_a_finished_operation_can_not_be_ended_by_force() -> None:
    """An operation with an outcome can't be ended by force."""
    one = history().append(Failed(error=ERROR))

    found = inspect_messages("op-1", messages(*one.payloads, DAMAGE))

    assert found.operation == one.operation
    with pytest.raises(FoldRefused, match="terminal"):
        read_all(ended(*one.payloads, again()))


def test_a_forced_end_alone_does_not_continue_an_earlier_state() -> None:
    """Without the events before it, the end raises an error, so the reader reads those first."""
    one = history()
    end = decode_events(ended(*one.payloads, again()))[-1]

    for state in one.states:
        with pytest.raises(FoldRefused):
            evolve(state, end)
    assert fold_onto(one.operation, [end]).operation == one.operation


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_forced_end_continues_an_earlier_state_with_the_events_between(count: int) -> None:
    """If the message before the end is an event, folding on from an earlier state equals folding all."""
    one = history()
    found = ended(*one.payloads, DAMAGE, again())

    assert fold_for_reader(one.states[count - 1], decode_events(found[count:])) == read_all(found)


def test_the_projector_reports_what_was_passed_over() -> None:
    """Messages that were passed over are still reported as foreign; the end is not."""
    events = decode_events(ended(*history().payloads, again()))

    assert [one.event for one in fold_all(events).refused] == [events[-2]]


def test_a_healthy_operation() -> None:
    """An operation without problems has nothing to pass over."""
    one = history()

    found = inspect_messages("op-1", messages(*one.payloads))

    assert (found.problem, found.operation, found.passed_over, found.message_count) == (None, one.operation, 0, 3)


def test_another_operation_on_the_same_subjects() -> None:
    """Events of another operation are not part of this one."""
    found = inspect_messages("op-2", messages(*history().payloads))

    assert isinstance(found.problem, FoldRefused)
    assert (found.operation, found.passed_over) == (None, 3)


def test_without_a_request_nothing_can_be_read() -> None:
    """Without its request there is no operation, although it has an end."""
    found = ended(DAMAGE, *history().payloads[1:])
    events = decode_events(found)

    assert list(events_from_request("op-1", events)) == []
    assert events[-1].position == 4
    with pytest.raises(FoldRefused, match="can't be read"):
        fold_for_reader(None, events)


def test_the_operators_reason() -> None:
    """The client reads the reason; the event has it in a member of its own, cut like all texts."""
    assert operator_error("late").message == "an operator ended the operation: late"
    before = messages(*history().payloads, DAMAGE)
    end = forced_end_event(inspect_messages("op-1", before), ERROR, "é" * 5000, id="end", source="operator", time=NOW)
    stored: RecordedEvent = decode_event(encode_event(end), 5)
    assert isinstance(stored.data, Failed)
    assert stored.data.forced is not None
    assert len(stored.data.forced.reason.encode()) <= 4096
