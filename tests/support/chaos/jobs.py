"""What clients of a chaos run submit, how often, and how it may end."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec

from tests.support.chaos.actions import FEW, LARGE, MANY
from tests.support.system.invariants import Promise

RESOURCE: Final = "chaos"
RESOURCES: Final = ("r1", "r2", "r3")
"""The resources that operations compete for."""
LIMITED: Final = "limited"
"""The action with a limit of concurrent operations."""
GOOD: Final = "Succeeded"
CANCELED: Final = "Canceled"
LOST: Final = "Failed RunnerLost"
INTERRUPTED: Final = "Failed StepInterrupted"
"""Of a step that must run at most once: its runner was killed between its start and its record."""
CHILD_FAILED: Final = "Failed ChildFailed"
UNTRIED: Final = frozenset({"Failed 500", "Failed 503"})
"""What an attempt that was meant to fail, and to be tried again, ends as after a cancel request."""


def _nothing(_random: Random) -> dict[str, Any]:
    return {}


def _moment(random: Random) -> dict[str, Any]:
    return {"seconds": round(random.uniform(0, 0.2), 3)}


def _while(random: Random) -> dict[str, Any]:
    return {"seconds": round(random.uniform(0.2, 3), 3)}


def _filled(_random: Random) -> dict[str, Any]:
    return {"filler": "x" * LARGE}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of operation."""

    action: str
    weight: float = 1
    """Relative frequency."""
    ends: frozenset[str]
    """Allowed ends without a cancel request: a status, for a failure with its code."""
    work: Callable[[Random], dict[str, Any]] = _nothing
    """Makes its input."""
    cancels: float = 0.05
    """Probability of a cancel request."""
    waits_to_run: bool = False
    """True if the cancel request waits until it runs."""
    resources: tuple[str, ...] = ()
    """It is for one of them."""
    refusals: frozenset[str] = frozenset()
    """Codes with which the request may be refused."""
    max_attempts: int = MANY
    signals: int = 0
    """Number of signals that it waits for."""
    priorities: tuple[str, ...] = ()
    """Its requests have one of them."""

    def draw(self, number: int, random: Random) -> Promise:
        """One request."""
        resource = random.choice(self.resources) if self.resources else ""
        return Promise(f"{RESOURCE}:{self.action}", {"number": number, **self.work(random)}, resource)


def _bad(random: Random) -> dict[str, Any]:
    return {"bad": random.randint(1, 4), "seconds": round(random.uniform(0, 0.4), 3)}


_GOOD: Final = frozenset({GOOD})
_OFTEN_REPLACED: Final = frozenset({GOOD, CANCELED})

JOBS: Final = (
    Job(action="quick", weight=20, ends=_GOOD),
    Job(action="large", weight=3, ends=_GOOD, work=_filled),
    Job(action="slow", weight=8, ends=_GOOD, work=_while, cancels=0.1),
    Job(action="thread", weight=4, ends=_GOOD, work=_while),
    Job(action="isolated", weight=3, ends=_GOOD, work=_while, cancels=0.1),
    Job(action="fail", weight=6, ends=frozenset({"Failed Meant"}), work=_moment),
    Job(action="patient", weight=5, ends=frozenset(), work=_moment, cancels=1.0, waits_to_run=True),
    Job(action="flaky", weight=8, ends=_GOOD, work=_bad, cancels=0.1),
    Job(action="stepping", weight=8, ends=_GOOD | {INTERRUPTED}, work=_bad, cancels=0.1),
    Job(action="stepping-apart", weight=2, ends=_GOOD | {INTERRUPTED}, work=_bad, cancels=0.1),
    Job(action="napping", weight=6, ends=_GOOD, work=_bad, resources=RESOURCES, cancels=0.1),
    Job(action="parent", weight=6, ends=_GOOD, work=_while, cancels=0.1),
    Job(action="hasty", weight=2, ends=frozenset({CHILD_FAILED}), cancels=0.1),
    Job(action="asking", weight=6, ends=_GOOD, work=_bad, cancels=0.1, signals=2),
    Job(action="sorry", weight=6, ends=_GOOD, work=_while, cancels=0.6),
    Job(action="ranked", weight=6, ends=_GOOD, work=_moment, priorities=("high", "normal", "low")),
    Job(action="throttled", weight=5, ends=_GOOD, work=_bad),
    Job(action="hopeless", weight=4, ends=frozenset({"Failed 500", LOST}), max_attempts=FEW),
    Job(action="timed", weight=3, ends=_GOOD, work=_bad),
    Job(action="late", weight=4, ends=frozenset({GOOD, "Failed DeadlineExceeded"}), work=_while),
    Job(action="alone", weight=10, ends=_GOOD, work=_moment, resources=RESOURCES, cancels=0.15),
    Job(action="stumbling", weight=5, ends=_GOOD, work=_bad, resources=RESOURCES),
    Job(action="desk", weight=3, ends=_OFTEN_REPLACED, work=_moment, resources=RESOURCES),
    Job(
        action="picky",
        weight=3,
        ends=_OFTEN_REPLACED | {"Failed ResourceBusy"},
        work=_moment,
        resources=RESOURCES,
        refusals=frozenset({"ResourceBusy"}),
    ),
    Job(action="takeover", weight=3, ends=_OFTEN_REPLACED, work=_moment, resources=RESOURCES),
    Job(action=LIMITED, weight=5, ends=_GOOD, work=_moment),
    Job(action="paced", weight=5, ends=_GOOD),
    Job(
        action="crash",
        weight=0.4,
        ends=frozenset({GOOD, LOST}),
        work=lambda random: {"bad": random.choice([1, FEW])},
        max_attempts=FEW,
    ),
)
