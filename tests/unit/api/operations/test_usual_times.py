"""How long a poll waits for an end, by what operations of the action took."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_api.operations.brief_waits import MOST, UsualTimes
from opstream_schemas.names import Kind
from opstream_schemas.operation.state import FOLD_VERSION, CurrentWait, Operation, Status, Waiting

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def operation(*, age: float = 0.0, action: str = "upload-start") -> Operation:
    """An open operation that was submitted so many seconds ago."""
    return Operation(
        id="op-1",
        resource="book",
        action=action,
        action_version=1,
        request_hash="",
        status=Status.RUNNING,
        created_at=NOW - timedelta(seconds=age),
        deadline=NOW,
        retention=1.0,
        position=1,
        stream_sequence=1,
        last_hash="",
        fold_version=FOLD_VERSION,
    )


def after(*seconds: float) -> UsualTimes:
    """What is known after operations that took so long."""
    times = UsualTimes()
    for took in seconds:
        times.add(Kind("book", "upload-start"), took)
    return times


def test_nothing_is_waited_for_before_an_end_is_known() -> None:
    """Neither at the start, nor for another action, nor after everything was forgotten."""
    times = after(0.01)
    assert UsualTimes().wait_of(operation(), NOW) == 0
    assert times.wait_of(operation(action="index"), NOW) == 0
    assert times.wait_of(operation(), NOW) > 0
    times.forget()
    assert times.wait_of(operation(), NOW) == 0


def test_a_start_time_is_not_waited_for() -> None:
    """Before its start time an operation is not about to end; from then on its age counts from there."""
    times = after(0.02)
    begun = msgspec.structs.replace(operation(age=60.0), start_at=NOW - timedelta(seconds=0.03))
    assert times.wait_of(msgspec.structs.replace(begun, start_at=NOW + timedelta(milliseconds=1)), NOW) == 0
    assert times.wait_of(begun, NOW) == pytest.approx(0.05)
    asleep = msgspec.structs.replace(
        begun,
        wait=CurrentWait(name="sleep"),
        waiting=Waiting(ticket=1, counted=False, retry_at=NOW + timedelta(seconds=1), sequence=3),
    )
    assert times.wait_of(asleep, NOW) == 0
    assert times.wait_of(msgspec.structs.replace(asleep, waiting=None), NOW) == pytest.approx(0.05)


def test_an_unusually_old_operation_is_not_waited_for() -> None:
    """It waits for a runner, a resource or its next attempt; a poll that waits with it learns nothing."""
    times = after(0.02)
    assert times.wait_of(operation(age=0.03), NOW) == pytest.approx(0.05)
    assert times.wait_of(operation(age=0.09), NOW) == 0


def test_long_actions_are_not_waited_for() -> None:
    """What usually takes longer than the longest wait; one that took long once is not enough, nor is a short one."""
    assert after(10.0).wait_of(operation(), NOW) == 0
    assert after(*[0.01] * 50, 1.0).wait_of(operation(), NOW) > 0
    assert after(*[10.0] * 50, 0.01).wait_of(operation(), NOW) == 0


def test_a_clock_that_is_off_does_no_harm() -> None:
    """An operation may have been submitted in the future of this process, and have ended before it began."""
    times = after(0.02, -5.0)
    assert 0 < times.wait_of(operation(age=-3600), NOW) <= MOST


def test_the_kinds_are_bounded() -> None:
    """A journal of very many actions takes no more memory; what ended last counts."""
    times = UsualTimes()
    for number in range(1_001):
        times.add(Kind("book", f"act-{number}"), 0.01)
    assert times.wait_of(operation(action="act-0"), NOW) == 0
    assert times.wait_of(operation(action="act-1000"), NOW) > 0


@given(
    ends=st.lists(st.floats(-10, 1e6), max_size=30),
    age=st.floats(-1e6, 1e6),
)
def test_a_wait_is_brief(ends: list[float], age: float) -> None:
    """Whatever was heard, a poll waits no longer than the limit."""
    assert 0 <= after(*ends).wait_of(operation(age=age), NOW) <= MOST
