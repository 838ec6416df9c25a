"""Operations that wait, by action and reason. The reasons are those of a status (`WaitingReason`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .instruments import Gauges


class Wait(NamedTuple):
    """Operations that wait for the same."""

    number: int
    seconds: float
    """For how long the one that began first has waited; 0 if there is none."""


Waits = Mapping[tuple[str, str], Wait]
"""By the label of the action, and the reason."""


def wait_gauges(read: Callable[[], Waits]) -> tuple[Gauges, Gauges]:
    """Return the two gauges of what waits.

    Args:
        read: returns what is known now.
    """
    return (
        Gauges(
            "opstream_waiting",
            "Operations that wait, by what they wait for. Each process shows all of them: take the maximum over "
            "processes, never the sum.",
            *("action", "reason"),
            read=lambda: [(labels, wait.number) for labels, wait in read().items()],
        ),
        Gauges(
            "opstream_oldest_waiting_seconds",
            "For how long the operation has waited that began to wait first; 0 without one. Take the maximum over "
            "processes.",
            *("action", "reason"),
            read=lambda: [(labels, wait.seconds) for labels, wait in read().items()],
        ),
    )
