"""The wait for children, and whose end ends it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from opstream_schemas.children.plan import ChildState, plan_children, wait_of_plan, wakes_parent
from opstream_schemas.children.requests import (
    ChildItem,
    ChildrenRequest,
    decode_children_answer,
    decode_children_request,
)
from opstream_schemas.errors import ErrorCode, InvalidEvent
from opstream_schemas.events import ChildWait

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, tzinfo=UTC)
OPEN, MISSING, DONE = ChildState.OPEN, ChildState.MISSING, ChildState.SUCCEEDED


def test_what_begins_and_what_is_watched() -> None:
    """Free places are filled in order. The middle one is watched while others are to begin, then the last one."""
    plan = plan_children([DONE, OPEN, MISSING, MISSING, MISSING], max_parallel=3, waits=0)
    assert (plan.begin, plan.watch, plan.is_limited, plan.ended) == ((2, 3), 2, True, 1)
    plan = plan_children([OPEN, DONE, MISSING], max_parallel=0, waits=0, ended=5)
    assert (plan.begin, plan.watch, plan.is_limited, plan.ended) == ((7,), 7, False, 5)
    plan = plan_children([DONE, ChildState.FAILED], max_parallel=1, waits=9)
    assert (plan.begin, plan.watch, plan.ended) == ((), None, 2)


def test_a_wait_has_a_time_that_grows() -> None:
    """Half a minute at first, two seconds where each failure counts, six hours at most. Any end counts only while
    others are to begin."""
    limited = plan_children([OPEN, MISSING], max_parallel=1, waits=0)
    wait, until = wait_of_plan(limited, "c", NOW, waits=0, fail_fast=True)
    assert wait == ChildWait(id="c", fail_fast=True, any_from=NOW + timedelta(seconds=1))
    assert until == NOW + timedelta(seconds=2)
    wait, until = wait_of_plan(limited, "c", NOW, waits=10**6, fail_fast=True)
    assert (wait.any_from, until) == (NOW + timedelta(seconds=60), NOW + timedelta(hours=6))
    rest = plan_children([DONE, OPEN], max_parallel=1, waits=0)
    wait, until = wait_of_plan(rest, "c", NOW, waits=0, fail_fast=False)
    assert (wait, until) == (ChildWait(id="c", ended=1), NOW + timedelta(seconds=30))


def test_whose_end_wakes_the_parent() -> None:
    """The watched child's, and with `fail_fast` that of each that does not succeed."""
    for wait in (ChildWait(id="c"), ChildWait(id="c", fail_fast=True)):
        assert wakes_parent(wait, "c", has_succeeded=True)
        assert not wakes_parent(wait, "d", has_succeeded=True)
    assert wakes_parent(ChildWait(id="c", fail_fast=True), "d", has_succeeded=False)
    assert not wakes_parent(ChildWait(id="c"), "d", has_succeeded=False)


def test_requests_on_the_wire() -> None:
    """A request is read back; anything else is refused, and an unreadable answer is an error that may pass."""
    item = ChildItem(index=0, action="a:b", input=msgspec.Raw(b"{}"))
    request = ChildrenRequest(parent="op-1", token="t", name="n", items=(item,))
    assert decode_children_request(msgspec.json.encode(request)) == request
    for wrong in (
        b"x",
        b"{}",
        msgspec.json.encode(msgspec.structs.replace(request, items=())),
        msgspec.json.encode(msgspec.structs.replace(request, items=(item,) * 101)),
        msgspec.json.encode(msgspec.structs.replace(request, parent="a b")),
    ):
        with pytest.raises(InvalidEvent):
            decode_children_request(wrong)
    answer = decode_children_answer(b"[]")
    assert answer.error is not None
    assert (answer.error.code, answer.is_final) == (ErrorCode.INTERNAL_ERROR, False)
