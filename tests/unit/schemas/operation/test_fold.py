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
    TERMINAL_STATUSES,
    CancelWish,
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
)

pytestmark = pytest.mark.unit

SUCCEEDED = Succeeded(result=msgspec.Raw(b'{"uploads":2}'))


def story(*datas: EventData) -> History:
    """A requested operation and what happened then."""
    return History().append(request(), *datas)


def test_a_request_begins_an_operation() -> None:
    """The first state holds all that the request says, and where it lies in the journal."""
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
    """Any other event in the first place is refused, an unknown one too."""
    event = msgspec.structs.replace(story().recorded(data), position=1, previous_hash="")

    with pytest.raises(FoldRefused, match="can't begin an operation"):
        initial(event)


@pytest.mark.parametrize("changes", [{"position": 2}, {"previous_hash": "ab"}])
def test_a_request_begins_an_operation_only_in_the_first_place(changes: dict[str, Any]) -> None:
    """A request in a later position, or after another event, begins nothing."""
    with pytest.raises(FoldRefused, match="can't begin an operation"):
        initial(msgspec.structs.replace(story().events[0], **changes))


@pytest.mark.parametrize("resource", ["schedules", "runners", "console", "mcp", "operations"])
def test_events_of_a_resource_that_was_reserved_later_still_fold(resource: str) -> None:
    """Reserving a word must not make the operations unreadable that an earlier version ran under it."""
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
    """The next attempt is the live one, and its progress begins anew; the operation has started only once."""
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
    """The state tells the last progress."""
    operation = story(started(), Progressed(percent=1.0, message="a"), Progressed(percent=0.0)).operation

    assert operation.percent_complete == 0.0
    assert not operation.message


@pytest.mark.parametrize("counted", [True, False])
def test_an_attempt_that_is_handed_back_is_waited_for(counted: bool) -> None:
    """Nothing is live, the client still reads Running, and a wake can name the event that armed it."""
    retry_at = NOW + timedelta(minutes=5)
    history = story(started(ticket=5), handed_back(counted=counted, retry_at=retry_at))
    operation = history.operation

    waiting = Waiting(ticket=5, counted=counted, retry_at=retry_at, sequence=history.events[-1].sequence)
    assert waiting == operation.waiting
    assert operation.live is None
    assert Status.RUNNING is operation.status
    assert OperationError(code="Throttled", message="try again") == operation.attempt_error
    assert counted == operation.attempts_used


def test_an_attempt_after_a_wait_is_not_waited_for() -> None:
    """The next attempt ends the wait; why the one before it failed is kept until there is an outcome."""
    history = story(started(), handed_back(counted=True), started(2))

    assert history.operation.waiting is None
    assert history.operation.attempt_error is not None
    assert history.append(SUCCEEDED).operation.attempt_error is None


def test_a_cancel_request_is_a_wish() -> None:
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
    """A terminal event ends the attempt and the operation, and its own member is set, no other one."""
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
    """A deadline or a client may end what no runner has taken."""
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
    ],
)
def test_what_can_not_happen_is_refused(before: list[EventData], data: EventData) -> None:
    """An event that is the next one but makes no sense in this state is refused."""
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
        ({"sequence": 2}, "lies before"),
        ({"sequence": 1}, "lies before"),
    ],
)
@pytest.mark.parametrize("unknown", [False, True])
def test_only_the_next_event_is_folded_or_skipped(changes: dict[str, Any], reason: str, unknown: bool) -> None:
    """Another operation's event, a gap, a repetition, a broken chain or an older sequence is refused by both."""
    history = story(started())
    event = history.recorded(FromTheFuture() if unknown else Progressed(percent=1.0))

    with pytest.raises(FoldRefused, match=reason):
        (skip_unknown if unknown else evolve)(history.operation, msgspec.structs.replace(event, **changes))


@pytest.mark.parametrize("data", [started(2), Failed(error=FAILURE), CancelRequested(), FromTheFuture()])
def test_nothing_follows_a_terminal_event(data: EventData) -> None:
    """Whatever follows an outcome is refused, also by readers who skip."""
    history = story(started(), SUCCEEDED)

    with pytest.raises(FoldRefused, match="follows a terminal event"):
        fold_for_reader(history.operation, [history.recorded(data)])


def test_an_unknown_type_is_refused_by_whoever_decides() -> None:
    """`evolve` and `fold` don't pass over what this version can't understand."""
    history = story(started())

    with pytest.raises(FoldRefused, match="update opstream"):
        fold(history.operation, [history.recorded(FromTheFuture())])


def test_an_unknown_type_is_passed_over_by_readers() -> None:
    """A reader counts it, goes on behind it, and changes nothing else."""
    history = story(started(), FromTheFuture(), Progressed(percent=50.0))

    before, skipped, after = history.states[1:]
    assert (
        msgspec.structs.replace(
            before,
            skipped=1,
            position=3,
            stream_sequence=3,
            last_hash=history.events[2].digest,
        )
        == skipped
    )
    assert after.percent_complete == 50.0
    assert skipped.skipped == after.skipped == 1


def test_a_known_type_is_never_skipped() -> None:
    """To skip an event that could be folded would lose it."""
    history = story(started())

    with pytest.raises(FoldRefused, match="known type"):
        skip_unknown(history.operation, history.recorded(Progressed(percent=1.0)))


def test_nobody_decides_on_what_a_reader_skipped_over() -> None:
    """A snapshot with gaps in its understanding is refused by `fold` even when no event follows."""
    history = story(started(), FromTheFuture())

    with pytest.raises(FoldRefused, match="has 1 event of unknown type"):
        fold(history.operation, [])


def test_nothing_folds_to_nothing() -> None:
    """Without a state and without an event there is no operation."""
    assert fold(None, []) is None
    assert fold_for_reader(None, []) is None


def test_the_next_event_carries_on() -> None:
    """An event is made for the place and the hash that the operation has reached, under the id that it is given."""
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
    """A request takes the first place, after no hash."""
    event = first_event("op-7", request(), id="e-1", source="api", time=NOW)

    expected = Event(
        id="e-1", source="api", operation_id="op-7", time=NOW, position=1, previous_hash="", data=request()
    )
    assert expected == event


def test_the_terminal_statuses_are_those_of_the_guidelines() -> None:
    """Succeeded, Failed and Canceled are terminal; the other two are not."""
    assert {Status.NOT_STARTED, Status.RUNNING} == set(Status) - TERMINAL_STATUSES
