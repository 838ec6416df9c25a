"""The checker of chaos runs finds each kind of breach, and none in a valid run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec
import pytest

from opstream_schemas import subjects
from opstream_schemas.events import (
    CancelRequested,
    Event,
    EventData,
    Failed,
    OperationError,
    Requested,
    Started,
    Succeeded,
    digest,
    encode_event,
)
from opstream_schemas.names import Kind
from opstream_schemas.operation.fold import fold_for_reader
from tests.support.chaos.actions import Mark
from tests.support.chaos.checks import find_breaches, overlaps
from tests.support.chaos.clients import ClientView
from tests.support.chaos.jobs import CANCELED, GOOD, Job
from tests.support.chaos.state import FinalState
from tests.support.schemas.histories import request, started
from tests.support.system.invariants import Evidence, Promise, Stored, decoded

pytestmark = pytest.mark.unit

TIME: Final = datetime(2026, 3, 14, tzinfo=UTC)
Entry = tuple[str, EventData]


def begun(action: str, hold: str = "") -> Requested:
    return request(resource="chaos", resource_id="r1", action=action, hold=hold)


def succeeded() -> Succeeded:
    return Succeeded(result=msgspec.Raw(b"{}"))


def left(action: str, *entries: Entry) -> FinalState:
    """The state after these events were stored in this order, with valid snapshots."""
    evidence = Evidence([], {})
    source = "opstream/runner/"
    for sequence, (operation_id, data) in enumerate(entries, 1):
        history = evidence.histories().get(operation_id, [])
        event = Event(
            id=f"event-{sequence}",
            source=f"{source}{data.runner if isinstance(data, Started) else started().runner}",
            operation_id=operation_id,
            time=TIME,
            position=len(history) + 1,
            previous_hash=digest(history[-1].payload) if history else "",
            data=data,
        )
        subject = subjects.event_subject(operation_id, Kind("chaos", action), data.name)
        evidence.messages.append(Stored(subject, sequence, encode_event(event)))
    operations = {one: fold_for_reader(None, decoded(history)) for one, history in evidence.histories().items()}
    folded = {one: operation for one, operation in operations.items() if operation is not None}
    evidence.view = {one: msgspec.json.encode(operation) for one, operation in folded.items()}
    return FinalState(evidence, folded, {}, {})


def call(operation_id: str, begin: float, end: float, *, attempt: int = 1) -> list[Mark]:
    """Marks of a call that returned."""
    return [Mark(what, "alone", operation_id, attempt, "r1", 1, at) for what, at in (("begin", begin), ("end", end))]


def one_after_the_other(action: str = "alone", hold: str = "h") -> FinalState:
    ask = begun(action, hold)
    return left(
        action, ("a", ask), ("b", ask), ("a", started()), ("a", succeeded()), ("b", started()), ("b", succeeded())
    )


def at_once(action: str = "alone", hold: str = "h") -> FinalState:
    ask = begun(action, hold)
    return left(
        action, ("a", ask), ("b", ask), ("a", started()), ("b", started()), ("a", succeeded()), ("b", succeeded())
    )


MARKS: Final = [*call("a", 1, 2), *call("b", 3, 4)]


def test_nothing_is_found_where_all_is_well() -> None:
    """Two operations one after another have no breach."""
    assert find_breaches(one_after_the_other(), {}, MARKS) == []
    assert overlaps(one_after_the_other(), MARKS) == []


def test_two_that_hold_one_resource() -> None:
    """Two operations that have one resource at the same time are a breach; without a lock they are not."""
    assert find_breaches(at_once(), {}, MARKS) == ["a: held its resource from 3 to 5, and b started at 4"]
    assert find_breaches(at_once(hold=""), {}, MARKS) == []


def test_two_calls_that_both_count() -> None:
    """Calls may overlap only if one had lost its lease."""
    marks = [*call("a", 1, 3), *call("b", 2, 4)]
    assert find_breaches(one_after_the_other(), {}, marks) == ["a: still worked when b began, and both succeeded"]
    zombie = left(
        "alone",
        *(("a", data) for data in (begun("alone", "h"), started(), started(2), succeeded())),
        *(("b", data) for data in (begun("alone", "h"), started(), succeeded())),
    )
    marks = [*call("a", 1, 5), *call("a", 2, 3, attempt=2), *call("b", 4, 6)]
    assert find_breaches(zombie, {}, marks) == []
    assert [(one.operation, one.attempt, other.operation) for one, other in overlaps(zombie, marks)] == [("a", 1, "b")]


def test_more_at_once_than_the_action_allows() -> None:
    """Two operations of `limited` may run at once, a third may not."""
    ask = begun("limited")
    three = [(one, data) for data in (ask, started(), succeeded()) for one in ("a", "b", "c")]
    marks = [mark for one in ("a", "b", "c") for mark in call(one, 1, 2)]
    assert find_breaches(left("limited", *three), {}, marks) == ["c: began at 6 as one of 3: ['a', 'b', 'c']"]
    assert find_breaches(at_once("limited", ""), {}, MARKS) == []


def test_executions_and_the_journal() -> None:
    """Each call has its attempt, an attempt has one call, and a success has a call that returned."""
    state = one_after_the_other()
    assert find_breaches(state, {}, call("a", 1, 2)) == ["b: succeeded, and attempt 1 never returned"]
    assert find_breaches(state, {}, [*MARKS, *call("c", 5, 6)]) == [
        "c: attempt 1 was executed and is not in the journal"
    ]
    assert "a: attempt 1 was executed 2 times" in find_breaches(state, {}, [*call("a", 0.1, 0.2), *MARKS])


def test_attempts_beyond_the_limit() -> None:
    """`hopeless` has at most three attempts."""
    datas = [begun("hopeless"), *(started(number) for number in range(1, 5)), succeeded()]
    marks = [mark for number in range(1, 5) for mark in call("a", number, number + 0.5, attempt=number)]
    state = left("hopeless", *(("a", data) for data in datas))
    assert find_breaches(state, {}, marks) == ["a: 4 attempts count, and 3 may"]


def test_what_has_no_end_and_what_has_one() -> None:
    """An open operation is a breach; so is a timer, a lock or a queue place of an ended one."""
    open_one = left("alone", ("a", begun("alone", "h")))
    assert find_breaches(open_one, {}, []) == ["a: invariant 2: no end"]
    state = one_after_the_other()
    state.timers = {"timers.chaos.alone.a.retry": "a"}
    state.holds = {"h.h": b'{"operationId":"b"}', "r.chaos.paced": b'{"due":1.0}'}
    assert find_breaches(state, {}, MARKS) == [
        "a: armed, and ended: timers.chaos.alone.a.retry",
        "b: ended, and still has h.h",
    ]


def test_ends_that_nobody_allowed() -> None:
    """An operation may end as its job allows, or as canceled after a cancel request."""
    state = one_after_the_other()
    promise = Promise("chaos:alone", msgspec.json.decode(begun("alone").input), "r1")
    well = ClientView(Job(action="alone", ends=frozenset({GOOD})), promise, is_accepted=True)
    assert find_breaches(state, {"a": well}, MARKS) == []
    wrong = ClientView(Job(action="alone", ends=frozenset()), promise, is_accepted=True, is_canceled=True)
    assert find_breaches(state, {"a": wrong}, MARKS) == [
        f"a: ended as 'Succeeded' (None), and may only as {[CANCELED]}"
    ]
    assert "gone: invariant 2: promised, and not in the journal" in find_breaches(state, {"gone": well}, MARKS)


def test_a_failure_after_a_cancel_request() -> None:
    """An attempt that was meant to be tried again may be the last one, but only after a cancel request."""
    promise = Promise("chaos:flaky", {"bad": 1}, "r1")
    told = ClientView(Job(action="flaky", ends=frozenset({GOOD})), promise, is_accepted=True, is_canceled=True)
    failed = Failed(error=OperationError(code=503, message="no"))
    asked = CancelRequested(by="me", reason="chaos")

    def found(*events: EventData) -> list[str]:
        state = left("flaky", *(("a", event) for event in (begun("flaky"), started(), *events)))
        return [one for one in find_breaches(state, {"a": told}, MARKS) if "may only as" in one]

    assert found(asked, failed) == []
    assert len(found(failed)) == 1
    assert len(found(asked, msgspec.structs.replace(failed, error=OperationError(code="Odd", message="no")))) == 1
    told.is_canceled = False
    assert len(found(asked, failed)) == 1
