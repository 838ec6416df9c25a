"""The checker of the invariants finds each kind of breach, and none in valid evidence."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest

from opstream_schemas import subjects
from opstream_schemas.children.lineage import child_id
from opstream_schemas.errors import FoldRefused, InvalidEvent
from opstream_schemas.events import (
    AttemptFailed,
    CancelRequested,
    Event,
    EventData,
    Failed,
    OperationError,
    ParentRef,
    Progressed,
    Started,
    Succeeded,
    digest,
    encode_event,
)
from opstream_schemas.names import Kind
from opstream_schemas.operation.commands import operator_error
from opstream_schemas.operation.fold import fold_for_reader
from opstream_schemas.operation.forced_end import OperationMessage, forced_end_event, inspect_messages
from tests.support.schemas.histories import request
from tests.support.system.invariants import Evidence, Promise, Stored, breaches, decoded, status_of

pytestmark = pytest.mark.unit

KIND: Final = Kind("book", "upload-start")
PROMISE: Final = Promise(str(KIND), {"files": []}, "42")
TIME: Final = datetime(2026, 3, 14, tzinfo=UTC)


def started(attempt: int) -> Started:
    return Started(attempt=attempt, runner=f"runner-{attempt}", token=f"token-{attempt}", ticket=1, lease=1.0)


def progressed(attempt: int) -> Progressed:
    return Progressed(percent=10.0 * attempt, message=f"attempt {attempt}, step 1")


def succeeded(attempt: int) -> Succeeded:
    return Succeeded(result=msgspec.Raw(b'{"number":7,"attempt":%d}' % attempt))


def failed(message: str, code: str = "Meant") -> Failed:
    return Failed(error=OperationError(code=code, message=message))


REQUESTED: Final = request()
WELL: Final = (REQUESTED, started(1), progressed(1), succeeded(1))


def journal(*datas: EventData, operation_id: str = "op-1", **changes: Any) -> list[Stored]:
    """One operation's messages, each from the runner that started last; `changes` are those of the last event."""
    messages: list[Stored] = []
    source = "opstream/api"
    for data in datas:
        if isinstance(data, Started):
            source = f"opstream/runner/{data.runner}"
        number = len(messages) + 1
        event = Event(
            id=f"event-{number}",
            source=source,
            operation_id=operation_id,
            time=TIME,
            position=number,
            previous_hash=digest(messages[-1].payload) if messages else "",
            data=data,
        )
        if number == len(datas):
            event = msgspec.structs.replace(event, **changes)
        subject = subjects.event_subject(operation_id, KIND, data.name)
        messages.append(Stored(subject, 10 * number, encode_event(event)))
    return messages


def evidence(*datas: EventData, **changes: Any) -> Evidence:
    """Valid evidence of a run: snapshots equal to the fold, and all statuses that a client could have seen."""
    found = Evidence(journal(*datas, **changes), {}, {"op-1": PROMISE})
    with contextlib.suppress(FoldRefused):
        found.view["op-1"] = msgspec.json.encode(found.fold("op-1"))
        states = [fold_for_reader(None, decoded(found.messages[:count])) for count in range(1, len(datas) + 1)]
        found.polled["op-1"] = [status_of(state) for state in states if state is not None]
    return found


@pytest.mark.parametrize(
    "datas",
    [
        WELL,
        (REQUESTED, started(1), failed("attempt 1 of 7")),
        (REQUESTED, started(1), progressed(1), started(2), progressed(2), succeeded(2)),
    ],
    ids=["succeeded", "failed", "taken over"],
)
def test_what_goes_well(datas: tuple[EventData, ...]) -> None:
    """A valid operation has no breach."""
    assert breaches(evidence(*datas)) == []


def test_given_up_by_another_runner() -> None:
    """Any runner may fail an operation without attempts left; its event names no attempt as its own."""
    lost = failed("the last of 2 attempts ended with the runner that executed it", "RunnerLost")
    found = evidence(REQUESTED, started(1), started(2), lost, source="opstream/runner/runner-3")
    assert breaches(found) == []


def test_an_attempt_that_a_restore_ended() -> None:
    """Its runner was lost with everything; without a restore in the run no other process may say so."""
    lost = AttemptFailed(
        attempt=1, error=OperationError(code="RunnerLost", message="lost"), retry_at=TIME, counted=False
    )
    datas = (REQUESTED, started(1), lost, started(2), succeeded(2))
    found = evidence(*datas)
    found.messages = journal(*datas[:3], source="opstream/restore")
    (breach,) = [one for one in breaches(found) if "invariant 3" in one]
    assert "attempt-failed is from opstream/restore" in breach
    found.is_restored = True
    assert not [one for one in breaches(found) if "invariant 3" in one]
    found.messages = journal(*datas[:3], source="opstream/runner/other")
    assert [one for one in breaches(found) if "invariant 3" in one]


def family(*datas: EventData, name: str = "pages") -> Evidence:
    """A parent that has ended, and its child; `name` is that of which the child's id is made."""
    found = evidence(*WELL)
    asked = request(parent=ParentRef(id="op-1", name="pages", index=3))
    found.messages += journal(asked, *datas, operation_id=child_id("op-1", name, "", 3))
    return found


