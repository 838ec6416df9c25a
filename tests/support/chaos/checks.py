"""Checks what a chaos run left: the invariants of docs/architecture.md, the clients' records and the actions' marks.

    assert find_breaches(left, clients.told, read_marks(system.folder)) == []

The journal says what happened; the marks only count how often a handler was called.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from opstream_schemas.events import (
    AttemptFailed,
    Canceled,
    CancelRequested,
    Failed,
    RecordedEvent,
    Started,
    StepSucceeded,
    Succeeded,
    WaitBegun,
)
from opstream_schemas.operation.state import Operation
from tests.support.chaos.actions import CONCURRENCY, MARKS, Answered, Mark
from tests.support.chaos.clients import ClientView
from tests.support.chaos.jobs import CANCELED, JOBS, LIMITED, UNTRIED
from tests.support.chaos.state import FinalState, stale_holds, stale_timers
from tests.support.system.invariants import breaches, decoded

_ONCE: Final = "step part 0"
"""The mark of the step that must run at most once (`actions.stepping`)."""
_GIVEN_BACK: Final = {"give", "tell"}
"""The steps of the clean-up of `actions.sorry`."""
_ATTEMPTS: Final = {job.action: job.max_attempts for job in JOBS}


def read_marks(folder: Path) -> list[Mark]:
    """The marks of the actions, in order."""
    path = folder / MARKS
    return msgspec.json.decode(b"[%s]" % b",".join(path.read_bytes().split()), type=list[Mark]) if path.exists() else []


def find_breaches(left: FinalState, told: Mapping[str, ClientView], marks: list[Mark]) -> list[str]:
    """All breaches, as sentences that begin with the operation."""
    for operation_id, one in told.items():
        if one.is_accepted:
            left.evidence.promised[operation_id] = one.promise
            left.evidence.polled[operation_id] = one.seen
    found = breaches(left.evidence)
    found += [f"{one}: invariant 2: no end" for one in left.open]
    found += [f"{left.timers[subject]}: armed, and ended: {subject}" for subject in stale_timers(left)]
    found += [f"{operation_id}: ended, and still has {key}" for key, operation_id in stale_holds(left)]
    histories = left.evidence.histories()
    for operation_id, operation in left.operations.items():
        found += [f"{operation_id}: {one}" for one in _attempts(operation)]
        if operation_id in told:
            events = decoded(histories.get(operation_id, []))
            found += [f"{operation_id}: {one}" for one in _as_expected(operation, told[operation_id], events)]
    found += _executions(left, marks)
    found += _steps(left, marks)
    found += _clean_ups(left)
    found += _exclusions(left, marks)
    found += _crowds(left)
    return found


def end_of(operation: Operation) -> str:
    """The operation's status, with the code of a failure."""
    return f"{operation.status} {operation.error.code}" if operation.error else str(operation.status)


def overlaps(left: FinalState, marks: list[Mark]) -> list[tuple[Mark, Mark]]:
    """Overlapping handler calls of two operations for one resource: allowed if the first had lost its lease and had not
    noticed it; `find_breaches` reports the others."""
    found = []
    for calls in _calls_by_hold(left, marks).values():
        for one, other in itertools.combinations(calls, 2):
            if one.mark.operation != other.mark.operation and other.mark.at < one.end:
                found.append((one.mark, other.mark))
    return found


def _attempts(operation: Operation) -> Iterator[str]:
    most = _ATTEMPTS[operation.action]
    if operation.attempts_used > most:
        yield f"{operation.attempts_used} attempts count, and {most} may"


def _as_expected(operation: Operation, told: ClientView, events: list[RecordedEvent]) -> Iterator[str]:
    allowed = told.job.ends | ({CANCELED} if told.is_canceled else set())
    if told.is_canceled and told.promise.input.get("bad") and any(isinstance(e.data, CancelRequested) for e in events):
        allowed |= UNTRIED  # nothing is tried again after a cancel request (docs/adr/0011), so the failure is its end
    if operation.is_terminal and end_of(operation) not in allowed:
        yield f"ended as {end_of(operation)!r} ({operation.error}), and may only as {sorted(allowed)}"


def _executions(left: FinalState, marks: list[Mark]) -> Iterator[str]:
    """Each call has its attempt in the journal, each attempt at most one call, each success a call that returned."""
    started = {
        (operation_id, event.data.attempt)
        for operation_id, history in left.evidence.histories().items()
        for event in decoded(history)
        if isinstance(event.data, Started)
    }
    begun = Counter((mark.operation, mark.attempt) for mark in marks if mark.what == "begin")
    for (operation_id, attempt), count in sorted(begun.items()):
        if (operation_id, attempt) not in started:
            yield f"{operation_id}: attempt {attempt} was executed and is not in the journal"
        if count > 1:
            yield f"{operation_id}: attempt {attempt} was executed {count} times"
    returned = {(mark.operation, mark.attempt) for mark in marks if mark.what == "end"}
    for operation_id, operation in left.operations.items():
        if operation.status == "Succeeded" and (operation_id, operation.attempt) not in returned:
            yield f"{operation_id}: succeeded, and attempt {operation.attempt} never returned"


