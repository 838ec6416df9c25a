"""Ids of children, and a parent's looks at them: each child once, never too many, few looks, and always an end."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opstream_schemas.children.lineage import ChildGroup, child_id, is_child_id
from opstream_schemas.children.plan import UNENDED, ChildState, plan_children
from opstream_schemas.names import check_operation_id

pytestmark = pytest.mark.unit

_texts = st.text(st.characters(categories=("L", "N", "P", "Zs")), max_size=6)
_children = st.tuples(_texts, _texts, _texts, st.none() | st.integers(0, 12))


@given(one=_children, other=_children)
@example(one=("a", "b", "", 1), other=("a", "b", "1", None))
@example(one=("a", "b1", "", None), other=("a", "b", "1", None))
def test_an_id_belongs_to_one_child(
    one: tuple[str, str, str, int | None], other: tuple[str, str, str, int | None]
) -> None:
    """The same parent, name, key and place have one id, and no others have it."""
    assert (child_id(*one) == child_id(*other)) == (one == other)
    assert is_child_id(child_id(*one))
    check_operation_id(child_id(*one))


@given(count=st.integers(1, 60), limit=st.integers(0, 9), seed=st.integers(0, 2**16), failing=st.booleans())
def test_all_children_end_and_each_begins_once(count: int, limit: int, seed: int, failing: bool) -> None:
    """Whatever ends in whatever order: each child begins once, no more are open than may be, and the parent, which is
    woken by the child that it watches and by nothing else, comes to the end."""
    draw = Random(seed)
    states = [ChildState.MISSING] * count
    begun: list[int] = []
    ended = waits = 0
    while True:
        plan = plan_children(states[ended:], max_parallel=limit, waits=waits, ended=ended)
        begun += plan.begin
        for place in plan.begin:
            states[place] = ChildState.OPEN
        assert states.count(ChildState.OPEN) <= (limit or count)
        if plan.watch is None:
            break
        assert states[plan.watch] is ChildState.OPEN
        assert plan.ended >= ended
        assert not UNENDED & set(states[: plan.ended])
        ended, waits = plan.ended, waits + 1
        while states[plan.watch] is ChildState.OPEN:
            place = draw.choice([index for index, state in enumerate(states) if state is ChildState.OPEN])
            states[place] = ChildState.FAILED if failing and draw.random() < 0.2 else ChildState.SUCCEEDED
    assert begun == list(range(count))
    assert not UNENDED & set(states)


@pytest.mark.parametrize("order", ["first to last", "last to first", "any"])
def test_ten_thousand_cost_few_looks(order: str) -> None:
    """A parent without `max_parallel` looks a few dozen times, in whatever order its children end."""
    count = 10_000
    ends = list(range(count))
    if order == "last to first":
        ends.reverse()
    elif order == "any":
        Random(7).shuffle(ends)
    when = {place: moment for moment, place in enumerate(ends)}
    now, waits = -1, 0
    while True:
        states = [ChildState.SUCCEEDED if when[place] <= now else ChildState.OPEN for place in range(count)]
        plan = plan_children(states, max_parallel=0, waits=waits)
        if plan.watch is None:
            break
        now, waits = when[plan.watch], waits + 1
    assert waits <= 40


def test_a_group_names_its_children() -> None:
    """One alone has no place; of several each has its own."""
    alone = ChildGroup(name="a", is_alone=True)
    assert list(alone.child_ids("p")) == [child_id("p", "a", "", None)]
    assert list(ChildGroup(name="a", key="k", count=2).child_ids("p")) == [child_id("p", "a", "k", n) for n in range(2)]
