"""Timelines of any history: they agree with its fold, its clocks and its hashes."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opstream_schemas.events import Canceled, Event, Failed, Succeeded, digest, encode_event
from opstream_schemas.operation.forced_end import OperationMessage
from opstream_schemas.timeline import build_timeline
from tests.support.schemas.histories import History, histories, instants, texts

pytestmark = pytest.mark.unit


def messages_of(history: History) -> list[OperationMessage]:
    """The messages of the history in the journal."""
    return [OperationMessage(event.sequence, event.stored) for event in history.events]


def retimed(history: History, times: list[datetime]) -> list[OperationMessage]:
    """The same events with other times, from other clocks."""
    messages: list[OperationMessage] = []
    for event, time in zip(history.events, times, strict=True):
        assert event.data is not None
        changed = Event(
            id=event.id,
            source=event.source,
            operation_id=event.operation_id,
            time=time,
            position=event.position,
            previous_hash=digest(messages[-1].payload) if messages else "",
            data=event.data,
        )
        messages.append(OperationMessage(event.sequence, encode_event(changed)))
    return messages


@given(histories(), st.data())
def test_the_phases_are_all_the_time_that_there_was(history: History, data: st.DataObject) -> None:
    """With any clocks each phase begins where the previous one ended, none is negative, and their sum is the time from
    the first event to the outcome, or to now."""
    times = [data.draw(instants) for _ in history.events]
    now = data.draw(instants)
    timeline = build_timeline(history.id, retimed(history, times), now)
    latest = max(times) if history.operation.is_terminal else max(*times, now)

    assert timeline.phases[0].begin == times[0]
    assert all(one.end == other.begin for one, other in zip(timeline.phases, timeline.phases[1:], strict=False))
    assert all(phase.seconds >= 0 for phase in timeline.phases)
    assert timeline.phases[-1].end == latest
    assert timeline.total == pytest.approx((latest - times[0]).total_seconds())
    assert sum(phase.seconds for phase in timeline.phases) == pytest.approx(timeline.total)
    behind = max((max(times[:at]) - times[at]).total_seconds() for at in range(1, len(times))) if times[1:] else 0
    assert timeline.skew == pytest.approx(max(0.0, behind))
    assert timeline.chain.is_intact


@given(histories(unknown=True))
def test_the_timeline_agrees_with_the_fold(history: History) -> None:
    """Status, attempts, outcome and passed-over messages are those of the operation."""
    operation = history.operation
    timeline = build_timeline(history.id, messages_of(history), history.events[-1].time + timedelta(hours=1))

    assert (timeline.status, timeline.ended_at) == (operation.status, operation.finished_at)
    assert [attempt.number for attempt in timeline.attempts] == list(range(1, operation.attempt + 1))
    assert (timeline.events, timeline.unknown, timeline.late, timeline.foreign) == (
        len(history.events),
        operation.skipped,
        0,
        0,
    )
    assert sum(not attempt.counted for attempt in timeline.attempts) == operation.uncounted
    assert (timeline.result, timeline.error) == (operation.result, operation.error)
    assert timeline.request == history.events[0].data
    assert bool(timeline.attempts and not timeline.attempts[-1].end) == (operation.live is not None)
    ends = (Succeeded, Failed, Canceled)
    assert (timeline.ended_at is not None) == any(isinstance(event.data, ends) for event in history.events)


@given(histories(unknown=True), st.data())
def test_an_expired_beginning_is_not_a_break(history: History, data: st.DataObject) -> None:
    """Expired events are not a break, and the remaining ones are shown."""
    cut = data.draw(st.integers(0, len(history.events) - 1))
    timeline = build_timeline(history.id, messages_of(history)[cut:], history.events[-1].time)

    assert timeline.events == len(history.events) - cut
    assert (timeline.chain.is_intact, timeline.chain.begins_at) == (True, cut + 1 if cut else 0)
    assert timeline.status in {history.operation.status, "NotStarted"} or cut == 0


@given(histories(unknown=True), st.data())
def test_a_change_breaks_the_chain(history: History, data: st.DataObject) -> None:
    """A changed, removed or inserted event shows at the first event after it, unless it is the last."""
    messages = messages_of(history)
    assume(len(messages) > 2)
    at = data.draw(st.integers(1, len(messages) - 2))
    change = data.draw(st.sampled_from(["change", "remove", "repeat"]))
    if change == "change":
        other = msgspec.json.decode(messages[at].payload) | {"id": data.draw(texts) + "changed"}
        messages[at] = OperationMessage(messages[at].sequence, msgspec.json.encode(other))
        expected = at + 2
    elif change == "remove":
        del messages[at]
        expected = at + 2
    else:
        messages.insert(at, messages[at])
        expected = at + 1
    timeline = build_timeline(history.id, messages, history.events[-1].time)

    assert (timeline.chain.is_intact, timeline.chain.broken_at) == (False, expected)
