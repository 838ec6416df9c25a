"""Decisions in any state: their events, their errors, and that every operation can end (invariants 1-3)."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.errors import AttemptFenced, DecisionRefused, OperationExists, OperationFinished
from opstream_schemas.operation.commands import (
    Command,
    ConfirmCancel,
    Fail,
    FailAttempt,
    ReportProgress,
    RequestAction,
    RequestCancel,
    StartAttempt,
    Succeed,
    decide,
)
from opstream_schemas.operation.dispatch_decision import (
    Ack,
    AppendEvent,
    BeginAttempt,
    RedeliverLater,
    ScheduleWake,
    Trigger,
    decide_dispatch,
)
from opstream_schemas.operation.state import Operation, Status
from tests.support.schemas.histories import (
    FAILURE,
    NOW,
    History,
    commands,
    ended_histories,
    histories,
    open_histories,
    request,
    running_histories,
)

pytestmark = pytest.mark.unit

deliveries = st.builds(Trigger, ticket=st.integers(1, 30), scheduled_by=st.integers(0, 30))


def of_attempt(token: str) -> list[Command]:
    """All commands of an attempt."""
    return [
        ReportProgress(token=token, percent=1.0),
        Succeed(token=token, result=b"1"),
        Fail(token=token, error=FAILURE),
        FailAttempt(token=token, error=FAILURE, retry_at=NOW, counted=True),
        ConfirmCancel(token=token),
    ]


def carry_out(history: History, delivery: Trigger, decision: object) -> bool:
    """Do the first thing that a runner does about a decision. Return True if it recorded an event."""
    match decision:
        case AppendEvent(data=data):
            history.append(data)
        case BeginAttempt():
            token = f"token-{len(history.events)}"
            history.act(StartAttempt(runner="r", token=token, ticket=delivery.ticket, lease=30.0))
        case _:
            return False
    return True


def owed(history: History, *, max_attempts: int) -> Trigger:
    """The message that the journal will still deliver for an open operation."""
    operation = history.operation
    if operation.live is not None:
        return Trigger(ticket=operation.live.ticket)
    if operation.waiting is None:
        return Trigger(ticket=history.events[0].sequence)
    # Any delivered message schedules the wake-up timer, and so does its redelivery. Then the timer fires.
    stale = Trigger(ticket=operation.waiting.ticket + 1)
    armed = decide_dispatch(operation, stale, now=operation.created_at, max_attempts=max_attempts)
    return Trigger(
        ticket=operation.stream_sequence + 1, scheduled_by=armed.scheduled_by if isinstance(armed, ScheduleWake) else 0
    )


@given(ended_histories(), st.data())
def test_a_terminal_state_is_never_left(history: History, data: st.DataObject) -> None:
    """After an outcome no command causes an event, and each message is acknowledged."""
    command = data.draw(commands(history))

    try:
        assert decide(history.operation, command) is None
    except OperationExists:
        assert isinstance(command, RequestAction)
    except OperationFinished:
        assert history.operation.status is not Status.CANCELED or not isinstance(command, RequestCancel)
    else:
        assert history.operation.status is Status.CANCELED
        assert isinstance(command, RequestCancel)
    delivered = decide_dispatch(history.operation, data.draw(deliveries), now=NOW, max_attempts=1)
    assert Ack(2) == delivered


@given(histories(), st.data())
def test_what_is_decided_is_folded(history: History, data: st.DataObject) -> None:
    """Every event that a command causes can be encoded, decoded and folded at its position."""
    before = history.operation

    try:
        decided = history.act(data.draw(commands(history)))
    except DecisionRefused:
        decided = None

    expected = before.position + (decided is not None)
    assert expected == history.operation.position
    assert decided is None or history.events[-1].data == decided


@given(histories())
def test_every_earlier_attempt_is_fenced(history: History) -> None:
    """After a later attempt has started, or the attempt was released, its token records nothing (invariant 3)."""
    live = history.operation.live
    refusal = OperationFinished if history.operation.is_terminal else AttemptFenced

    for token in history.tokens:
        if live is None or token != live.token:
            for command in of_attempt(token):
                with pytest.raises(refusal):
                    decide(history.operation, command)


@given(running_histories())
def test_the_live_attempt_can_always_record_its_outcome(history: History) -> None:
    """The live attempt can record its outcome, even after a cancel request."""
    for command in of_attempt(history.tokens[-1]):
        assert decide(history.operation, command) is not None


@given(open_histories())
def test_an_open_operation_can_always_be_stopped(history: History) -> None:
    """A cancel request ends an operation without a live attempt; for a live one it is recorded, but only once."""
    running, asked = history.operation.live is not None, history.operation.cancel is not None

    decided = history.act(RequestCancel(reason="enough"))

    assert running == (history.operation.status is Status.RUNNING)
    assert (decided is None) == (running and asked)
    assert history.operation.is_terminal or history.operation.cancel is not None


@given(
    st.none() | histories().map(lambda history: history.operation), deliveries, st.integers(-1, 1), st.integers(1, 4)
)
def test_every_message_in_every_state_is_decided(
    operation: Operation | None, delivery: Trigger, days: int, max_attempts: int
) -> None:
    """The table has a row for every state and message, and starts no operation that ended or is live elsewhere."""
    now = (operation.deadline if operation else NOW) + timedelta(days=days)

    decision = decide_dispatch(operation, delivery, now=now, max_attempts=max_attempts)

    assert 1 <= decision.row <= 9
    assert (operation is None) == isinstance(decision, RedeliverLater)
    if operation is not None and isinstance(decision, BeginAttempt | AppendEvent):
        assert not operation.is_terminal
        assert operation.live is None or operation.live.ticket == delivery.ticket


@given(histories(), deliveries, st.integers(-1, 1), st.integers(1, 4))
def test_what_the_table_decides_is_folded(history: History, delivery: Trigger, days: int, max_attempts: int) -> None:
    """Every event that a message causes can be folded; after it the same message is acknowledged."""
    now = history.operation.deadline + timedelta(days=days)

    decision = decide_dispatch(history.operation, delivery, now=now, max_attempts=max_attempts)

    if carry_out(history, delivery, decision) and isinstance(decision, AppendEvent):
        assert history.operation.is_terminal
        assert Ack(2) == decide_dispatch(history.operation, delivery, now=now, max_attempts=max_attempts)


@given(open_histories(), st.integers(1, 4))
def test_an_open_operation_always_makes_progress(history: History, max_attempts: int) -> None:
    """For each open state a message will still be delivered, and it causes an event (invariant 2)."""
    before = history.operation
    delivery = owed(history, max_attempts=max_attempts)

    decision = decide_dispatch(before, delivery, now=before.created_at, max_attempts=max_attempts)

    assert carry_out(history, delivery, decision)
    assert before.position < history.operation.position


@given(st.integers(1, 6), st.lists(st.booleans(), max_size=5))
def test_runners_that_keep_dying_end_the_operation(max_attempts: int, deaths: list[bool]) -> None:
    """A message that is redelivered after each crash starts as many attempts as allowed, then fails the operation.

    A graceful shutdown in between releases the attempt, which does not count, and only its wake-up starts the next.
    """
    history = History().append(request())
    delivery = Trigger(ticket=1)
    for died in [*deaths, *[True] * max_attempts]:
        decision = decide_dispatch(history.operation, delivery, now=NOW, max_attempts=max_attempts)
        carry_out(history, delivery, decision)
        if history.operation.is_terminal:
            break
        if not died:
            history.act(FailAttempt(token=history.tokens[-1], error=FAILURE, retry_at=NOW, counted=False))
            # The same message starts nothing any more, since the runner that stopped is about to acknowledge it.
            again = decide_dispatch(history.operation, delivery, now=NOW, max_attempts=max_attempts)
            assert isinstance(again, ScheduleWake)
            delivery = owed(history, max_attempts=max_attempts)

    if not history.operation.is_terminal:
        last = decide_dispatch(history.operation, delivery, now=NOW, max_attempts=max_attempts)
        assert carry_out(history, delivery, last)
    assert history.operation.status is Status.FAILED
    assert max_attempts == history.operation.attempts_used


@given(st.lists(st.tuples(deliveries, st.sampled_from(["run", "die", "back", "fail", "cancel"])), max_size=10))
def test_competing_messages_lead_to_one_end(steps: list[tuple[Trigger, str]]) -> None:
    """Runners that run, crash, release and fail, with stale timers and redeliveries, give an operation one outcome.

    One attempt runs at a time, attempts are numbered without gaps, and the messages still to be delivered are enough.
    """
    history = History().append(request())
    for delivery, fate in steps:
        runs_elsewhere = history.operation.live is not None and history.operation.live.ticket != delivery.ticket
        decision = decide_dispatch(history.operation, delivery, now=NOW, max_attempts=3)
        assert not runs_elsewhere or Ack(3) == decision
        carry_out(history, delivery, decision)
        if not isinstance(decision, BeginAttempt):
            continue
        match fate:
            case "run":
                history.act(Succeed(token=history.tokens[-1], result=b"1"))
            case "back" | "fail":
                counted = fate == "fail"
                history.act(FailAttempt(token=history.tokens[-1], error=FAILURE, retry_at=NOW, counted=counted))
            case "cancel":
                history.act(RequestCancel())
            case _:
                pass  # the runner died; nothing says so

    for _ in range(5):
        if not history.operation.is_terminal:
            delivery = owed(history, max_attempts=3)
            carry_out(history, delivery, decide_dispatch(history.operation, delivery, now=NOW, max_attempts=3))
    assert history.operation.is_terminal
    assert len(history.tokens) == history.operation.attempt
