"""The weighting of priorities: whatever waits gets at least its share, and no slot stays empty."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opstream_schemas.operation.priority import PRIORITIES, TURNS, Priority, order_of_turn, turns_of

pytestmark = pytest.mark.unit

queues = st.lists(st.frozensets(st.sampled_from(PRIORITIES)), min_size=1, max_size=6 * TURNS)
"""For each turn: the queues that have something."""


def served(first: int, waiting: list[frozenset[Priority]]) -> list[Priority | None]:
    """The priority that each turn serves; None for a turn that finds nothing."""
    return [
        next((one for one in order_of_turn(first + index) if one in found), None) for index, found in enumerate(waiting)
    ]


@given(st.integers(min_value=-(2**40), max_value=2**40), queues, st.sampled_from(PRIORITIES))
def test_what_always_waits_gets_at_least_its_share(
    first: int, others: list[frozenset[Priority]], priority: Priority
) -> None:
    """In each ten turns in a row it is served as often as ten turns begin with it, whatever else comes and goes."""
    found = served(first, [one | {priority} for one in others])

    for start in range(len(found) - TURNS + 1):
        assert Counter(found[start : start + TURNS])[priority] >= turns_of(priority)


@given(st.integers(min_value=0, max_value=2**40), queues)
def test_no_turn_is_lost_while_anything_waits(first: int, waiting: list[frozenset[Priority]]) -> None:
    """A turn whose queue is empty serves another one."""
    for found, one in zip(waiting, served(first, waiting), strict=True):
        assert (one in found) if found else one is None


@given(st.integers(min_value=0, max_value=2**40))
def test_shares_are_exact_while_all_wait(first: int) -> None:
    """Of ten attempts that begin, each priority has the share that it is promised, and no more."""
    found = Counter(served(first, [frozenset(PRIORITIES)] * TURNS))

    assert found == {one: turns_of(one) for one in PRIORITIES}


@given(st.integers(min_value=0, max_value=2**40))
def test_each_queue_is_looked_into_once_in_a_turn(first: int) -> None:
    """What the first does not have is looked for from the highest on."""
    order = order_of_turn(first)

    assert sorted(order) == sorted(PRIORITIES)
    assert list(order[1:]) == [one for one in PRIORITIES if one is not order[0]]
