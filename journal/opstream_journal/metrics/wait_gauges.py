"""Operations that wait, by action and reason. The reasons are those of `waitingFor`, and two more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

from .instruments import Gauges


class WaitReason(StrEnum):
    """What an operation waits for. The first five words are those of `WaitingReason` (`status_monitor`)."""

    RUNNER = "Runner"
    FREE_RUNNER = "FreeRunner"
    CONCURRENCY = "Concurrency"
    RATE = "Rate"
    RESOURCE = "Resource"
    RETRY = "Retry"
    """The pause before its next attempt."""
    VERSION = "Version"
    """A runner of the version of the action that it was requested for."""
    START_TIME = "StartTime"
    """Its start time. It has not waited until then, so its seconds are 0."""


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
