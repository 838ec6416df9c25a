"""What is overdue, for any history and any traces: never too early, never an operation that has ended."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.operation.lateness import (
    GRACE,
    ConsumerPosition,
    Late,
    LateCause,
    MessageTraces,
    find_late,
    is_lost,
)
from opstream_schemas.operation.state import Operation
from tests.support.schemas.histories import NOW, History, ended_histories, histories, open_histories

pytestmark = pytest.mark.unit

seconds = st.integers(-(10**7), 10**7).map(lambda number: timedelta(seconds=number))
moments = seconds.map(lambda delta: NOW + delta)
sequences = st.integers(0, 40)


@st.composite
def positions(draw: st.DrawFn) -> ConsumerPosition:
    """A consumer that has acknowledged no more than it has delivered."""
    acknowledged = draw(sequences)
    return ConsumerPosition(acknowledged=acknowledged, delivered=acknowledged + draw(st.integers(0, 20)))


@st.composite
def traces(draw: st.DrawFn) -> MessageTraces:
    """Any timers, and a message that has fired or none."""
    sequence = draw(sequences)
    return MessageTraces(
        timers=tuple(draw(st.lists(moments, max_size=2))),
        sequence=sequence,
        stored_at=draw(moments) if sequence else None,
    )


def due_times(operation: Operation) -> list[datetime]:
    """The times that the state names, before which nothing can be late."""
    ready_at = operation.wait.ready_at if operation.wait else None
    waiting = [ready_at or operation.waiting.retry_at] if operation.waiting else []
    return [operation.deadline, *(waiting or [operation.created_at])]


@given(ended_histories(), positions(), moments)
def test_what_has_ended_is_never_late(history: History, runners: ConsumerPosition, now: datetime) -> None:
    """An operation with an outcome waits for nothing."""
    assert find_late(history.operation, runners, now=now) is None


@given(histories(), st.none() | positions(), moments)
def test_never_too_early(history: History, runners: ConsumerPosition | None, now: datetime) -> None:
    """Nothing is late before its time and the grace have passed; and what is late names a time in the past."""
    operation = history.operation
    late = find_late(operation, runners, now=now)
    if late is not None:
        assert late.since + GRACE < now
        assert late.since in due_times(operation)
    if all(now <= due + GRACE for due in due_times(operation)):
        assert late is None


@given(open_histories(), st.none() | positions())
def test_a_passed_deadline_is_late(history: History, runners: ConsumerPosition | None) -> None:
    """Every open operation past its deadline is late, whatever else it waits for."""
    operation = history.operation
    late = find_late(operation, runners, now=operation.deadline + GRACE + timedelta(seconds=1))
    assert late is not None
    assert late.cause is LateCause.DEADLINE


@given(open_histories(), positions(), moments, seconds.map(abs))
def test_late_stays_late(history: History, runners: ConsumerPosition, now: datetime, longer: timedelta) -> None:
    """What is late at a time is late at each later one, while nothing happens."""
    if find_late(history.operation, runners, now=now) is not None:
        assert find_late(history.operation, runners, now=now + longer) is not None


@given(open_histories(), positions(), moments)
def test_an_attempt_with_a_lease_is_not_late(history: History, runners: ConsumerPosition, now: datetime) -> None:
    """A live attempt whose message the broker still guards is left alone until the deadline."""
    operation = history.operation
    late = find_late(operation, runners, now=now)
    if operation.live is not None and operation.live.ticket > runners.acknowledged and late is not None:
        assert late.cause is LateCause.DEADLINE


@st.composite
def lates(draw: st.DrawFn) -> Late:
    """Something late."""
    return Late(cause=draw(st.sampled_from(LateCause)), since=draw(moments), sequence=draw(sequences))


@given(lates(), traces(), positions(), moments)
def test_what_is_on_its_way_is_not_lost(
    late: Late, found: MessageTraces, position: ConsumerPosition, now: datetime
) -> None:
    """With a timer to come, or a message that was not delivered yet, nothing is lost."""
    if any(at >= now for at in found.timers) or found.sequence > position.delivered:
        assert not is_lost(late, found, position, now=now)


@given(lates(), positions(), moments)
def test_without_traces_all_is_lost(late: Late, position: ConsumerPosition, now: datetime) -> None:
    """Without a timer and without a message something late is lost, unless its request is still to come."""
    is_request_seen = late.cause is not LateCause.START or late.sequence <= position.acknowledged
    if is_request_seen:
        assert is_lost(late, MessageTraces(), position, now=now)


@given(lates(), traces(), moments)
def test_without_a_consumer_nothing_is_lost(late: Late, found: MessageTraces, now: datetime) -> None:
    """A consumer that does not exist yet gets everything from the beginning."""
    assert not is_lost(late, found, None, now=now)


@given(lates(), traces(), positions())
def test_messages_do_not_pile_up(late: Late, found: MessageTraces, position: ConsumerPosition) -> None:
    """A message that a process may have is sent again after ever longer times: a dozen times in a month."""
    if not position.acknowledged < found.sequence <= position.delivered or late.sequence > found.sequence:
        return
    sent, stored_at = 0, late.since
    for minutes in range(1, 30 * 24 * 60, 10):
        now = late.since + timedelta(minutes=minutes)
        if is_lost(late, MessageTraces(sequence=found.sequence, stored_at=stored_at), position, now=now):
            sent, stored_at = sent + 1, now
    assert 1 <= sent <= 16
