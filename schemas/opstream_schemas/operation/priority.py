"""The priorities of operations, and which one has the next turn. Pure (docs/adr/0072).

Only an action that asks for priorities has them (`Policy.priority`). Its operations wait in three queues. A runner
with a free slot takes a turn: it looks into the queues in the order of that turn, and takes the first operation there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from opstream_schemas.errors import InvalidName


class Priority(StrEnum):
    """The priority of an operation. The first is the highest."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


PRIORITIES: Final = tuple(Priority)
"""All of them, the highest first."""
QUEUED_PRIORITIES: Final = (Priority.HIGH, Priority.LOW)
"""Those with a queue beside the one that each action has, which is that of `NORMAL`."""

_FIRST: Final = tuple({"h": Priority.HIGH, "n": Priority.NORMAL, "l": Priority.LOW}[letter] for letter in "hnhhnhlhnh")
"""The priority with which each of ten turns begins: six, three and one, apart from each other."""
_SHOWN: Final = 80
TURNS: Final = len(_FIRST)
"""The turns after which the order is repeated."""


def order_of_turn(turn: int) -> tuple[Priority, ...]:
    """Return in which order to look into the queues: the turn's own, and then the others, the highest first.

    So of `TURNS` turns in a row, a queue that always has something gets at least `turns_of` its priority.

    Args:
        turn: counts up from any number.
    """
    first = _FIRST[turn % TURNS]
    return (first, *(one for one in PRIORITIES if one is not first))


def turns_of(priority: Priority) -> int:
    """Return how many of `TURNS` turns begin with a priority."""
    return _FIRST.count(priority)


def check_priority(text: str) -> Priority:
    """Return the priority that a text names.

    Raises:
        InvalidName: it names none.
    """
    try:
        return Priority(text)
    except ValueError:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        raise InvalidName(f"a priority is one of {', '.join(PRIORITIES)}, and not {shown!r}") from None


def is_within(priority: Priority, most: Priority) -> bool:
    """Return True if a priority is not higher than the highest that is allowed."""
    return PRIORITIES.index(priority) >= PRIORITIES.index(most)