def _steps(left: FinalState, marks: list[Mark]) -> Iterator[str]:
    """No attempt calls the function of a step that an earlier one has recorded, and none twice that must not."""
    recorded: dict[tuple[str, str], int] = {}
    for operation_id, history in left.evidence.histories().items():
        for data in (event.data for event in decoded(history)):
            if isinstance(data, StepSucceeded):
                recorded.setdefault((operation_id, f"step part {data.key or 0}"), data.attempt)
    calls = Counter((mark.operation, mark.what) for mark in marks if mark.what.startswith("step "))
    for mark in marks:
        attempt = recorded.get((mark.operation, mark.what), mark.attempt)
        if mark.attempt > attempt:
            yield f"{mark.operation}: attempt {mark.attempt} ran {mark.what!r}, which attempt {attempt} had recorded"
    for (operation_id, what), count in sorted(calls.items()):
        if what == _ONCE and count > 1:
            yield f"{operation_id}: {what!r} ran {count} times, and must run at most once"


def _clean_ups(left: FinalState) -> Iterator[str]:
    """What was taken and is canceled was given back; what has succeeded was not, and it has what was sent to it."""
    histories = left.evidence.histories()
    for operation_id, operation in left.operations.items():
        done = {e.data.step for e in decoded(histories.get(operation_id, [])) if isinstance(e.data, StepSucceeded)}
        if operation.action == "sorry" and operation.status == CANCELED and "take" in done and not done >= _GIVEN_BACK:
            yield f"{operation_id}: canceled, and only {sorted(done)} were done"
        if operation.action == "sorry" and operation.status == "Succeeded" and done & _GIVEN_BACK:
            yield f"{operation_id}: succeeded, and was given back: {sorted(done)}"
        if operation.action == "asking" and operation.status == "Succeeded":
            answers = msgspec.json.decode(operation.result or b"null", type=Answered).answers
            if answers != [10, 20]:
                yield f"{operation_id}: was sent 10 and 20, and has {answers}"


def _exclusions(left: FinalState, marks: list[Mark]) -> Iterator[str]:
    """An operation has its resource exclusively, from its first attempt to its end; not while it waits without it."""
    histories = left.evidence.histories()
    spans: dict[str, list[tuple[int, int, str]]] = {}
    for operation_id, operation in left.operations.items():
        if operation.hold and operation.attempt:
            found = [(*span, operation_id) for span in _spans(decoded(histories[operation_id]))]
            spans.setdefault(operation.hold, []).extend(found)
    for held in spans.values():
        for (begin, end, one), (later, _, other) in itertools.pairwise(sorted(held)):
            if later < end and one != other:
                yield f"{one}: held its resource from {begin} to {end}, and {other} started at {later}"
    for calls in _calls_by_hold(left, marks).values():
        owners = [call for call in calls if call.is_owner]
        for call, next_call in itertools.pairwise(owners):
            if next_call.mark.at < call.end:
                yield f"{call.mark.operation}: still worked when {next_call.mark.operation} began, and both succeeded"


def _crowds(left: FinalState) -> Iterator[str]:
    """A limited action never has more concurrent attempts than its limit."""
    steps = []
    for operation_id, history in left.evidence.histories().items():
        if operation_id in left.operations and left.operations[operation_id].action == LIMITED:
            steps += [(event.sequence, operation_id, event.data) for event in decoded(history)]
    live: set[str] = set()
    for sequence, operation_id, data in sorted(steps, key=lambda step: step[0]):
        if isinstance(data, Started):
            live.add(operation_id)
        elif isinstance(data, AttemptFailed | Succeeded | Failed | Canceled):
            live.discard(operation_id)
        if len(live) > CONCURRENCY:
            yield f"{operation_id}: began at {sequence} as one of {len(live)}: {sorted(live)}"


def _spans(events: list[RecordedEvent]) -> Iterator[tuple[int, int]]:
    """From where to where an operation has its resource."""
    begin = 0
    for event in events:
        if isinstance(event.data, Started) and not begin:
            begin = event.sequence
        elif isinstance(event.data, WaitBegun) and not event.data.hold and begin:
            yield begin, event.sequence
            begin = 0
    if begin:
        yield begin, events[-1].sequence


class _Call(NamedTuple):
    mark: Mark
    end: float
    """For a killed call its beginning, since its end is unknown."""
    is_owner: bool
    """True if its result is the operation's."""


def _calls_by_hold(left: FinalState, marks: list[Mark]) -> dict[str, list[_Call]]:
    """Handler calls by the lock of their operation, ordered by beginning."""
    ends = {(mark.operation, mark.attempt): mark for mark in marks if mark.what != "begin"}
    found: dict[str, list[_Call]] = {}
    for mark in sorted(marks, key=lambda one: one.at):
        operation = left.operations.get(mark.operation)
        if mark.what != "begin" or operation is None or not operation.hold:
            continue
        end = ends.get((mark.operation, mark.attempt), mark)
        is_owner = operation.status == "Succeeded" and mark.attempt == operation.attempt
        found.setdefault(operation.hold, []).append(_Call(mark, end.at, is_owner))
    return found
