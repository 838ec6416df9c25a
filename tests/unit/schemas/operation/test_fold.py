"""The fold, event by event."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from opstream_schemas.errors import FoldRefused
from opstream_schemas.events import (
    Canceled,
    CancelRequested,
    Event,
    EventData,
    Failed,
    OperationError,
    Progressed,
    Succeeded,
    Trace,
)
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import (
    evolve,
    first_event,
    fold,
    fold_for_reader,
    initial,
    next_event,
    skip_unknown,
)
from opstream_schemas.operation.state import (
    FOLD_VERSION,
    STEPS_FOLD_VERSION,
    TERMINAL_STATUSES,
    CancelWish,
    CurrentWait,
    LiveAttempt,
    Operation,
    Status,
    Waiting,
)
from tests.support.schemas.histories import (
    DEADLINE,
    FAILURE,
    NOW,
    FromTheFuture,
    History,
    handed_back,
    request,
    started,
    step_done,
    waits,
)

pytestmark = pytest.mark.unit

SUCCEEDED = Succeeded(result=msgspec.Raw(b'{"uploads":2}'))


def story(*datas: EventData) -> History:
    """The history of a requested operation and some more events."""
    return History().append(request(), *datas)


def test_a_request_begins_an_operation() -> None:
    """The first state has all members of the request, and its stream sequence."""
    trace = Trace(traceparent="00-1-2-01")
    history = History().append(request(caller="ann", trace=trace, action_version=7), gap=12)

    expected = Operation(
        id="op-1",
        resource="book",
        resource_id="42",
        action="upload-start",
        action_version=7,
        request_hash="0" * 64,
        caller="ann",
        trace=trace,
        status=Status.NOT_STARTED,
        created_at=NOW,
        deadline=DEADLINE,
        retention=86_400.0,
        position=1,
        stream_sequence=12,
        last_hash=history.events[0].digest,
        fold_version=FOLD_VERSION,
    )
    assert expected == history.operation
    assert Kind("book", "upload-start") == history.operation.kind
    assert not history.operation.is_terminal


@pytest.mark.parametrize("data", [started(), Canceled(), FromTheFuture()])
def test_only_a_request_begins_an_operation(data: EventData) -> None:
    """Any other first event raises an error, one of an unknown type too."""
    event = msgspec.structs.replace(story().recorded(data), position=1, previous_hash="")

    with pytest.raises(FoldRefused, match="can't begin an operation"):
        initial(event)


@pytest.mark.parametrize("changes", [{"position": 2}, {"previous_hash": "ab"}])
def test_a_request_must_be_the_first_event(changes: dict[str, Any]) -> None:
    """A request at a later position, or with a previous hash, raises an error."""
    with pytest.raises(FoldRefused, match="can't begin an operation"):
        initial(msgspec.structs.replace(story().events[0], **changes))


@pytest.mark.parametrize("resource", ["schedules", "runners", "console", "mcp", "operations"])
def test_events_of_a_resource_that_was_reserved_later_still_fold(resource: str) -> None:
    """Operations that an earlier version ran under a resource stay readable after the word is reserved."""
    history = History().append(request(resource=resource), started(), SUCCEEDED)

    assert history.operation.status is Status.SUCCEEDED
    assert history.operation.kind == Kind(resource, "upload-start")


def test_a_started_operation_runs() -> None:
    """The attempt that started is live, and the operation has started when its first attempt did."""
    operation = story(started(ticket=5)).operation

    expected = LiveAttempt(number=1, runner="runner-a", token="token-1", ticket=5, lease=30.0)
    assert expected == operation.live
    assert Status.RUNNING is operation.status
    assert operation.attempt == operation.attempts_used == 1
    assert NOW + timedelta(seconds=1) == operation.started_at


def test_a_later_attempt_takes_over() -> None:
    """The next attempt is live and its progress starts at nothing; `started_at` does not change."""
    operation = story(started(), Progressed(percent=60.0, message="half"), started(2, ticket=1)).operation

    assert operation.live is not None
    assert started(2).token == operation.live.token
    assert operation.attempt == operation.attempts_used == 2
    assert NOW + timedelta(seconds=1) == operation.started_at
    assert operation.percent_complete is None
    assert not operation.message


@pytest.mark.parametrize("number", [0, 1, 3])
def test_attempts_are_counted_without_gaps(number: int) -> None:
    """After the first attempt only the second can start."""
    history = story(started())

    with pytest.raises(FoldRefused, match="can't happen"):
        evolve(history.operation, history.recorded(started(number)))


def test_progress_is_kept() -> None:
    """The state has the last progress."""
    operation = story(started(), Progressed(percent=1.0, message="a"), Progressed(percent=0.0)).operation

    assert operation.percent_complete == 0.0
    assert not operation.message


@pytest.mark.parametrize("counted", [True, False])
def test_a_released_attempt_makes_the_operation_wait(counted: bool) -> None:
    """No attempt is live, the status stays Running, and the state has the sequence of the `attempt-failed` event."""
    retry_at = NOW + timedelta(minutes=5)
    history = story(started(ticket=5), handed_back(counted=counted, retry_at=retry_at))
    operation = history.operation

    waiting = Waiting(ticket=5, counted=counted, retry_at=retry_at, sequence=history.events[-1].sequence)
    assert waiting == operation.waiting
    assert operation.live is None
    assert Status.RUNNING is operation.status
    assert OperationError(code="Throttled", message="try again") == operation.attempt_error
    assert counted == operation.attempts_used


def test_the_next_attempt_ends_the_wait() -> None:
    """The next attempt ends the wait; the error of the previous one stays until there is an outcome."""
    history = story(started(), handed_back(counted=True), started(2))

    assert history.operation.waiting is None
    assert history.operation.attempt_error is not None
    assert history.append(SUCCEEDED).operation.attempt_error is None


def test_a_cancel_request_does_not_end_an_operation() -> None:
    """An operation that was asked to stop still runs."""
    operation = story(started(), CancelRequested(by="ann", reason="late")).operation

    assert CancelWish(by="ann", reason="late") == operation.cancel
    assert Status.RUNNING is operation.status
    assert operation.live is not None


@pytest.mark.parametrize(
    ("outcome", "status", "member", "value"),
    [
        (SUCCEEDED, Status.SUCCEEDED, "result", msgspec.Raw(b'{"uploads":2}')),
        (Failed(error=FAILURE), Status.FAILED, "error", FAILURE),
        (Canceled(reason="late"), Status.CANCELED, "reason", "late"),
    ],
)
def test_an_outcome_is_terminal(outcome: EventData, status: Status, member: str, value: object) -> None:
    """A terminal event ends the attempt and the operation, and sets only its own member."""
    operation = story(started(), handed_back(counted=True), started(2), outcome).operation

    assert status is operation.status
    assert operation.is_terminal
    assert value == getattr(operation, member)
    assert operation.live is operation.waiting is operation.attempt_error is None
    assert NOW + timedelta(seconds=4) == operation.finished_at
    others = {"result": msgspec.UNSET, "error": None, "reason": ""}
    del others[member]
    assert others == {name: getattr(operation, name) for name in others}


@pytest.mark.parametrize("outcome", [Failed(error=FAILURE), Canceled()])
def test_an_operation_can_end_before_it_started(outcome: EventData) -> None:
    """A deadline or a client may end an operation that no runner has started."""
    operation = story(outcome).operation

    assert operation.is_terminal
    assert operation.started_at is None


@pytest.mark.parametrize(
    ("before", "data"),
    [
        ([], request()),
        ([], Progressed(percent=1.0)),
        ([], SUCCEEDED),
        ([], handed_back(counted=True)),
        ([started()], request()),
        ([started()], handed_back(2, counted=True)),
        ([started()], handed_back(0, counted=True)),
        ([started(), started(2)], handed_back(1, counted=True)),
        ([started(), CancelRequested()], CancelRequested()),
        ([started(), handed_back(counted=True)], SUCCEEDED),
        ([started(), handed_back(counted=True)], Progressed(percent=1.0)),
        ([started(), handed_back(counted=True)], handed_back(1, counted=True)),
        ([], step_done()),
        ([started(), handed_back(counted=True)], step_done()),
        ([started(), started(2)], step_done(1)),
        ([], waits()),
        ([started(), started(2)], waits(1)),
        ([started(), waits()], waits()),
        ([started(), waits()], SUCCEEDED),
    ],
)
def test_an_impossible_event_is_refused(before: list[EventData], data: EventData) -> None:
    """The next event raises an error if it makes no sense in this state."""
    history = story(*before)

    with pytest.raises(FoldRefused, match="can't happen"):
        evolve(history.operation, history.recorded(data))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"operation_id": "op-2"}, "belongs to operation op-2"),
        ({"position": 2}, "can't follow position 2"),
        ({"position": 4}, "can't follow position 2"),
        ({"previous_hash": ""}, "hash"),
        ({"previous_hash": "0" * 64}, "hash"),
        ({"sequence": 2}, "is stored before"),
        ({"sequence": 1}, "is stored before"),
    ],
)
@pytest.mark.parametrize("unknown", [False, True])
def test_only_the_next_event_is_folded_or_skipped(changes: dict[str, Any], reason: str, unknown: bool) -> None:
    """A foreign event, a gap, a repetition, a broken chain and an older sequence raise an error in both functions."""
    history = story(started())
    event = history.recorded(FromTheFuture() if unknown else Progressed(percent=1.0))

    with pytest.raises(FoldRefused, match=reason):
        (skip_unknown if unknown else evolve)(history.operation, msgspec.structs.replace(event, **changes))


@pytest.mark.parametrize(
    "subject",
    [
        "operations.op-1.operations.retry.succeeded",  # which the login of the API may write
        "operations.op-1.book.upload-start.canceled",
        "operations.op-1.book.upload.succeeded",
        "operations.op-10.book.upload-start.succeeded",
        "archive.book.upload-start.succeeded",
    ],
)
def test_an_event_counts_only_where_it_may_be_written(subject: str) -> None:
    """The broker grants subjects, so an event of a right chain on the subject of another action or event is refused."""
    history = story(started())
    event = msgspec.structs.replace(history.recorded(SUCCEEDED), subject=subject)
    for fold_it in (fold, fold_for_reader):
        with pytest.raises(FoldRefused, match="is not a subject of book:upload-start"):
            fold_it(history.operation, [event])
    own = msgspec.structs.replace(event, subject="operations.op-1.book.upload-start.succeeded")
    assert evolve(history.operation, own).status is Status.SUCCEEDED


def test_a_request_counts_only_where_it_may_be_written() -> None:
    """A request of one action under another one is no operation of either."""
    event = msgspec.structs.replace(History().recorded(request()), subject="operations.op-1.film.cut.requested")
    with pytest.raises(FoldRefused, match="is not a subject of book:upload-start"):
        initial(event)


def test_an_event_of_an_unknown_type_lies_under_its_action() -> None:
    """Its name is not known, its action is."""
    history = story(started())
    event = history.recorded(FromTheFuture())
    own = msgspec.structs.replace(event, subject="operations.op-1.book.upload-start.postponed")
    assert skip_unknown(history.operation, own).skipped == 1
    with pytest.raises(FoldRefused, match="is not a subject of"):
        skip_unknown(history.operation, msgspec.structs.replace(event, subject="operations.op-1.film.cut.postponed"))


@pytest.mark.parametrize("data", [started(2), Failed(error=FAILURE), CancelRequested(), FromTheFuture()])
def test_nothing_follows_a_terminal_event(data: EventData) -> None:
    """Any event after an outcome raises an error, also for readers."""
    history = story(started(), SUCCEEDED)

    with pytest.raises(FoldRefused, match="follows a terminal event"):
        fold_for_reader(history.operation, [history.recorded(data)])


def test_deciders_refuse_an_unknown_type() -> None:
    """`evolve` and `fold` raise an error for a type that this version does not know."""
    history = story(started())

    with pytest.raises(FoldRefused, match="update opstream"):
        fold(history.operation, [history.recorded(FromTheFuture())])


def test_readers_skip_an_unknown_type() -> None:
    """A reader counts the event, folds the next ones, and changes nothing else."""
    history = story(started(), FromTheFuture(), Progressed(percent=50.0))

    before, skipped, after = history.states[1:]
    assert (
        msgspec.structs.replace(
            before,
            skipped=1,
            position=3,
            stream_sequence=3,
            last_hash=history.events[2].digest,
            fold_version=STEPS_FOLD_VERSION,
        )
        == skipped
    )
    assert after.percent_complete == 50.0
    assert skipped.skipped == after.skipped == 1


def test_steps_change_no_state() -> None:
    """They have a place in the chain; the version says that a reader without steps would have skipped them."""
    history = story(started(), step_done(), step_done(step="ship"))
    before, *_, after = history.states[1:]
    last = history.events[-1]
    assert after == msgspec.structs.replace(
        before, position=4, stream_sequence=4, last_hash=last.digest, fold_version=STEPS_FOLD_VERSION
    )
    assert not after.skipped


def test_a_sleep() -> None:
    """It ends the attempt without counting it, and says until when; without `hold` the lock is let go for good."""
    history = story(started(), waits(key="7"))
    operation = history.operation
    assert (operation.status, operation.live, operation.attempts_used) == (Status.RUNNING, None, 0)
    assert operation.waiting == Waiting(ticket=1, counted=False, retry_at=DEADLINE - timedelta(hours=1), sequence=3)
    assert operation.wait == CurrentWait(name="sleep", key="7")
    assert (operation.let_go, operation.has_let_go) == (3, True)
    history.append(started(2, ticket=9))
    assert (history.operation.wait, history.operation.waiting, history.operation.let_go) == (None, None, 3)
    assert not history.operation.has_let_go
    history.append(waits(2, hold=True))
    assert (history.operation.let_go, history.operation.has_let_go) == (3, False)
    history.append(Canceled())
    assert (history.operation.wait, history.operation.waiting) == (None, None)


def test_what_an_older_version_has_skipped_is_not_trusted() -> None:
    """A release without steps counts them as skipped. While the operation is open, they may matter; at its end not."""
    seen = story(started(), FromTheFuture()).operation
    older = msgspec.structs.replace(seen, fold_version=FOLD_VERSION)
    assert (story(started()).operation.is_current, seen.is_current, older.is_current) == (True, True, False)
    assert story(started(), step_done()).operation.is_current
    assert msgspec.structs.replace(older, status=Status.SUCCEEDED).is_current
    assert not msgspec.structs.replace(seen, fold_version=STEPS_FOLD_VERSION + 1).is_current


def test_a_known_type_is_never_skipped() -> None:
    """Skipping an event that can be folded would lose it."""
    history = story(started())

    with pytest.raises(FoldRefused, match="known type"):
        skip_unknown(history.operation, history.recorded(Progressed(percent=1.0)))


def test_deciders_refuse_a_state_with_skipped_events() -> None:
    """`fold` raises an error for an open snapshot with skipped events, even when no event follows."""
    history = story(started(), FromTheFuture())

    with pytest.raises(FoldRefused, match="has 1 event of unknown type"):
        fold(history.operation, [])


def test_nothing_folds_to_nothing() -> None:
    """Without a state and without an event there is no operation."""
    assert fold(None, []) is None
    assert fold_for_reader(None, []) is None


def test_the_next_event_continues_the_operation() -> None:
    """The next event has the next position, the last hash, and the given id."""
    operation = story(started()).operation

    event = next_event(operation, SUCCEEDED, id="e-9", source="runner-a", time=NOW)

    expected = Event(
        id="e-9",
        source="runner-a",
        operation_id="op-1",
        time=NOW,
        position=3,
        previous_hash=operation.last_hash,
        data=SUCCEEDED,
    )
    assert expected == event


def test_the_first_event_follows_nothing() -> None:
    """A request has position 1 and an empty previous hash."""
    event = first_event("op-7", request(), id="e-1", source="api", time=NOW)

    expected = Event(
        id="e-1", source="api", operation_id="op-7", time=NOW, position=1, previous_hash="", data=request()
    )
    assert expected == event


def test_the_terminal_statuses_are_those_of_the_guidelines() -> None:
    """Succeeded, Failed and Canceled are terminal; the other two are not."""
    assert {Status.NOT_STARTED, Status.RUNNING} == set(Status) - TERMINAL_STATUSES
