"""The fold over any history: deterministic, incremental, and the same from a snapshot (invariants 1 and 5)."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.errors import FoldRefused
from opstream_schemas.events import EventData, RecordedEvent, Requested, decode_event
from opstream_schemas.operation.fold import evolve, fold, fold_for_reader, skip_unknown
from opstream_schemas.operation.state import TERMINAL_STATUSES, Operation, Status
from opstream_schemas.status_monitor import StatusMonitor, build_status_monitor
from tests.support.schemas.histories import FromTheFuture, History, event_data, histories

pytestmark = pytest.mark.unit

RANKS = {Status.NOT_STARTED: 0, Status.RUNNING: 1} | dict.fromkeys(TERMINAL_STATUSES, 2)


def decoded(history: History) -> list[RecordedEvent]:
    """The events as another process reads them: from their stored bytes."""
    return [
        decode_event(payload, event.sequence) for payload, event in zip(history.payloads, history.events, strict=True)
    ]


@given(histories())
def test_the_fold_is_deterministic(history: History) -> None:
    """The same bytes always fold to the same state, with the same encoded bytes."""
    one, other = fold(None, decoded(history)), fold(None, decoded(history))

    assert history.operation == one == other
    assert msgspec.json.encode(one) == msgspec.json.encode(other)


@given(histories(), st.data())
def test_the_fold_is_prefix_consistent(history: History, data: st.DataObject) -> None:
    """Folding a part and then the rest equals folding all events."""
    cut = data.draw(st.integers(0, len(history.events)))

    assert history.operation == fold(fold(None, history.events[:cut]), history.events[cut:])
    assert history.states == [fold(None, history.events[:count]) for count in range(1, len(history.events) + 1)]


@given(histories(unknown=True))
def test_a_snapshot_is_the_state(history: History) -> None:
    """Each state stays the same when it is encoded and decoded, and encodes to the same bytes again."""
    for state in history.states:
        snapshot = msgspec.json.encode(state)

        restored = msgspec.json.decode(snapshot, type=Operation)

        assert state == restored
        assert snapshot == msgspec.json.encode(restored)


@given(histories(unknown=True), st.data())
def test_folding_on_from_a_snapshot_is_folding_from_the_start(history: History, data: st.DataObject) -> None:
    """A full replay and an updated snapshot have the same bytes (invariant 5)."""
    cut = data.draw(st.integers(1, len(history.events)))
    snapshot = msgspec.json.decode(msgspec.json.encode(history.states[cut - 1]), type=Operation)

    replayed = fold_for_reader(None, decoded(history))

    assert msgspec.json.encode(replayed) == msgspec.json.encode(fold_for_reader(snapshot, decoded(history)[cut:]))


@given(histories(unknown=True))
def test_a_status_never_goes_backwards(history: History) -> None:
    """The status goes from NotStarted to Running to a terminal one, and never back (invariant 4)."""
    ranks = [RANKS[state.status] for state in history.states]

    assert sorted(ranks) == ranks


@given(histories(unknown=True))
def test_positions_count_and_sequences_grow(history: History) -> None:
    """A state has the number of its events and the sequence of the last one."""
    assert list(range(1, len(history.events) + 1)) == [state.position for state in history.states]
    assert [event.sequence for event in history.events] == [state.stream_sequence for state in history.states]
    assert [event.digest for event in history.events] == [state.last_hash for state in history.states]


@given(histories())
def test_one_request_first_and_one_outcome_last(history: History) -> None:
    """A history has exactly one request, its first event, and at most one outcome, its last (invariant 1)."""
    types = [event.type.split(".")[2] for event in history.events]

    assert "requested" not in types[1:]
    assert isinstance(history.events[0].data, Requested)
    assert not {"succeeded", "failed", "canceled"}.intersection(types[:-1])
    assert history.operation.is_terminal == (types[-1] in {"succeeded", "failed", "canceled"})


@given(histories())
def test_an_open_operation_has_an_attempt_or_waits(history: History) -> None:
    """An open operation that has started is either live or waiting; any other one is neither."""
    for state in history.states:
        parts = (state.live is not None) + (state.waiting is not None)
        assert parts == (state.status is Status.RUNNING)
        assert (state.attempt == 0) == (state.started_at is None)
        assert state.is_terminal == (state.finished_at is not None)
        assert 0 <= state.attempts_used <= state.attempt


@given(histories())
def test_without_unknown_types_readers_see_what_deciders_see(history: History) -> None:
    """`fold_for_reader` and `fold` differ only in unknown types."""
    assert fold(None, history.events) == fold_for_reader(None, history.events)


@given(histories(unknown=True))
def test_unknown_types_are_counted_and_stop_deciders(history: History) -> None:
    """A reader skips and counts each one; a decider raises an error if there is one."""
    unknown = sum(event.data is None for event in history.events)

    assert unknown == history.operation.skipped
    if unknown:
        with pytest.raises(FoldRefused, match="does not know"):
            fold(None, history.events)


@given(histories(), event_data | st.just(FromTheFuture()), st.data())
def test_only_the_next_event_is_folded(history: History, extra: EventData, data: st.DataObject) -> None:
    """An event with another position, hash, operation or an older sequence raises an error."""
    event = history.recorded(extra)
    wrong: dict[str, Any] = data.draw(
        st.one_of(
            st.fixed_dictionaries({"position": st.integers().filter(lambda n: n != event.position)}),
            st.fixed_dictionaries({"previous_hash": st.text().filter(lambda text: text != event.previous_hash)}),
            st.fixed_dictionaries({"operation_id": st.text().filter(lambda text: text != event.operation_id)}),
            st.fixed_dictionaries({"sequence": st.integers(max_value=history.events[-1].sequence)}),
        )
    )

    for take in (evolve, skip_unknown):
        with pytest.raises(FoldRefused):
            take(history.operation, msgspec.structs.replace(event, **wrong))


@given(histories(), event_data | st.just(FromTheFuture()))
def test_any_event_is_folded_or_refused(history: History, extra: EventData) -> None:
    """Any next event is folded or raises an error; after an outcome it always raises an error."""
    event = history.recorded(extra)

    try:
        after = evolve(history.operation, event)
    except FoldRefused:
        return
    assert not history.operation.is_terminal
    assert RANKS[history.operation.status] <= RANKS[after.status]
    assert (event.position, event.sequence, event.digest) == (after.position, after.stream_sequence, after.last_hash)
    snapshot = msgspec.json.encode(after)
    assert snapshot == msgspec.json.encode(msgspec.json.decode(snapshot, type=Operation))


@given(histories(), st.data())
def test_no_event_can_be_left_out_or_swapped(history: History, data: st.DataObject) -> None:
    """A lost, repeated or swapped event breaks the chain, and the fold raises an error."""
    events = list(history.events)
    place = data.draw(st.integers(0, len(events) - 1))
    match data.draw(st.sampled_from(["double", "lose", "swap"])):
        case "lose" if place < len(events) - 1:
            del events[place]
        case "swap" if place < len(events) - 1:
            events[place : place + 2] = reversed(events[place : place + 2])
        case _:
            events.insert(place, events[place])

    with pytest.raises(FoldRefused):
        fold_for_reader(None, events)


@given(histories(unknown=True))
def test_a_monitor_shows_the_state(history: History) -> None:
    """Every state has a monitor in valid JSON, with a result or its claim if Succeeded, an error if Failed."""
    for state in history.states:
        seen = build_status_monitor(state)

        assert state.status is seen.status
        has_result = seen.result is not msgspec.UNSET or state.result_payload is not None
        assert has_result == (state.status is Status.SUCCEEDED)
        assert (seen.error is not None) == (state.status is Status.FAILED)
        assert seen == msgspec.json.decode(msgspec.json.encode(seen), type=StatusMonitor)
