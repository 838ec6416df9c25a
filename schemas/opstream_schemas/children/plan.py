"""The decision of a parent that looks at its children: which of them to begin, and whose end to wait for. Pure.

A parent waits for one child at a time, and looks at all of them when it is woken. So the ends of ten thousand children
need no count that several processes would have to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from opstream_schemas.events import ChildWait

_FIRST_BACKSTOP: Final = 30.0
_FAST_BACKSTOP: Final = 2.0
"""With `fail_fast`: a child may fail between the parent's look and its wait, when nobody wakes the parent yet."""
_LONGEST_BACKSTOP: Final = 6 * 3600.0
_ANY_FACTOR: Final = 1.02
_LONGEST_ANY: Final = 60.0


class ChildState(StrEnum):
    """What is known of a child."""

    MISSING = "missing"
    """It does not exist yet."""
    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


UNENDED: Final = frozenset({ChildState.MISSING, ChildState.OPEN})


class ChildrenPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do now."""

    begin: tuple[int, ...]
    """The children to begin, by their places."""
    watch: int | None
    """The child whose end is to wake the parent; None if all have ended, or none is open once `begin` has begun."""
    is_limited: bool
    """True if further children are to begin as others end."""
    ended: int
    """How many of the first ones have ended."""


def plan_children(states: Sequence[ChildState], *, max_parallel: int, waits: int, ended: int = 0) -> ChildrenPlan:
    """Return what to do with children in these states.

    Args:
        states: of the children, in order, without the first `ended`.
        max_parallel: how many may be open at once; 0 for any number.
        waits: how often the parent has waited for these children before.
        ended: how many of the first ones are known to have ended.
    """
    was_open = [index for index, state in enumerate(states) if state is ChildState.OPEN]
    missing = [index for index, state in enumerate(states) if state is ChildState.MISSING]
    free = len(missing) if not max_parallel else max(0, max_parallel - len(was_open))
    begin = missing[:free]
    is_limited = len(missing) > free
    running = sorted(was_open + begin)
    leading = next((index for index, state in enumerate(states) if state in UNENDED), len(states))
    watch = running[_watched(len(running), waits, is_limited=is_limited)] + ended if running else None
    return ChildrenPlan(
        begin=tuple(index + ended for index in begin), watch=watch, is_limited=is_limited, ended=leading + ended
    )


def wait_of_plan(
    plan: ChildrenPlan, child: str, now: datetime, *, waits: int, fail_fast: bool
) -> tuple[ChildWait, datetime]:
    """Return the wait for what a plan watches, and its own time: when the parent looks even if it hears of nothing.

    That time is for wake-ups that are lost. It grows, so that a parent of children that take a month writes some
    hundred events and no more.

    Args:
        plan: has something to watch.
        child: its id.
        now: with a time zone.
        waits: how often the parent has waited for these children before.
        fail_fast: whether the first failure ends the wait.
    """
    any_from = None
    if plan.is_limited:
        # Each end lets another child begin, and a wake-up for each would be as many as there are children.
        any_from = now + timedelta(seconds=min(_ANY_FACTOR ** min(waits, 1_000), _LONGEST_ANY))
    first = _FAST_BACKSTOP if fail_fast else _FIRST_BACKSTOP
    backstop = min(first * 1.5 ** min(waits, 100), _LONGEST_BACKSTOP)
    wait = ChildWait(id=child, fail_fast=fail_fast, any_from=any_from, ended=plan.ended)
    return wait, now + timedelta(seconds=backstop)


def wakes_parent(wait: ChildWait, child: str, *, has_succeeded: bool) -> bool:
    """Return True if the end of a child of the wait's name ends the wait at once."""
    return wait.id == child or (wait.fail_fast and not has_succeeded)


def _watched(running: int, waits: int, *, is_limited: bool) -> int:
    """Return which of the running children to watch.

    If others are to begin, the one in the middle: about half of them have ended by then. Otherwise first the last one,
    which most likely ends last, and later any: however they end, each look finds about half of the rest.
    """
    if is_limited:
        return running // 2
    if waits == 0:
        return running - 1
    return int.from_bytes(sha256(f"{waits} {running}".encode()).digest()[:8], "big") % running
