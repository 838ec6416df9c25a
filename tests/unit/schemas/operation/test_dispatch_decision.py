"""The runner's decision table (docs/architecture.md): each row, and that the first matching row decides."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from opstream_schemas.events import Canceled, CancelRequested, EventData, Failed, Succeeded
from opstream_schemas.operation.commands import deadline_outcome, runner_lost_outcome
from opstream_schemas.operation.dispatch_decision import (
    UNDECIDABLE_RETRY_SECONDS,
    Ack,
    AppendEvent,
    BeginAttempt,
    DispatchDecision,
    RedeliverLater,
    ScheduleWake,
    Trigger,
    decide_dispatch,
)
from opstream_schemas.operation.state import Operation
from tests.support.schemas.histories import DEADLINE, FAILURE, NOW, History, handed_back, request, started, waits

pytestmark = pytest.mark.unit

MINE = Trigger(ticket=1)
OTHER = Trigger(ticket=50)
LATE = DEADLINE + timedelta(microseconds=1)
RETRY_AT = NOW + timedelta(minutes=5)
START_AT = NOW + timedelta(hours=1)
WISH = CancelRequested(by="ann", reason="late")
COUNTED = handed_back(counted=True, retry_at=RETRY_AT)
NAP_END = DEADLINE - timedelta(hours=1)
NAP = waits(until=NAP_END)
UNCOUNTED = handed_back(counted=False, retry_at=RETRY_AT)
MAX_ATTEMPTS = 2


def after(*datas: EventData) -> Operation:
    """The state of a requested operation after some events; event n has the stream sequence n."""
    return History().append(request(), *datas).operation


def later(*datas: EventData) -> Operation:
    """The same for a request with a start time."""
    return History().append(request(start_at=START_AT), *datas).operation


def wake(armed_by: int, *, is_timely: bool = True) -> Trigger:
    """A wake-up timer that the event at this sequence scheduled."""
    return Trigger(ticket=50, scheduled_by=armed_by, is_timely=is_timely)


CANCELED = Canceled(by="ann", reason="late")
OVERDUE = deadline_outcome(after())
LOST = runner_lost_outcome(after(started(), started(2)))

# A row, what it is about, the state, the message, the time, and what to do.
TABLE: list[tuple[int, str, Operation | None, Trigger, datetime, DispatchDecision]] = [
    (1, "the fold refuses", None, MINE, NOW, RedeliverLater(1, 60.0)),
    (1, "whatever the time", None, MINE, LATE, RedeliverLater(1, 60.0)),
    (1, "also a wake", None, wake(3), NOW, RedeliverLater(1, 60.0)),
    (2, "succeeded", after(started(), Succeeded(result=msgspec.Raw(b"1"))), MINE, NOW, Ack(2)),
    (2, "failed before it started", after(Failed(error=FAILURE)), MINE, NOW, Ack(2)),
    (2, "canceled", after(Canceled()), MINE, NOW, Ack(2)),
    (2, "before 3: succeeded elsewhere", after(started(), Succeeded(result=msgspec.Raw(b"1"))), OTHER, NOW, Ack(2)),
    (2, "before 4: failed after a cancel request", after(started(), WISH, Failed(error=FAILURE)), MINE, NOW, Ack(2)),
    (2, "before 5: beyond the deadline", after(started(), Failed(error=FAILURE)), MINE, LATE, Ack(2)),
    (2, "before 6: canceled at once", after(Canceled()), OTHER, NOW, Ack(2)),
    (2, "before 8: failed in a wait", after(started(), COUNTED, Failed(error=FAILURE)), wake(3), NOW, Ack(2)),
    (3, "live elsewhere", after(started()), OTHER, NOW, Ack(3)),
    (3, "live elsewhere, and a wake", after(started()), wake(2), NOW, Ack(3)),
    (3, "live elsewhere, in a second attempt", after(started(), COUNTED, started(2, ticket=9)), MINE, NOW, Ack(3)),
    (3, "before 4: live elsewhere, to be canceled", after(started(), WISH), OTHER, NOW, Ack(3)),
    (3, "before 5: live elsewhere, overdue", after(started()), OTHER, LATE, Ack(3)),
    (3, "before 7: live elsewhere, in the last attempt", after(started(), started(2)), OTHER, NOW, Ack(3)),
    (4, "to be canceled, its runner lost", after(started(), WISH), MINE, NOW, AppendEvent(4, CANCELED)),
    (4, "to be canceled, handed back", after(started(), WISH, COUNTED), OTHER, NOW, AppendEvent(4, CANCELED)),
    (4, "before 5: overdue", after(started(), WISH), MINE, LATE, AppendEvent(4, CANCELED)),
    (4, "before 6: not started", after(WISH), MINE, NOW, AppendEvent(4, CANCELED)),
    (4, "before 7: no attempt left", after(started(), started(2), WISH), MINE, NOW, AppendEvent(4, CANCELED)),
    (4, "before 9: handed back", after(started(), WISH, UNCOUNTED), MINE, NOW, AppendEvent(4, CANCELED)),
    (4, "before 8: woken", after(started(), WISH, COUNTED), wake(4), NOW, AppendEvent(4, CANCELED)),
    (4, "before 9: waiting", after(started(), WISH, COUNTED), MINE, NOW, AppendEvent(4, CANCELED)),
    (5, "running under this ticket", after(started()), MINE, LATE, AppendEvent(5, OVERDUE)),
    (5, "before 6: not started", after(), MINE, LATE, AppendEvent(5, OVERDUE)),
    (5, "before 7: no attempt left", after(started(), started(2)), MINE, LATE, AppendEvent(5, OVERDUE)),
    (5, "before 9: handed back", after(started(), UNCOUNTED), MINE, LATE, AppendEvent(5, OVERDUE)),
    (5, "before 8: woken", after(started(), COUNTED), wake(3), LATE, AppendEvent(5, OVERDUE)),
    (5, "before 9: waiting", after(started(), COUNTED), MINE, LATE, AppendEvent(5, OVERDUE)),
    (6, "requested", after(), MINE, NOW, BeginAttempt(6)),
    (6, "a wake for what has not started", after(), wake(1), NOW, BeginAttempt(6)),
    (6, "not yet beyond the deadline", after(), MINE, DEADLINE, BeginAttempt(6)),
    (6, "before its start time", later(), MINE, NOW, ScheduleWake(6, START_AT, 1, "start")),
    (6, "woken by the sweep before it", later(), wake(1, is_timely=False), NOW, ScheduleWake(6, START_AT, 1, "start")),
    (6, "woken at it, by the broker's clock", later(), wake(1), NOW, BeginAttempt(6)),
    (6, "requested, and it has come", later(), MINE, START_AT, BeginAttempt(6)),
    (2, "before 6: canceled before its start time", later(Canceled()), wake(1), START_AT, Ack(2)),
    (5, "before 6: overdue, with a start time", later(), wake(1), LATE, AppendEvent(5, OVERDUE)),
    (7, "attempts are left", after(started()), MINE, NOW, BeginAttempt(7)),
    (7, "a wake's attempt, under the wake's ticket", after(started(ticket=50)), wake(9), NOW, BeginAttempt(7)),
    (7, "no attempt is left", after(started(), started(2)), MINE, NOW, AppendEvent(7, LOST)),
    (7, "what was handed back uses none up", after(started(), UNCOUNTED, started(2)), MINE, NOW, BeginAttempt(7)),
    (7, "what failed uses one up", after(started(), COUNTED, started(2)), MINE, NOW, AppendEvent(7, LOST)),
    (8, "the wake that this wait armed", after(started(), COUNTED), wake(3), NOW, BeginAttempt(8)),
    (8, "that wake, where nothing was counted", after(started(), UNCOUNTED), wake(3), NOW, BeginAttempt(8)),
    (8, "that wake, before its time", after(started(), COUNTED), wake(3), NOW - timedelta(days=1), BeginAttempt(8)),
    (9, "counted, under this ticket", after(started(), COUNTED), MINE, NOW, ScheduleWake(9, RETRY_AT, 3)),
    (9, "handed back under this ticket", after(started(), UNCOUNTED), MINE, NOW, ScheduleWake(9, None, 3)),
    (9, "handed back under another ticket", after(started(), UNCOUNTED), OTHER, NOW, ScheduleWake(9, None, 3)),
    (8, "the end of this sleep", after(started(), NAP), wake(3), NOW, BeginAttempt(8)),
    (9, "asleep, under its own ticket", after(started(), NAP), MINE, NOW, ScheduleWake(9, NAP_END, 3, "wait")),
    (9, "asleep, given its lock", after(started(), NAP), wake(1), NOW, ScheduleWake(9, NAP_END, 3, "wait")),
    (9, "asleep beyond its deadline", after(started(), waits(until=LATE)), OTHER, NOW,
     ScheduleWake(9, DEADLINE, 3, "wait")),
    (9, "asleep for good", after(started(), waits(until=None)), OTHER, NOW, ScheduleWake(9, DEADLINE, 3, "wait")),
    (7, "a sleep uses no attempt up", after(started(), NAP, started(2)), MINE, NOW, BeginAttempt(7)),
    (9, "an older wake", after(started(), COUNTED, started(2), handed_back(2, counted=True)), wake(3), NOW,
     ScheduleWake(9, NOW, 5)),
    (9, "no clock: the time has come", after(started(), COUNTED), MINE, RETRY_AT, ScheduleWake(9, RETRY_AT, 3)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "operation", "delivery", "now", "expected"),
    [(row, operation, delivery, now, expected) for row, _, operation, delivery, now, expected in TABLE],
    ids=[f"row {row}: {what}" for row, what, *_ in TABLE],
)
def test_the_first_matching_row_wins(
    row: int, operation: Operation | None, delivery: Trigger, now: datetime, expected: DispatchDecision
) -> None:
    """The decision is that of the first matching row, and has its number."""
    actual = decide_dispatch(operation, delivery, now=now, max_attempts=MAX_ATTEMPTS)

    assert expected == actual
    assert row == actual.row


def test_a_start_time_is_by_the_brokers_clock() -> None:
    """A runner whose clock is ahead does not begin early, and one that is behind begins in time."""
    early, late = START_AT - timedelta(seconds=1), START_AT + timedelta(seconds=1)
    ahead = decide_dispatch(later(), MINE, now=late, max_attempts=MAX_ATTEMPTS, clock_skew=2.0)
    behind = decide_dispatch(later(), MINE, now=early, max_attempts=MAX_ATTEMPTS, clock_skew=-2.0)

    assert (ahead, behind) == (ScheduleWake(6, START_AT, 1, "start"), BeginAttempt(6))


def test_every_row_is_in_the_table() -> None:
    """The cases above cover the rows 1 to 9."""
    assert set(range(1, 10)) == {row for row, *_ in TABLE}


CONDITIONS: dict[int, Callable[[Operation, Trigger, datetime], bool]] = {
    2: lambda operation, _delivery, _now: operation.is_terminal,
    3: lambda operation, delivery, _now: operation.live is not None and operation.live.ticket != delivery.ticket,
    4: lambda operation, _delivery, _now: operation.cancel is not None,
    5: lambda operation, _delivery, now: now > operation.deadline,
    6: lambda operation, _delivery, _now: operation.attempt == 0,
    7: lambda operation, delivery, _now: operation.live is not None and operation.live.ticket == delivery.ticket,
    8: lambda operation, delivery, _now: operation.waiting is not None and (
        operation.waiting.sequence == delivery.scheduled_by
    ),
    9: lambda operation, _delivery, _now: operation.waiting is not None,
}  # fmt: skip
# A terminal operation has neither an attempt nor a wait; not started, live here, live elsewhere and waiting exclude
# each other.
NEVER_AT_ONCE = {(2, 3), (2, 7), (2, 8), (2, 9), (3, 6), (3, 7), (3, 8), (3, 9), (6, 7), (6, 8), (6, 9), (7, 8), (7, 9)}


@pytest.mark.parametrize(
    ("earlier", "later"), [pair for pair in itertools.combinations(CONDITIONS, 2) if pair not in NEVER_AT_ONCE]
)
def test_every_precedence_is_in_the_table(earlier: int, later: int) -> None:
    """For two rows whose conditions can hold at once, a case above has both, and the earlier row decides."""
    answers = [
        row
        for row, _, operation, delivery, now, _ in TABLE
        if operation is not None
        and CONDITIONS[earlier](operation, delivery, now)
        and CONDITIONS[later](operation, delivery, now)
    ]

    assert answers
    assert max(answers) <= earlier


def test_an_undecidable_message_is_redelivered_after_a_minute() -> None:
    """A newer runner may decide it; until then nothing is lost, and no message is redelivered in a loop."""
    decision = decide_dispatch(None, MINE, now=NOW, max_attempts=MAX_ATTEMPTS)

    assert RedeliverLater(1, UNDECIDABLE_RETRY_SECONDS) == decision


def test_a_state_that_the_fold_never_makes_is_undecidable() -> None:
    """A started operation that is neither live nor waiting comes from no event of ours, so it can't be decided."""
    operation = msgspec.structs.replace(after(started()), live=None)

    assert RedeliverLater(1, UNDECIDABLE_RETRY_SECONDS) == decide_dispatch(
        operation, MINE, now=NOW, max_attempts=MAX_ATTEMPTS
    )


@pytest.mark.parametrize("hours", [-8, 0, 14])
def test_deadlines_of_any_time_zone_are_compared(hours: int) -> None:
    """Deadlines are compared as points in time, whatever their zones."""
    zone = timezone(timedelta(hours=hours))
    operation = History().append(request(deadline=DEADLINE.astimezone(zone))).operation

    assert BeginAttempt(6) == decide_dispatch(operation, MINE, now=DEADLINE.astimezone(UTC), max_attempts=MAX_ATTEMPTS)
    overdue = decide_dispatch(operation, MINE, now=LATE.astimezone(UTC), max_attempts=MAX_ATTEMPTS)
    assert isinstance(overdue, AppendEvent)
