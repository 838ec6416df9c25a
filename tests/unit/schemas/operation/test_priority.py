"""Priorities: their words, and the order in which a turn looks into the queues."""

from __future__ import annotations

import pytest

from opstream_schemas.errors import InvalidName
from opstream_schemas.operation.priority import TURNS, Priority, check_priority, is_within, order_of_turn, turns_of

pytestmark = pytest.mark.unit

HIGH, NORMAL, LOW = Priority


def test_of_ten_turns_six_three_and_one() -> None:
    """These are the shares that docs/actions.md promises."""
    assert TURNS == 10
    assert [turns_of(one) for one in Priority] == [6, 3, 1]
    assert order_of_turn(6) == (LOW, HIGH, NORMAL)


def test_no_priority_has_more_than_two_turns_in_a_row() -> None:
    """The turns of a priority are apart from each other, also from one ten to the next."""
    first = "".join(order_of_turn(turn)[0].value[0] for turn in range(2 * TURNS))

    assert "hhh" not in first
    assert "nn" not in first


@pytest.mark.parametrize("text", ["", "High", "HIGH", "urgent", "0", "high ", "x" * 10_000])
def test_another_word_is_refused(text: str) -> None:
    """A priority is one of three words, in lower case. The message names them, and is short."""
    with pytest.raises(InvalidName, match="high, normal, low") as refused:
        check_priority(text)

    assert len(str(refused.value)) < 200


def test_a_cap_is_the_highest() -> None:
    """What is as high, or lower, is within it."""
    assert [is_within(one, NORMAL) for one in Priority] == [False, True, True]
    assert all(is_within(one, HIGH) for one in Priority)
    assert check_priority("low") is LOW