def test_a_child_whose_parent_has_ended() -> None:
    """It has ended, or is asked to stop; and it has the id that its parent gives it."""

    def broken(found: Evidence) -> list[str]:
        return [one.partition(": ")[2] for one in breaches(found) if "invariant 13" in one]

    assert broken(family(started(1), succeeded(1))) == broken(family(started(1), CancelRequested(reason=""))) == []
    (breach,) = broken(family(started(1)))
    assert "its parent op-1 has ended" in breach
    (breach,) = broken(family(started(1), succeeded(1), name="other"))
    assert "its id" in breach
    restored = family(started(1))
    restored.is_restored = True
    assert broken(restored) == []


def forced(**changes: int) -> Evidence:
    """An operation with damage and a second request in it that an operator ended; `changes` are those of its end."""
    found = evidence(*WELL[:3])
    request_again = found.messages[0].payload
    damage = [(b"{}", "started"), (request_again, "requested"), (b"{", "progressed")]
    for payload, name in damage:
        subject = subjects.event_subject("op-1", KIND, name)
        found.messages.append(Stored(subject, found.messages[-1].sequence + 10, payload))
    surveyed = inspect_messages("op-1", [OperationMessage(one.sequence, one.payload) for one in found.messages])
    end = forced_end_event(surveyed, operator_error(""), "", id="end", source="opstream/operator", time=TIME)
    assert isinstance(end.data, Failed)
    assert end.data.forced is not None
    data = msgspec.structs.replace(end.data, forced=msgspec.structs.replace(end.data.forced, **changes))
    payload = encode_event(msgspec.structs.replace(end, data=data))
    found.messages.append(Stored(subjects.event_subject("op-1", KIND, "failed"), 100, payload))
    with contextlib.suppress(FoldRefused, InvalidEvent):
        found.view["op-1"] = msgspec.json.encode(found.fold("op-1"))
        found.polled["op-1"].append(status_of(found.fold("op-1")))
    return found


def test_ended_by_force() -> None:
    """Messages that a forced end skips are no breach; the snapshot is still the fold."""
    found = forced()
    assert breaches(found) == []
    assert found.fold("op-1").skipped == 3
    found.view["op-1"] = b"{}"
    assert [one for one in breaches(found) if one.startswith("op-1: invariant 5")]


@pytest.mark.parametrize("changes", [{"sequence": 1}, {"passed_over": 2}])
def test_ended_by_force_wrongly(changes: dict[str, int]) -> None:
    """A forced end with wrong counts is a breach."""
    assert [one for one in breaches(forced(**changes)) if one.startswith("op-1: invariant 1")]


@pytest.mark.parametrize(
    ("invariant", "found"),
    [
        (1, evidence(REQUESTED, REQUESTED)),
        (1, evidence(*WELL[1:])),
        (1, evidence(*WELL, progressed(1))),
        (1, evidence(*WELL, succeeded(1))),
        (1, evidence(*WELL, position=5)),
        (1, evidence(*WELL, previous_hash="0" * 64)),
        (1, evidence(*WELL, id="event-1")),
        (2, evidence(*WELL[:3])),
        (3, evidence(REQUESTED, started(1), started(2), succeeded(1))),
        (3, evidence(REQUESTED, started(1), started(2), progressed(1), succeeded(2))),
        (3, evidence(REQUESTED, started(1), started(2), failed("attempt 1 of 7"))),
        (3, evidence(REQUESTED, started(1), started(2), failed("oops"), source="opstream/runner/runner-1")),
        (3, evidence(REQUESTED, started(2), succeeded(2))),
        (6, evidence(request(resource_id="43"), *WELL[1:])),
        (6, evidence(request(input=msgspec.Raw(b'{"files":[1]}')), *WELL[1:])),
    ],
)
def test_a_broken_journal(invariant: int, found: Evidence) -> None:
    """A breach names the operation and the invariant."""
    assert [one for one in breaches(found) if one.startswith(f"op-1: invariant {invariant}: ")]


def _lose(found: Evidence) -> None:
    found.messages.clear()


def _forget(found: Evidence) -> None:
    del found.view["op-1"]


def _reformat(found: Evidence) -> None:
    found.view["op-1"] = msgspec.json.format(found.view["op-1"])


def _invent(found: Evidence) -> None:
    found.view["op-2"] = found.view["op-1"]


def _go_back(found: Evidence) -> None:
    found.polled["op-1"].insert(2, found.polled["op-1"][0])


def _change_the_end(found: Evidence) -> None:
    found.polled["op-1"].append(found.polled["op-1"][-1] | {"result": {"number": 8}})


def _tell_another_end(found: Evidence) -> None:
    found.polled["op-1"][-1] |= {"result": {"number": 8}}


@pytest.mark.parametrize(
    ("invariant", "damage"),
    [
        ("op-1: invariant 2", _lose),
        ("op-1: invariant 5", _forget),
        ("op-1: invariant 5", _reformat),
        ("op-2: invariant 5", _invent),
        ("op-1: invariant 4", _go_back),
        ("op-1: invariant 4", _change_the_end),
        ("op-1: invariant 4", _tell_another_end),
    ],
)
def test_damage_elsewhere(invariant: str, damage: Callable[[Evidence], None]) -> None:
    """A lost request, a snapshot that is not the fold, and impossible statuses are breaches."""
    found = evidence(*WELL)
    damage(found)
    assert [one for one in breaches(found) if one.startswith(invariant)]
